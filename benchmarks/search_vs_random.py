"""Does the search find better cells than chance does? A study on real training.

Several searches by each learner, random cells, and random cells of the found ones' size are
trained from scratch under one recipe, several times each, in random order, so that a study cut
short is still fair. What is compared is the test accuracy after the last epoch.
"""

import json
import shlex
import statistics
import sys
from argparse import Namespace
from pathlib import Path
from threading import Lock

if __name__ == "__main__":  # run as benchmarks/search_vs_random.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import numpy as np

from benchmarks.study import (
    Study,
    add_study_arguments,
    cell_of_size,
    parse_study,
    random_cell,
    run_study,
    trained_top1,
)
from benchmarks.study_report import accuracy_by_size, report
from benchmarks.study_statistics import TrainedCell
from dataset.class_folders import class_folders
from genotypes import GENOTYPE_FILE, Genotype, load_genotype
from report.figure_file import save_figure
from report.history import read_run
from report.sizes import Size, Target, target_of
from runtime.arguments import ArgumentParser, non_negative_int, positive_int, probability
from runtime.atomic_file import write_json
from runtime.errors import UserError, run_script
from runtime.progress_bar import progress_bar
from runtime.untrusted import load_json
from search.learners import LEARNERS
from train import parse_arguments as training_arguments
from train_search import parse_arguments as search_arguments
from utils import derive_seed

RANDOM, SAME_SIZE = "random", "same-size"
"""Groups of cells; those of a learner's searches have its name."""

RESULTS_FILE = "results.json"
PICTURE_FILE = "accuracy.svg"


def compare(args: Namespace, study: Study) -> None:
    """Search, train all cells, and report; what was done before is not done again."""
    target = training_target(args, study)
    searches = [
        (learner, seed)
        for seed in range(args.searches)
        for learner in args.learner
        if not study.finished("search", f"{learner}-{seed}")
    ]
    searched = study.all(
        progress_bar(searches, "searching", "search"), lambda job: search(args, study, *job)
    )
    if not searched:
        print(f"no time left before all searches were done; go on with --resume {study.path}")
        return
    cells = all_cells(args, study, target)
    results = Results(args, study, target, cells)
    order = in_random_order(list(cells), args.trainings, args.seed)
    to_do = [job for job in order if not results.has(*job)]
    study.all(
        progress_bar(to_do, "training", "network"),
        lambda job: train(study, results, cells[job[0]], *job),
    )
    if trained := results.trained_cells():
        print(*report(trained, (RANDOM, SAME_SIZE), results.seconds), sep="\n")
        save_figure(accuracy_by_size(trained), study.path / PICTURE_FILE)
    print(f"run folder: {study.path}")


class Results:
    """All cells, and what came of trainings so far: `results.json`, written after each of them.

    What it says is taken for done, so that the study goes on without the trainings' run folders.

    Args:
        cells: all that are to be trained, by name.

    Raises:
        UserError: the file is damaged, or a training was begun with another cell.
    """

    def __init__(
        self, args: Namespace, study: Study, target: Target, cells: dict[str, Genotype]
    ) -> None:
        self.path = study.path / RESULTS_FILE
        self._search_seconds = {
            learner: [
                sum(generation.seconds for generation in run.generations)
                for seed in range(args.searches)
                for run in [read_run(search(args, study, learner, seed))]
            ]
            for learner in args.learner
        }
        self._lock = Lock()
        known = self._kept()
        self._cells: dict[str, dict] = {}
        for name, genotype in cells.items():
            size = target.size(genotype)._asdict()
            cell = {"genotype": genotype._asdict(), **size, "top1": {}, "seconds": {}}
            before = known.get(name)
            if before and before["genotype"] == json.loads(json.dumps(cell["genotype"])):
                # Earlier versions kept no seconds: the run folders have them.
                cell |= {part: before[part] for part in ("top1", "seconds") if "seconds" in before}
            self._cells[name] = cell
            for seed in range(args.trainings):
                if self.has(name, seed):
                    continue
                if folder := study.trained(f"{name}-seed{seed}", genotype):
                    self._take(name, seed, folder)
        self._write()

    def _kept(self) -> dict[str, dict]:
        """The cells of the file, by their names.

        Raises:
            UserError: it is damaged.
        """
        if not self.path.exists():
            return {}
        try:
            return dict(load_json(self.path)["cells"])
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.path}: cannot be read ({error}); remove it, and the trainings' own folders "
                "are read instead"
            ) from None

    @property
    def seconds(self) -> dict[str, list[float]]:
        """Of the searches by learner, and of "training" for every training."""
        trainings = [s for cell in self._cells.values() for s in cell["seconds"].values()]
        return self._search_seconds | {"training": trainings}

    def has(self, name: str, seed: int) -> bool:
        """Whether the training of that cell by that seed has ended."""
        return str(seed) in self._cells[name]["top1"]  # a name in JSON is a text

    def add(self, name: str, seed: int, folder: Path) -> float:
        """Take and write the result of a training in `folder`; returns its accuracy in percent."""
        with self._lock:
            top1 = self._take(name, seed, folder)
            self._write()
        return top1

    def _take(self, name: str, seed: int, folder: Path) -> float:
        cell = self._cells[name]
        cell["top1"][str(seed)] = trained_top1(folder)
        cell["seconds"][str(seed)] = sum(epoch.seconds for epoch in read_run(folder).epochs)
        return cell["top1"][str(seed)]

    def _write(self) -> None:
        write_json(self.path, {"cells": self._cells, "seconds": self.seconds})

    def trained_cells(self) -> list[TrainedCell]:
        """The cells that have been trained at least once."""
        return [
            TrainedCell(
                name,
                Size(cell["parameters"], cell["multiply_adds"]),
                [cell["top1"][seed] for seed in sorted(cell["top1"], key=int)],
            )
            for name, cell in self._cells.items()
            if cell["top1"]
        ]


