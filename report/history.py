"""What a run folder tells of its run, read back however far the run got and however it ended.

What is not of the form that the scripts write (report/records.py) is left out and counted.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from genotypes import GENOTYPE_FILE, Genotype, load_genotype
from report.records import (
    CONFUSION_FILE,
    POPULATION_FILE,
    PREDICTIONS_FILE,
    Confusion,
    EpochRecord,
    Generation,
    Member,
    PairRecord,
)
from report.sizes import Target, target_of
from runtime.errors import UserError
from runtime.run_folder import HISTORY_FILE
from runtime.settings import SETTINGS_FILE, read_settings
from runtime.untrusted import is_number, read_small_file

SEARCH_SCRIPTS = ("train_search.py",)
TRAINING_SCRIPTS = (
    "train.py", "train_imagenet.py", "train_detection.py", "train_segmentation.py",
    "train_keypoints.py",
)  # fmt: skip

LARGEST_PICTURE = 1 << 27
"""In bytes."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Record = TypeVar("Record")


@dataclass(frozen=True)
class RunHistory:
    """What both kinds of runs have.

    Attributes:
        folder: the run folder.
        settings: as the run was started.
        genotype: of `genotype.json`: what a search found, or what a training trains.
        problems: what could not be read, in words.
    """

    folder: Path
    settings: dict
    genotype: Genotype | None
    problems: list[str]

    @property
    def planned(self) -> int | None:
        """Generations or epochs that the run is to have."""
        epochs = self.settings.get("epochs")
        return epochs if type(epochs) is int and epochs > 0 else None


@dataclass(frozen=True)
class SearchHistory(RunHistory):
    """A search.

    Attributes:
        population: None until its end.
        target: the network that sizes are counted for; None if the settings have no such one.
    """

    generations: list[Generation] = field(default_factory=list)
    population: list[Member] | None = None
    target: Target | None = None

    def limits(self, what: str) -> list[float]:
        """The budget's limits in millions of `what`: "params" or "multiply_adds"."""
        limits = (self.settings.get(f"{bound}_{what}") for bound in ("min", "max"))
        return [float(limit) for limit in limits if is_number(limit)]

    @property
    def complete_generations(self) -> list[Generation]:
        """Those of which all pairs are done."""
        whole = max((len(generation.pairs) for generation in self.generations), default=0)
        size = self.settings.get("pop_size")
        if type(size) is int:
            whole = max(whole, size // 2)
        return [generation for generation in self.generations if len(generation.pairs) >= whole]


@dataclass(frozen=True)
class TrainingHistory(RunHistory):
    """A training.

    Attributes:
        confusion: None where none is kept.
        predictions: a PNG file's content; None where no pictures were asked for.
    """

    epochs: list[EpochRecord] = field(default_factory=list)
    confusion: Confusion | None = None
    predictions: bytes | None = None


def read_run(path: str | Path) -> SearchHistory | TrainingHistory:
    """Read a run folder.

    Raises:
        UserError: it is not the folder of a search or a training.
    """
    settings = read_settings(str(path))
    script = settings.get("script")
    if script not in SEARCH_SCRIPTS + TRAINING_SCRIPTS:
        raise UserError(
            f"{path}: was made by {str(script)[:80]!r}; there are reports of runs of "
            + ", ".join(SEARCH_SCRIPTS + TRAINING_SCRIPTS)
        )
    folder = Path(path)
    problems: list[str] = []
    genotype = None
    if (folder / GENOTYPE_FILE).exists():
        try:
            genotype = load_genotype(folder / GENOTYPE_FILE)
        except UserError as error:
            problems.append(str(error))
    common = (folder, settings, genotype, problems)
    if script in SEARCH_SCRIPTS:
        pairs = _read_history(folder, PairRecord.from_record, problems)
        by_number: dict[int, list[PairRecord]] = {}
        for pair in pairs:
            by_number.setdefault(pair.generation, []).append(pair)
        generations = [Generation(number, by_number[number]) for number in sorted(by_number)]
        population = _read_json(folder / POPULATION_FILE, _population, problems)
        target = None
        try:
            target = target_of(settings)
        except ValueError as error:
            problems.append(f"{SETTINGS_FILE}: {error}")
        return SearchHistory(*common, generations, population, target)
    epochs = _read_history(folder, EpochRecord.from_record, problems)
    confusion = _read_json(folder / CONFUSION_FILE, Confusion.from_record, problems)
    return TrainingHistory(*common, epochs, confusion, _read_picture(folder, problems))


MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RecursionError,
    OverflowError,
)


def _read_history(
    folder: Path, convert: Callable[[dict], Record], problems: list[str]
) -> list[Record]:
    """The history's records; a last line that is being written is left out silently."""
    try:
        lines = (folder / HISTORY_FILE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{folder / HISTORY_FILE}: cannot be read ({error.strerror})") from None
    records, unreadable = [], 0
    for line in lines[:-1]:  # behind the last newline there is nothing, or half a line
        try:
            records.append(convert(json.loads(line)))
        except MALFORMED:
            unreadable += 1
    if unreadable:
        problems.append(f"{HISTORY_FILE}: {unreadable} lines are not what the script writes")
    return records


def _read_json(
    path: Path, convert: Callable[[object], Record], problems: list[str]
) -> Record | None:
    """What a JSON file holds; None if it is not there or not of the right form."""
    try:
        return convert(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{path.name}: cannot be read ({error.strerror})")
    except MALFORMED:
        problems.append(f"{path.name}: not what the script writes")
    return None


def _read_picture(folder: Path, problems: list[str]) -> bytes | None:
    """The pictures of what the best checkpoint finds, if there are any."""
    path = folder / PREDICTIONS_FILE
    if not path.exists():
        return None
    try:
        # A pipe would be waited for.
        content = read_small_file(path, LARGEST_PICTURE) if path.is_file() else b""
        if content.startswith(PNG_SIGNATURE):
            return content
        problems.append(f"{path.name}: not what the script writes")
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: cannot be read ({error})")
    return None


def _population(members: object) -> list[Member]:
    if not isinstance(members, list):
        raise ValueError("not a list")
    return [Member.from_record(member) for member in members]
