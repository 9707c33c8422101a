"""What can be said of cells that have been trained a few times each: means, intervals, and luck."""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from report.sizes import Size

RESAMPLES = 2000
"""Of a bootstrap of whatever statistic."""

DRAWS = 20_000
"""Of what can be drawn at once."""

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
        return mean_top1(self.top1)


def mean_top1(trainings: Sequence[float]) -> float:
    """The mean, rounded, so that as many right images are as good however they are summed."""
    return round(statistics.fmean(trainings), 6)


def group_of(name: str) -> str:
    """The group of the cell, or the learner of the search, that is called `<group>-<number>`."""
    return name.rpartition("-")[0]


class Estimate(NamedTuple):
    """A number and its 95 % interval; the bounds are NaN where nothing can be said of them."""

    value: float
    low: float
    high: float

    def text(self, places: int = 2) -> str:
        """`62.50 [61.20, 63.80]`, or without bounds if there are none."""
        if np.isnan(self.low):
            return f"{self.value:.{places}f}"
        return f"{self.value:.{places}f} [{self.low:.{places}f}, {self.high:.{places}f}]"


def estimate(value: float, draws: np.ndarray) -> Estimate:
    """A value with the interval that 95 % of draws (n,) of it lie in; NaNs are no draws."""
    draws = draws[~np.isnan(draws)]
    low, high = np.percentile(draws, [2.5, 97.5]) if len(draws) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def errors_of_mean(values: Sequence[float]) -> np.ndarray:
    """How far the mean of so few values may be off, float (DRAWS,): Student's t; NaN for one value.

    A bootstrap's interval for five cells holds the truth 85 times in 100 and not 95.
    """
    count = len(values)
    if count < 2:
        return np.full(DRAWS, np.nan)
    scale = np.std(values, ddof=1) / count**0.5
    return scale * np.random.default_rng(0).standard_t(count - 1, DRAWS)


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean of cells' means, or of their differences."""
    mean = statistics.fmean(values)
    return estimate(mean, mean + errors_of_mean(values))


class AtEqualSize(NamedTuple):
    """How a group compares with chance cells of its multiply-adds, in points of accuracy.

    Attributes:
        above_mean: by how much its mean is above the line that is fitted to chance cells.
        above_best_tenth: by how much more than 90 % of chance cells are.
    """

    above_mean: Estimate
    above_best_tenth: Estimate


def at_equal_size(group: Sequence[TrainedCell], chance: Sequence[TrainedCell]) -> AtEqualSize:
    """Compare a group with chance cells of all sizes, by a line through accuracy and multiply-adds.

    The intervals know of the group's luck (Student's t) and of the chance cells' (a bootstrap, in
    which the line is fitted anew).
    """
    x, y = _points(chance)
    own_x, own_y = _points(group)
    drawn = np.random.default_rng(1).integers(len(x), size=(DRAWS, len(x)))
    drawn[0] = np.arange(len(x))  # the cells as they are
    drawn_x, drawn_y = x[drawn], y[drawn]
    middle_x, middle_y = drawn_x.mean(1, keepdims=True), drawn_y.mean(1, keepdims=True)
    spread = ((drawn_x - middle_x) ** 2).sum(1, keepdims=True)
    slope = ((drawn_x - middle_x) * drawn_y).sum(1, keepdims=True)
    slope = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0)
    best_tenth = np.percentile(drawn_y - middle_y - slope * (drawn_x - middle_x), 90, axis=1)
    above = own_y - middle_y - slope * (own_x - middle_x)  # (DRAWS, the group's cells)
    mean = above.mean(1)
    errors = errors_of_mean(above[0].tolist())
    return AtEqualSize(
        estimate(mean[0], mean + errors),
        estimate(mean[0] - best_tenth[0], mean - best_tenth + errors),
    )


def _points(cells: Sequence[TrainedCell]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([cell.size.multiply_adds / 1e6 for cell in cells]),
        np.array([cell.mean for cell in cells]),
    )


def bootstrap(statistic: Callable[..., float], *groups: Trainings) -> Estimate:
    """`statistic(*groups)` with an interval by a bootstrap over cells, trainings inside."""
    random = np.random.default_rng(0)

    def resampled(trainings: Trainings) -> list[list[float]]:
        drawn = random.integers(len(trainings), size=len(trainings))
        return [random.choice(trainings[cell], len(trainings[cell])).tolist() for cell in drawn]

    draws = [statistic(*map(resampled, groups)) for _ in range(RESAMPLES)]
    return estimate(statistic(*groups), np.array(draws))


def share_beaten(ours: Trainings, others: Trainings) -> float:
    """In percent, how likely a cell of ours has a higher mean than one of the others; ties half."""
    mine, theirs = ([mean_top1(trainings) for trainings in cells] for cells in (ours, others))
    wins = np.sign(np.subtract.outer(mine, theirs))
    return 50 * float(wins.mean() + 1)


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


def best_of(count: int, trainings: Trainings) -> np.ndarray | None:
    """What the best of `count` random cells reaches, for many draws of them: float (RESAMPLES,).

    The best is chosen by one training and judged by its others, so that luck in the first does not
    count. None if fewer than so many cells have been trained twice.
    """
    random = np.random.default_rng(0)
    repeated = [list(values) for values in trainings if len(values) > 1]
    if len(repeated) < count:
        return None
    reached = []
    for _ in range(RESAMPLES):
        drawn = []
        for cell in random.choice(len(repeated), size=count, replace=False):
            first, *others = random.permutation(repeated[cell])
            drawn.append((first, statistics.mean(others)))
        reached.append(max(drawn)[1])
    return np.array(reached)
