"""How well signals rank cells, and how good the cells are that they choose: tables in Markdown."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.study_report import sizes_in_words
from benchmarks.study_statistics import (
    RESAMPLES,
    Estimate,
    TrainedCell,
    at_equal_size,
    estimate,
    group_of,
    mean_estimate,
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


def correlations(rankings: Sequence[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """The mean τ of `rankings` (one by each search) with `truth`, float (1 + RESAMPLES,).

    The first is that of the cells as they are. The others are a bootstrap over the cells, the same
    ones for all searches, and in all calls with as many cells: differences can be taken.
    """
    random = np.random.default_rng(0)
    drawn = [np.arange(len(truth)), *random.integers(len(truth), size=(RESAMPLES, len(truth)))]
    return np.array(
        [
            np.mean([kendall(ranking[cells], truth[cells]) for ranking in rankings])
            for cells in drawn
        ]
    )


def _estimate(values: np.ndarray) -> Estimate:
    return estimate(values[0], values)


def ranking_table(cells: Sequence[TrainedCell], answers: Sequence[Answer]) -> list[str]:
    """Kendall's τ between the accuracy from scratch and each signal at each point.

    A search counts at a point where all of the cells have been asked about.
    """
    if len(cells) < 3:
        return []
    truth = np.array([cell.mean for cell in cells])
    losses = {answer[:4]: answer.loss for answer in answers}
    percents = sorted({answer.percent for answer in answers})
    sizes = np.array([float(cell.size.multiply_adds) for cell in cells])
    by_size = correlations([sizes], truth)
    lines = [
        f"Kendall's τ with the accuracy from scratch over {len(cells)} random cells "
        "[95 % interval], and the number of searches:",
        "",
        f"| learner | signal | {' | '.join(f'at {percent} %' for percent in percents)} | "
        "at the end, less that of multiply-adds |",
        "| --- " * (3 + len(percents)) + "|",
    ]
    searches = dict.fromkeys(answer.search for answer in answers)
    for learner in dict.fromkeys(map(group_of, searches)):
        for signal in dict.fromkeys(answer.signal for answer in answers):
            columns = [learner, signal]
            difference = ""
            for percent in percents:
                rankings = []
                for search in searches:
                    keys = [(search, percent, cell.name, signal) for cell in cells]
                    if group_of(search) == learner and all(key in losses for key in keys):
                        own = [losses[key] for key in keys]
                        rankings.append(np.array([DIVERGED if x is None else -x for x in own]))
                if rankings:
                    taus = correlations(rankings, truth)
                    columns.append(f"{_estimate(taus).text()}, {len(rankings)}")
                    if percent == 100:
                        difference = _estimate(taus - by_size).text()
                else:
                    columns.append("")
            lines.append(f"| {' | '.join([*columns, difference])} |")
    lines += ["", f"multiply-adds alone: {_estimate(by_size).text()}"]
    parameters = np.array([float(cell.size.parameters) for cell in cells])
    lines += ["", f"parameters alone: {_estimate(correlations([parameters], truth)).text()}"]
    if all(len(cell.top1) > 1 for cell in cells):
        first, second = (np.array([cell.top1[n] for cell in cells]) for n in (0, 1))
        both = _estimate(correlations([first], second)).text()
        lines += ["", f"the first training with the second: {both}"]
    return lines


def choice_table(
    chosen: Mapping[str, Mapping[str, TrainedCell]],
    chance: Sequence[TrainedCell],
    costs: Mapping[str, float],
) -> list[str]:
    """The accuracy from scratch of the cells that each signal chose, learner by learner.

    Args:
        chosen: by signal, by search, the cell chosen from the final population. Searches that not
            all signals have are left out.
        chance: cells that no search has found.
        costs: by signal, the turns of a search that chooses by it, over those of one that takes
            none for its choice.
    """
    searches = set.intersection(*(set(own) for own in chosen.values())) if chosen else set()
    if not searches:
        return []
    lines = [
        "",
        "The cells that signals choose from final populations, and in points how far they are "
        f"above the first signal's choice, and above {len(chance)} chance cells of their size:",
        "",
        "| learner | searches | signal | cost | top-1 % | M multiply-adds | above the first's "
        "| other cells | above the mean of chance | above 90 % of chance |",
        "| --- " * 10 + "|",
    ]
    first = next(iter(chosen.values()))
    for learner in sorted({*map(group_of, searches)}):
        own_searches = sorted(search for search in searches if group_of(search) == learner)
        for signal, cells_of in chosen.items():
            cells = [cells_of[search] for search in own_searches]
            differences = [cells_of[s].mean - first[s].mean for s in own_searches]
            others = sum(cells_of[s].name != first[s].name for s in own_searches)
            above = (
                [e.text() for e in at_equal_size(cells, chance)] if len(chance) > 2 else ["", ""]
            )
            columns = [
                learner,
                str(len(own_searches)),
                signal,
                f"{costs[signal]:.2f}",
                mean_estimate([cell.mean for cell in cells]).text(),
                sizes_in_words(cells),
                mean_estimate(differences).text() if others else "",
                str(others),
                *above,
            ]
            lines.append(f"| {' | '.join(columns)} |")
    return lines