def training_target(args: Namespace, study: Study) -> Target:
    """The network that all cells are trained in.

    Raises:
        UserError: a flag for the scripts is wrong.
    """
    search_arguments([*study.image_flags(), *shlex.split(args.search_flags)])
    settings = training_arguments([*study.image_flags(), *shlex.split(args.train_flags)])
    is_folder = args.set == "folder"
    return target_of(
        {
            "set": args.set,
            "image_size": settings.image_size,
            "target_channels": settings.init_channels,
            "target_layers": settings.layers,
            "target_classes": len(class_folders(Path(args.data) / "train")) if is_folder else None,
        }
    )


def search(args: Namespace, study: Study, learner: str, seed: int) -> Path:
    """Search once, if that is not done; returns the search's run folder."""
    flags = ["--learner", learner, "--seed", str(seed), *shlex.split(args.search_flags)]
    return study.run_to_its_end("search", f"{learner}-{seed}", flags)


def train(study: Study, results: Results, genotype: Genotype, name: str, seed: int) -> None:
    """Train the cell of that name once, if that is not done."""
    folder = study.train(f"{name}-seed{seed}", genotype, seed)
    study.log.info("%s, seed %d: %.2f %%", name, seed, results.add(name, seed, folder))


def all_cells(args: Namespace, study: Study, target: Target) -> dict[str, Genotype]:
    """The cells that the searches found, random ones, and random ones of their median size."""
    found = {
        f"{learner}-{seed}": load_genotype(search(args, study, learner, seed) / GENOTYPE_FILE)
        for learner in args.learner
        for seed in range(args.searches)
    }
    wanted = statistics.median(target.size(genotype).multiply_adds for genotype in found.values())
    return {
        **found,
        **{
            f"{RANDOM}-{number}": random_cell(args.seed, number)
            for number in range(args.random_cells)
        },
        **{
            f"{SAME_SIZE}-{number}": cell_of_size(target, wanted, args.same_size, args.seed, number)
            for number in range(args.same_size_cells)
        },
    }


def in_random_order(names: list[str], trainings: int, seed: int) -> list[tuple[str, int]]:
    """Which cell to train by which seed: every cell once, then every cell again, and so on.

    Each time their order is another one, so that wherever the study is cut short no group is
    ahead of the others by more than chance.
    """
    random = np.random.default_rng(derive_seed(seed, len(names)))
    return [
        (names[index], training)
        for training in range(trainings)
        for index in random.permutation(len(names))
    ]


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add_study_arguments(parser, "compare")
    add = parser.add_argument
    add("--learner", choices=LEARNERS, nargs="+", default=["published"], help="of the searches")
    add("--searches", type=positive_int, default=1, help="by each learner")
    add("--random_cells", type=int, default=8, help="number of random cells, at least 2")
    add(
        "--same_size_cells",
        type=non_negative_int,
        default=0,
        help="number of random cells with the found ones' median multiply-adds",
    )
    add("--same_size", type=probability, default=0.05, help="share up to which sizes are the same")
    add("--trainings", type=positive_int, default=1, help="of every cell")
    add("--seed", type=non_negative_int, default=0, help="of the random cells")
    args = parse_study(parser, argv)
    if args.random_cells < 2:
        raise UserError(f"--random_cells {args.random_cells}: a spread needs at least 2")
    return args


def main() -> None:
    args = parse_arguments()
    run_study("compare", args, lambda study: compare(args, study))


if __name__ == "__main__":
    run_script(main)
