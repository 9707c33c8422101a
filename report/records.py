"""The records of a run: what its loops write into the history and beside it, and how it is read.

Nothing in a run folder is trusted: each record is checked when it is made from its JSON form.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from genotypes import PRIMITIVES, Genotype, genotype_from_dict
from report.sizes import Size, Target
from runtime.untrusted import is_number, is_whole_number

POPULATION_FILE = "population.json"
CONFUSION_FILE = "confusion.json"
PREDICTIONS_FILE = "predictions.png"
REPORT_FILE = "report.html"

METRICS = {
    "loss": "loss",
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "found": "joints found",
}
"""What trainings measure, by its name in their histories, and what reports call it.

All but the loss are in percent. The first of a training's validation, the loss left out, is what
it judges checkpoints by.
"""

Record = TypeVar("Record")


def metric_title(name: str) -> str:
    """What a column or a panel of a metric is called."""
    return METRICS[name] if name == "loss" else f"{METRICS[name]} %"


@dataclass(frozen=True)
class PairRecord:
    """A pair of the search: a line of its history.

    Attributes:
        generation: from 0.
        members: places in the population.
        genotypes, losses, accuracies: of the two members; None for a number that is not finite,
            and for a member outside the budget.
        slow: the slow learner's place; None if there was nobody to learn from.
        diversity: of the population after the pair's update.
        seconds: of both turns.
        excesses: by how much each member was outside the budget; then it got no turn.
    """

    generation: int
    members: tuple[int, int]
    genotypes: tuple[Genotype, Genotype]
    losses: tuple[float | None, float | None]
    accuracies: tuple[float | None, float | None]
    slow: int | None
    diversity: float
    seconds: float
    excesses: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def from_record(cls, record: dict) -> "PairRecord":
        """From a line of the history; raises ValueError, TypeError or KeyError if it is not one."""
        members = _two(record["members"], _whole_number)
        slow = record["slow"]
        if slow is not None and slow not in members:
            raise ValueError("the slow learner is none of the pair")
        return cls(
            generation=_whole_number(record["generation"]),
            members=members,
            genotypes=_two(record["genotypes"], genotype_from_dict),
            losses=_two(record["losses"], _finite_or_none),
            accuracies=_two(record["accuracies"], _finite_or_none),
            slow=slow,
            diversity=_finite(record["diversity"]),
            seconds=_finite(record["seconds"]),
            # Only searches within a budget write them.
            excesses=_two(record.get("excesses", (0.0, 0.0)), _finite),
        )


@dataclass(frozen=True)
class Spread:
    """Best, median and quartiles of the finite numbers among a generation's."""

    best: float
    lower_quartile: float
    median: float
    upper_quartile: float

    @classmethod
    def of(cls, numbers: Sequence[float | None], best: Callable) -> "Spread":
        """Of `numbers`, all NaN if none is finite; `best` is min or max."""
        finite = [number for number in numbers if number is not None]
        if not finite:
            return cls(*[math.nan] * 4)
        return cls(best(finite), *np.percentile(finite, [25, 50, 75]).tolist())


@dataclass(frozen=True)
class Generation:
    """A generation of the search, as far as it got.

    Attributes:
        number: from 0.
        pairs: those done, in their order.
    """

    number: int
    pairs: list[PairRecord]

    @property
    def losses(self) -> Spread:
        return Spread.of([loss for pair in self.pairs for loss in pair.losses], min)

    @property
    def accuracies(self) -> Spread:
        return Spread.of([number for pair in self.pairs for number in pair.accuracies], max)

    @property
    def diversity(self) -> float:
        return self.pairs[-1].diversity

    @property
    def seconds(self) -> float:
        return sum(pair.seconds for pair in self.pairs)

    @property
    def candidates(self) -> list[tuple[Genotype, float]]:
        """The genotypes that have a finite loss, and these losses."""
        return [
            (genotype, loss)
            for pair in self.pairs
            for genotype, loss in zip(pair.genotypes, pair.losses, strict=True)
            if loss is not None
        ]

    @property
    def best(self) -> tuple[Genotype, float] | None:
        """The genotype of the lowest loss, and that loss."""
        return min(self.candidates, key=lambda candidate: candidate[1], default=None)

    @property
    def failed(self) -> int:
        """Number of candidates that were trained and have no finite loss."""
        turns = 2 * len(self.pairs) - self.outside
        return turns - len(self.candidates)

    @property
    def outside(self) -> int:
        """Number of candidates outside the budget, which were not trained."""
        return sum(excess > 0 for pair in self.pairs for excess in pair.excesses)

    def operation_shares(self, cell: str) -> dict[str, float]:
        """How often each operation occurs in the candidates' cells, in percent of all.

        Args:
            cell: "normal" or "reduce".
        """
        names = [
            name
            for pair in self.pairs
            for genotype in pair.genotypes
            for name, _ in getattr(genotype, cell)
        ]
        return {name: 100 * names.count(name) / len(names) for name in PRIMITIVES}

    def scalars(self, target: Target) -> dict[str, float]:
        """What TensorBoard shows of a generation, by tag; sizes are those of the `target`."""
        scalars = {"diversity": self.diversity, "seconds": self.seconds}
        sizes = [target.size(genotype) for pair in self.pairs for genotype in pair.genotypes]
        scalars |= {
            f"{name}/median": float(median)
            for name, median in zip(Size._fields, np.median(sizes, axis=0), strict=True)
        }
        for name, spread in (("loss", self.losses), ("accuracy", self.accuracies)):
            scalars[f"{name}/best"] = spread.best
            scalars[f"{name}/median"] = spread.median
        for cell in ("normal", "reduce"):
            for name, share in self.operation_shares(cell).items():
                scalars[f"operations_{cell}/{name}"] = share
        return scalars


