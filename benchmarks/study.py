"""What the benchmarks share that search, train, and compare cells: flags, cells, and runs.

A study has a run folder. The searches and trainings it is made of have theirs within it, so that a
study taken up again finds what is done and does not do it twice.
"""

import logging
import os
import shlex
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import numpy as np

from dataset.image_set import SET_NAMES
from genotypes import GENOTYPE_FILE, Genotype, load_genotype, save_genotype
from report.sizes import Target
from runtime.arguments import ArgumentParser, expanded_path, non_negative_int, positive_int
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError
from runtime.interruption import Interruption
from runtime.run_folder import RunFolder
from runtime.settings import parse_with_resume, read_settings
from slow_fast_learning import decode, search_bounds
from training.state import LAST_CHECKPOINT
from utils import derive_seed

ROOT = Path(__file__).resolve().parent.parent

MAX_DRAWS = 100_000
"""So often a random cell is drawn in search of one of a given size."""

Item = TypeVar("Item")


def add_study_arguments(parser: ArgumentParser, kind: str) -> None:
    """Add the flags that all studies have; `kind` begins the name of their folder."""
    add = parser.add_argument
    add("--set", choices=SET_NAMES, default="cifar10", help="image set")
    add("--data", type=expanded_path, default="./data", help="folder of the image set")
    add(
        "--search_flags",
        default="",
        help='flags for train_search.py in one argument (="..."), the budget above all',
    )
    add("--train_flags", default="", help="flags for train.py: the recipe that all cells share")
    add_run_arguments(parser, kind)


def add_run_arguments(parser: ArgumentParser, kind: str) -> None:
    """Add the flags that say where and for how long a study runs."""
    add = parser.add_argument
    add("--jobs", type=positive_int, default=1, help="searches and trainings at a time")
    add(
        "--minutes",
        type=non_negative_int,
        help="begin nothing more after that (0: nothing at all), and report what there is; "
        "--resume goes on",
    )
    add(
        "--save",
        type=expanded_path,
        default="runs/EXP",
        help=f"PATH/NAME: the folder is PATH/{kind}-NAME-DATE-TIME",
    )
    add("--resume", type=expanded_path, metavar="DIR", help="go on with what is in this run folder")


def parse_study(parser: ArgumentParser, argv: list[str] | None) -> Namespace:
    """The command line of a study; when it is resumed only where and how it runs may change."""
    return parse_with_resume(parser, argv, ("data", "jobs", "minutes"))


def run_study(kind: str, args: Namespace, work: Callable[["Study"], None]) -> None:
    """Call `work` with a new study, or the one that `--resume` names.

    Raises:
        UserError: `work` raises one; the folder goes again if it is empty.
    """
    with Interruption().handled(twice=False):
        run = RunFolder.for_run(kind, args)
        study = Study(args, run.path)
        try:
            work(study)
        except UserError:
            run.discard()
            raise
        finally:
            study.stop()
            run.close()


