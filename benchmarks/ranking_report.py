"""How well signals rank cells, and how good the cells are that they choose: tables in Markdown."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.study_report import (
    RESAMPLES,
    TrainedCell,
    deviations,
    interval,
    mean_of_cells,
    with_interval,
)


class Answer(NamedTuple):
    """What a search's weight set says of a cell.

    Attributes:
        search: name of the search.
        percent: of the search that was done.
        cell: name of the cell.
        signal: by which it was asked.
        loss: validation loss; None if it is not finite.
    """

    search: str
    percent: int
    cell: str
    signal: str
    loss: float | None


DIVERGED = -1e300
"""Ranks lowest: a low loss is a high rank."""


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's τ-b of two rankings, float arrays (n,); NaN if all of one are equal."""
    a, b = (np.sign(np.subtract.outer(values, values)) for values in (first, second))
    ties = np.sqrt(np.abs(a).sum() * np.abs(b).sum())
    return float((a * b).sum() / ties) if ties else float("nan")


def correlation(rankings: Sequence[np.ndarray], truth: np.ndarray) -> tuple[float, float, float]:
    """The mean τ of `rankings` (one by each search) with `truth`, and its 95 % interval.

    The interval is a bootstrap over the cells, the same ones for all searches.
    """
    random = np.random.default_rng(0)
    mean = float(np.mean([kendall(ranking, truth) for ranking in rankings]))
    resampled = [mean]
    for _ in range(RESAMPLES):
        drawn = random.integers(len(truth), size=len(truth))
        taus = [kendall(ranking[drawn], truth[drawn]) for ranking in rankings]
        if not np.isnan(taus).any():  # as where one cell has been drawn all the time
            resampled.append(np.mean(taus))
    low, high = np.percentile(resampled, [2.5, 97.5])
    return mean, float(low), float(high)


def ranking_table(cells: Sequence[TrainedCell], answers: Sequence[Answer]) -> list[str]:
    """Kendall's τ between the accuracy from scratch and each signal at each point.

    A search counts at a point where all of the cells have been asked about.
    """
    truth = np.array([cell.mean for cell in cells])
    losses = {answer[:4]: answer.loss for answer in answers}
    percents = sorted({answer.percent for answer in answers})
    lines = [
        f"Kendall's τ with the accuracy from scratch over {len(cells)} random cells "
        "[95 % interval], and the number of searches:",
        "",
        f"| signal | {' | '.join(f'at {percent} %' for percent in percents)} |",
        "| --- " * (1 + len(percents)) + "|",
    ]
    for name in dict.fromkeys(answer.signal for answer in answers):
        columns = [name]
        for percent in percents:
            rankings = []
            for search in dict.fromkeys(answer.search for answer in answers):
                keys = [(search, percent, cell.name, name) for cell in cells]
                if all(key in losses for key in keys):
                    own = [losses[key] for key in keys]
                    rankings.append(np.array([DIVERGED if x is None else -x for x in own]))
            column = ""
            if rankings and len(cells) > 2:
                mean, *bounds = correlation(rankings, truth)
                column = f"{with_interval(mean, bounds, 2)}, {len(rankings)}"
            columns.append(column)
        lines.append(f"| {' | '.join(columns)} |")
    if len(cells) > 2:
        for place, name in enumerate(("parameters", "multiply-adds")):
            sizes = np.array([float(cell.size[place]) for cell in cells])
            mean, *bounds = correlation([sizes], truth)
            lines += ["", f"{name} alone: {with_interval(mean, bounds, 2)}"]
    return lines


def noise_table(populations: Mapping[str, Sequence[Sequence[Answer]]]) -> list[str]:
    """How far apart the losses of different cells are, and those of one cell that is asked twice.

    Args:
        populations: by search, for each cell of its final population the answers about it: several
            of each signal where the population holds the cell several times.
    """
    lines = []
    signals = dict.fromkeys(a.signal for cells in populations.values() for c in cells for a in c)
    for signal in signals:
        losses: list[list[float]] = []
        for cells in populations.values():
            own = [
                [a.loss for a in cell if a.signal == signal and a.loss is not None]
                for cell in cells
            ]
            if all_losses := [loss for cell in own for loss in cell]:
                middle = float(np.mean(all_losses))
                losses += [[loss - middle for loss in cell] for cell in own if cell]
        if spread := deviations(losses):
            lines.append("| {} | {:.3f} | {:.3f} |".format(signal, *spread))
    if not lines:
        return []
    return [
        "Standard deviations of the losses of final populations, searches' means taken off:",
        "",
        "| signal | cells | one cell, asked again |",
        "| --- | --- | --- |",
        *lines,
        "",
    ]


def choice_table(chosen: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """The accuracy from scratch of the cells that each signal chose.

    Args:
        chosen: by signal, by search, the accuracies of the trainings of the cell chosen from the
            final population. Searches that not all signals have are left out.
    """
    if not chosen:
        return []
    searches = set.intersection(*(set(own) for own in chosen.values()))
    if not searches:
        return []
    lines = [
        "",
        f"The cells that signals choose from the final populations of {len(searches)} searches:",
        "",
        "| signal | top-1 % | other than the first signal's |",
        "| --- | --- | --- |",
    ]
    first = next(iter(chosen.values()))
    for name, own in chosen.items():
        trainings = [own[search] for search in sorted(searches)]
        others = sum(list(own[search]) != list(first[search]) for search in searches)
        shown = with_interval(mean_of_cells(trainings), interval(mean_of_cells, trainings), 2)
        lines.append(f"| {name} | {shown} | {others} |")
    return lines