@dataclass(frozen=True)
class Member:
    """A member of the final population; `loss` and `accuracy` with the final weight set.

    `accuracy` is None if the member is outside the budget and was not validated.
    """

    genotype: Genotype
    loss: float | None
    accuracy: float | None

    @classmethod
    def from_record(cls, record: dict) -> "Member":
        return cls(
            genotype_from_dict(record["genotype"]),
            _finite_or_none(record["loss"]),
            _finite_or_none(record["accuracy"]),
        )


@dataclass(frozen=True)
class EpochRecord:
    """An epoch of a training: a line of its history.

    Attributes:
        number: from 0.
        training: what was measured over the training steps, by its name in `METRICS` and in their
            order; None for a number that is not finite.
        validation: the same over the validation images.
        images: that were seen, in training and validation.
    """

    number: int
    learning_rate: float
    training: dict[str, float | None]
    validation: dict[str, float | None]
    images: int
    seconds: float

    @classmethod
    def from_record(cls, record: dict) -> "EpochRecord":
        """From a line of the history; raises ValueError, TypeError or KeyError if it is not one."""
        training, validation = record["train"], record["validation"]
        return cls(
            _whole_number(record["epoch"]),
            _finite(record["learning_rate"]),
            _metrics(training),
            _metrics(validation),
            _whole_number(training["count"]) + _whole_number(validation["count"]),
            _finite(record["seconds"]),
        )

    def scalars(self) -> dict[str, float]:
        """What TensorBoard shows of an epoch, by tag."""
        numbers = {
            f"{name}/{part}": math.nan if value is None else value
            for part in ("training", "validation")
            for name, value in getattr(self, part).items()
        }
        return numbers | {
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
            "images_per_second": self.images / self.seconds,
        }

    @property
    def judged_by(self) -> str | None:
        """The name in `METRICS` of what checkpoints are judged by; None if there is no such."""
        return next((name for name in self.validation if name != "loss"), None)


@dataclass(frozen=True)
class Confusion:
    """What the best checkpoint takes the validation images for.

    Attributes:
        epoch: of that checkpoint, counted from 1.
        classes: their names.
        counts: int64 (classes, classes); rows are the true classes, columns the predicted ones.
    """

    epoch: int
    classes: list[str]
    counts: np.ndarray

    @classmethod
    def from_record(cls, record: dict) -> "Confusion":
        classes, counts = record["classes"], record["counts"]
        size = len(classes)
        if not size or not all(isinstance(name, str) for name in classes):
            raise ValueError("no names of classes")
        if len(counts) != size or any(len(row) != size for row in counts):
            raise ValueError("not a square of counts")
        numbers = [[_whole_number(count) for count in row] for row in counts]
        return cls(_whole_number(record["epoch"]), classes, np.array(numbers, dtype=np.int64))


def _two(values: Sequence, convert: Callable[[object], Record]) -> tuple[Record, Record]:
    first, second = values
    return convert(first), convert(second)


def _whole_number(value: object) -> int:
    if not is_whole_number(value, 0, 2**53 - 1):
        raise ValueError("not a whole number from 0 up")
    return value


def _finite_or_none(value: object) -> float | None:
    if value is None or (type(value) is float and not math.isfinite(value)):
        return None
    if not is_number(value):
        raise ValueError("not a number")
    return float(value)


def _metrics(numbers: dict) -> dict[str, float | None]:
    return {name: _finite_or_none(numbers[name]) for name in METRICS if name in numbers}


def _finite(value: object) -> float:
    number = _finite_or_none(value)
    if number is None:
        raise ValueError("not a finite number")
    return number