class Study:
    """Runs the project's scripts in a study's folder.

    Args:
        args: with the flags of `add_study_arguments`.
        path: the study's folder.
    """

    def __init__(self, args: Namespace, path: Path) -> None:
        self.args = args
        self.path = path
        self.log = logging.getLogger("relativenas")
        self._ends = float("inf") if args.minutes is None else time.monotonic() + 60 * args.minutes
        self._running: set[subprocess.Popen] = set()

    def image_flags(self) -> list[str]:
        """Flags that say which images are meant, for both scripts."""
        args = self.args
        data = [] if args.set == "digits" else ["--data", str(Path(args.data).resolve())]
        return ["--set", args.set, *data]

    def run_to_its_end(self, kind: str, name: str, flags: list[str]) -> Path:
        """Run `train_search.py` or `train.py` in the study's folder, or go on with it there.

        Args:
            kind: "search" or "train".
            name: of its run in the study.
            flags: its flags, the images and `--save` left out.

        Returns:
            The script's own run folder.

        Raises:
            UserError: the script ended with an error; its text is the script's last line.
        """
        if done := self.finished(kind, name):
            return done
        script = {"search": "train_search.py", "train": "train.py"}[kind]
        if begun := self._begun(kind, name):
            where = ["--resume", str(begun.resolve())]
        else:
            where = [*self.image_flags(), *flags, "--save", str(self.path.resolve() / name)]
        environment = dict(os.environ)
        if self.args.jobs > 1:
            threads = max(1, (os.cpu_count() or 1) // self.args.jobs)
            environment["OMP_NUM_THREADS"] = str(threads)
        process = subprocess.Popen(
            [sys.executable, script, *where],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.add(process)
        _, errors = process.communicate()
        self._running.discard(process)
        if process.returncode:
            lines = errors.strip().splitlines() or [f"exit status {process.returncode}"]
            raise UserError(f"{script}: {lines[-1].removeprefix('error: ')}")
        return self._begun(kind, name)

    def train(self, name: str, genotype: Genotype, seed: int) -> Path:
        """Train a cell by the study's recipe, if that is not done; returns the run folder.

        Args:
            name: of the training's run, and of the cell's file in the study's folder.

        Raises:
            UserError: the training failed, or was begun with another cell.
        """
        self._check_cell(name, genotype)
        path = self._cell_file(name)
        save_genotype(genotype, path)
        flags = ["--arch", str(path), "--seed", str(seed), *shlex.split(self.args.train_flags)]
        return self.run_to_its_end("train", name, flags)

    def trained(self, name: str, genotype: Genotype) -> Path | None:
        """The folder of a training of the study, if it has ended.

        Raises:
            UserError: it was begun with another cell.
        """
        self._check_cell(name, genotype)
        return self.finished("train", name)

    def finished(self, kind: str, name: str) -> Path | None:
        """The folder of a search or training of the study, if it has ended."""
        begun = self._begun(kind, name)
        if begun is None:
            return None
        if kind == "search":
            has_ended = (begun / GENOTYPE_FILE).exists()
        else:  # a training's genotype and its checkpoints are there long before its end
            last = begun / LAST_CHECKPOINT
            epochs = read_settings(str(begun))["epochs"]
            has_ended = last.exists() and load_checkpoint(last)["epoch"] == epochs
        return begun if has_ended else None

    @property
    def time_is_up(self) -> bool:
        """Whether nothing more is to be begun."""
        return time.monotonic() >= self._ends

    def all(self, items: Iterable[Item], work: Callable[[Item], None]) -> bool:
        """Call `work` for each item, `--jobs` at a time, as long as there is time left.

        Returns:
            Whether all are done.

        Raises:
            UserError: the first that a call raises.
        """
        items = iter(items)
        running: set[Future] = set()
        with ThreadPoolExecutor(self.args.jobs) as pool:
            try:
                for item in items:
                    if self.time_is_up:
                        return False
                    running.add(pool.submit(work, item))
                    if len(running) == self.args.jobs:
                        ended, running = wait(running, return_when=FIRST_COMPLETED)
                        for future in ended:
                            future.result()
                for future in running:
                    future.result()
            except BaseException:
                self.stop()  # else leaving the pool would wait for them
                raise
        return True

    def stop(self) -> None:
        """Ask what is running to stop where it can be taken up again."""
        for process in list(self._running):
            process.terminate()

    def _cell_file(self, name: str) -> Path:
        return self.path.resolve() / f"{name}.json"

    def _check_cell(self, name: str, genotype: Genotype) -> None:
        begun = self._begun("train", name)
        if begun and load_genotype(self._cell_file(name)) != genotype:
            raise UserError(
                f"{begun}: was begun with another cell than the one now called {name}: a search "
                "of the study was removed and has ended otherwise; remove that training, too"
            )

    def _begun(self, kind: str, name: str) -> Path | None:
        for settings in self.path.glob(f"{kind}-{name}-*/settings.json"):
            return settings.parent
        return None


def trained_top1(folder: Path) -> float:
    """Test accuracy in percent after the last epoch of the training in a run folder."""
    return load_checkpoint(folder / LAST_CHECKPOINT)["top1"]


def random_cell(*seed: int) -> Genotype:
    """A random cell of the search space, a function of `seed`."""
    random = np.random.default_rng(derive_seed(*seed))
    return decode(random.uniform(*search_bounds()))


def cell_of_size(target: Target, wanted: float, tolerance: float, *seed: int) -> Genotype:
    """A random cell with `wanted` multiply-adds in `target`, up to a share `tolerance` of them.

    Raises:
        UserError: none came up.
    """
    for draw in range(MAX_DRAWS):
        genotype = random_cell(*seed, draw)
        if abs(target.size(genotype).multiply_adds - wanted) <= tolerance * wanted:
            return genotype
    raise UserError(
        f"--same_size {tolerance}: none of {MAX_DRAWS} random cells is so close to "
        f"{wanted / 1e6:.1f} M multiply-adds; allow for more"
    )
