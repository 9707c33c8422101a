"""What the cells of a study tell: means with intervals, who beats whom, and by how much size."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from report.sizes import Size

RESAMPLES = 2000
"""Of a bootstrap."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

Trainings = Sequence[Sequence[float]]
"""Cell by cell the top-1 accuracies of its trainings, in percent."""


class TrainedCell(NamedTuple):
    """A cell that has been trained from scratch.

    Attributes:
        name: in the study, `<group>-<number>`.
        size: of the network trained.
        top1: test accuracy after each of its trainings, in percent.
    """

    name: str
    size: Size
    top1: list[float]

    @property
    def mean(self) -> float:
        return statistics.mean(self.top1)


def resampled(trainings: Trainings, random: np.random.Generator) -> list[list[float]]:
    """As many cells drawn with replacement, and of each as many trainings drawn so."""
    drawn = random.integers(len(trainings), size=len(trainings))
    return [random.choice(trainings[cell], len(trainings[cell])).tolist() for cell in drawn]


def interval(
    statistic: Callable[..., float], *groups: Trainings, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of `statistic(*groups)`: a bootstrap over cells, trainings inside."""
    random = np.random.default_rng(seed)
    values = [statistic(*(resampled(group, random) for group in groups)) for _ in range(RESAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_of_cells(trainings: Trainings) -> float:
    """The mean of the cells' means."""
    return statistics.mean(sum(values) / len(values) for values in trainings)


def share_beaten(ours: Trainings, others: Trainings) -> float:
    """The probability that a cell of ours has a higher mean than one of the others; ties half."""
    mine, theirs = ([sum(v) / len(v) for v in cells] for cells in (ours, others))
    wins = np.sign(np.subtract.outer(mine, theirs))
    return float((wins.mean() + 1) / 2)


def deviations(trainings: Trainings) -> tuple[float, float] | None:
    """Standard deviations of cells and of trainings of one cell, by analysis of variance.

    None if no cell has been trained twice, or only one cell has been trained.
    """
    counts = [len(values) for values in trainings]
    repeats = sum(counts) - len(counts)
    if not repeats or len(counts) < 2:
        return None
    means = [statistics.mean(values) for values in trainings]
    within = sum(
        (value - mean) ** 2
        for values, mean in zip(trainings, means, strict=True)
        for value in values
    )
    within /= repeats
    overall = sum(map(sum, trainings)) / sum(counts)
    between = sum(
        count * (mean - overall) ** 2 for count, mean in zip(counts, means, strict=True)
    ) / (len(counts) - 1)
    usual = (sum(counts) - sum(n * n for n in counts) / sum(counts)) / (len(counts) - 1)
    return max(0.0, (between - within) / usual) ** 0.5, within**0.5


def best_of(count: int, trainings: Trainings, seed: int = 0) -> float | None:
    """What the best of `count` random cells is expected to reach.

    The best is chosen by one training and judged by its others, so that luck in the first does not
    count. None if no cell has been trained twice.
    """
    random = np.random.default_rng(seed)
    repeated = [list(values) for values in trainings if len(values) > 1]
    if not repeated:
        return None
    reached = []
    for _ in range(RESAMPLES):
        drawn = []
        for cell in random.integers(len(repeated), size=count):
            first, *others = random.permutation(repeated[cell])
            drawn.append((first, statistics.mean(others)))
        reached.append(max(drawn)[1])
    return statistics.mean(reached)


def by_group(cells: Sequence[TrainedCell]) -> dict[str, list[TrainedCell]]:
    """The cells by the group that their names begin with."""
    groups: dict[str, list[TrainedCell]] = {}
    for cell in cells:
        groups.setdefault(cell.name.rpartition("-")[0], []).append(cell)
    return groups


def report(
    cells: Sequence[TrainedCell],
    random_groups: Sequence[str],
    seconds: Mapping[str, Sequence[float]],
) -> list[str]:
    """The study's tables in Markdown, as lines of text.

    Args:
        random_groups: which groups are not found by searches; the first is the one that the
            percentiles are of.
        seconds: of the searches by learner, and of "training" for every training.
    """
    groups = by_group(cells)
    trainings = {name: [cell.top1 for cell in members] for name, members in groups.items()}
    against = [name for name in random_groups if name in groups]
    lines = [
        "| group | cells | trainings | top-1 % | multiply-adds | "
        + "".join(f"beats {name} | " for name in against).rstrip(),
        "| --- " * (5 + len(against)) + "|",
    ]
    for name, members in groups.items():
        own = trainings[name]
        columns = [
            name,
            str(len(members)),
            str(sum(map(len, own))),
            with_interval(mean_of_cells(own), interval(mean_of_cells, own), 2),
            f"{statistics.median(cell.size.multiply_adds for cell in members) / 1e6:.1f} M",
        ]
        for other in against:
            if name in random_groups:
                columns.append("")
                continue
            share = share_beaten(own, trainings[other])
            bounds = interval(share_beaten, own, trainings[other])
            columns.append(with_interval(100 * share, [100 * bound for bound in bounds], 0))
        lines.append(f"| {' | '.join(columns)} |")
    lines += ["", "95 % intervals in brackets; multiply-adds are medians; who beats whom is in %."]
    lines += ["", *_cell_table(cells, groups.get(against[0], []) if against else [])]
    for name in against:
        if spread := deviations(trainings[name]):
            lines += ["", "Standard deviations, {}: cells {:.2f}, trainings {:.2f}.".format(
                name, *spread
            )]  # fmt: skip
    lines += _costs(seconds, trainings.get(against[0], []) if against else [])
    return lines


def _cell_table(cells: Sequence[TrainedCell], random: Sequence[TrainedCell]) -> list[str]:
    lines = [
        "| cell | top-1 % | trainings | parameters | multiply-adds | above of random cells |",
        "| --- " * 6 + "|",
    ]
    for cell in sorted(cells, key=lambda cell: -cell.mean):
        others = [other for other in random if other is not cell]
        above = (
            f"{100 * statistics.mean(cell.mean > o.mean for o in others):.0f} %" if others else ""
        )
        trainings = ", ".join(f"{value:.2f}" for value in cell.top1)
        parameters, multiply_adds = (number / 1e6 for number in cell.size)
        lines.append(
            f"| {cell.name} | {cell.mean:.2f} | {trainings} | {parameters:.3f} M | "
            f"{multiply_adds:.1f} M | {above} |"
        )
    return lines


def _costs(seconds: Mapping[str, Sequence[float]], random: Trainings) -> list[str]:
    """What a search costs, and what training random cells for the same time comes to."""
    lines = []
    if not seconds.get("training"):
        return lines
    training = statistics.median(seconds["training"])
    for learner, searches in seconds.items():
        if learner == "training" or not searches:
            continue
        search = statistics.median(searches)
        affordable = max(1, round(search / training))
        line = (
            f"A {learner} search took {search:.0f} s, a training {training:.0f} s (medians): in "
            f"its time {affordable} random cells can be trained"
        )
        if random and (best := best_of(affordable, random)) is not None:
            line += f", of which the best (by one training, judged by another) reaches {best:.2f} %"
        lines += ["", line + "."]
    return lines


def with_interval(value: float, bounds: Sequence[float], places: int) -> str:
    """A number and its interval as text."""
    return f"{value:.{places}f} [{bounds[0]:.{places}f}, {bounds[1]:.{places}f}]"


def accuracy_by_size(cells: Sequence[TrainedCell]) -> Figure:
    """Top-1 accuracy against multiply-adds: each cell's mean, and its trainings as a bar."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for (name, members), colour in zip(by_group(cells).items(), COLOURS * 9, strict=False):
        sizes = [cell.size.multiply_adds / 1e6 for cell in members]
        means = [cell.mean for cell in members]
        axes.vlines(
            sizes, [min(cell.top1) for cell in members], [max(cell.top1) for cell in members],
            color=colour, lw=0.8, alpha=0.5,
        )  # fmt: skip
        axes.scatter(sizes, means, s=16, color=colour, label=name, lw=0, zorder=2)
    axes.set_xlabel("multiply-adds (M)", size=8)
    axes.set_ylabel("test top-1 accuracy (%)", size=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=7)
    return figure
