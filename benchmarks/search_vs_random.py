"""Is the cell that the search finds better than random cells of the same space?

Runs the search, trains its cell from scratch, and trains random cells under the same recipe. What
is compared is the test accuracy after the last epoch. A cell can be better by being larger: with
`--same_size` random cells of the found one's size are trained and compared too.
"""

import shlex
import statistics
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # run as benchmarks/search_vs_random.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import numpy as np

from dataset.image_set import SET_NAMES
from genotypes import Genotype, load_genotype, save_genotype
from report.sizes import Size, Target
from runtime.arguments import (
    ArgumentParser,
    expanded_path,
    non_negative_int,
    positive_int,
    probability,
)
from runtime.atomic_file import write_json
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError, run_script
from runtime.progress_bar import progress_bar
from runtime.run_folder import RunFolder
from runtime.settings import parse_with_resume
from search.learners import LEARNERS
from slow_fast_learning import decode, search_bounds
from training.trained_network import NETWORKS
from utils import derive_seed

ROOT = Path(__file__).resolve().parent.parent

FOUND, RANDOM, SAME_SIZE = "found", "random", "same-size"
"""The names of the cells; behind those of the random ones stands a number: `random-0`, ..."""

MAX_DRAWS = 100_000
"""So often a random cell is drawn in search of one of the found cell's size."""


def compare(args: Namespace, run: RunFolder) -> None:
    """Search, train all cells, and report; what an interrupted run did is not done again."""
    search = [*image_flags(args), "--learner", args.learner, *shlex.split(args.search_flags)]
    run.log.info("searching: train_search.py %s", shlex.join(search))
    found = load_genotype(run_to_its_end("search", FOUND, search, run) / "genotype.json")
    numbers = range(args.random_cells)
    cells = {f"{RANDOM}-{number}": random_cell(args.seed, number) for number in numbers}
    results = train_all(args, {FOUND: found, **cells}, run)
    if args.same_size is not None:
        (last,) = run.path.glob(f"train-{FOUND}-seed0-*/last.pt")
        target = trained_target(load_checkpoint(last))
        cells = {
            f"{SAME_SIZE}-{number}": same_size_cell(
                found, target, args.same_size, args.seed, number
            )
            for number in numbers
        }
        results |= train_all(args, cells, run)
    write_json(run.path / "results.json", results)
    print(*report(results), sep="\n")
    print(f"run folder: {run.path}")


def image_flags(args: Namespace) -> list[str]:
    """Flags that say which images are meant, for both scripts."""
    data = [] if args.set == "digits" else ["--data", str(Path(args.data).resolve())]
    return ["--set", args.set, *data]


def train_all(args: Namespace, cells: dict[str, Genotype], run: RunFolder) -> dict[str, list[dict]]:
    """Train each cell as often as asked for; its trainings' results by its name."""
    for name, genotype in cells.items():
        save_genotype(genotype, run.path / f"{name}.json")
    trainings = [(name, seed) for name in cells for seed in range(args.trainings)]
    results: dict[str, list[dict]] = {name: [] for name in cells}
    for name, seed in progress_bar(trainings, "training", "network"):
        arch = str((run.path / f"{name}.json").resolve())
        flags = [*image_flags(args), "--arch", arch, "--seed", str(seed)]
        flags += shlex.split(args.train_flags)
        folder = run_to_its_end("train", f"{name}-seed{seed}", flags, run)
        last = load_checkpoint(folder / "last.pt")
        size = trained_target(last).size(cells[name])
        results[name].append({"top1": last["top1"], **size._asdict()})
        run.log.info("%s, seed %d: %.2f %%", name, seed, last["top1"])
    return results


def random_cell(*seed: int) -> Genotype:
    """A random cell of the search space, a function of `seed`."""
    random = np.random.default_rng(derive_seed(*seed))
    return decode(random.uniform(*search_bounds()))


def same_size_cell(
    found: Genotype, target: Target, tolerance: float, seed: int, number: int
) -> Genotype:
    """A random cell whose multiply-adds are those of `found`, up to a share `tolerance` of them.

    Raises:
        UserError: none came up.
    """
    wanted = target.size(found).multiply_adds
    for draw in range(MAX_DRAWS):
        genotype = random_cell(seed, number, draw)
        if abs(target.size(genotype).multiply_adds - wanted) <= tolerance * wanted:
            return genotype
    raise UserError(
        f"--same_size {tolerance}: none of {MAX_DRAWS} random cells is so close to the found "
        f"cell's {wanted / 1e6:.1f} M multiply-adds; allow for more"
    )


def trained_target(checkpoint: dict) -> Target:
    """The network in a checkpoint of `train.py`."""
    return Target(
        NETWORKS[checkpoint["network"]],
        checkpoint["init_channels"],
        checkpoint["layers"],
        checkpoint["image_size"],
        checkpoint["num_classes"],
    )


def run_to_its_end(kind: str, name: str, flags: list[str], run: RunFolder) -> Path:
    """Run `train_search.py` or `train.py` in a folder inside the run's, or go on with it there.

    Returns:
        The script's own run folder.

    Raises:
        UserError: the script ended with an error; its text is the script's last line.
    """
    script = {"search": "train_search.py", "train": "train.py"}[kind]

    def begun() -> list[Path]:
        """The script's run folder, if there is one."""
        return [path.parent for path in run.path.glob(f"{kind}-{name}-*/settings.json")]

    where = ["--resume", str(begun()[0].resolve())] if begun() else []
    where = where or [*flags, "--save", str(run.path.resolve() / name)]
    done = subprocess.run(
        [sys.executable, script, *where],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"{script}: {lines[-1].removeprefix('error: ')}")
    return begun()[0]


def report(results: dict[str, list[dict]]) -> list[str]:
    """The found cell against the random ones, as lines of text."""
    means = {
        name: statistics.mean(training["top1"] for training in trainings)
        for name, trainings in results.items()
    }
    lines = ["cell            top-1    parameters   multiply-adds"]
    for name in sorted(means, key=means.get, reverse=True):
        parameters, multiply_adds = (results[name][0][field] / 1e6 for field in Size._fields)
        lines.append(f"{name:14} {means[name]:6.2f} % {parameters:8.3f} M {multiply_adds:11.1f} M")
    found = means.pop(FOUND)
    lines += compared(found, [means[name] for name in means if not name.startswith(SAME_SIZE)])
    if same_size := [means[name] for name in means if name.startswith(SAME_SIZE)]:
        lines += compared(found, same_size, " of its size")
    return lines


def compared(found: float, others: list[float], which: str = "") -> list[str]:
    """The found cell's accuracy against those of random cells, as two lines of text."""
    mean, spread = statistics.mean(others), statistics.stdev(others)
    beaten = sum(found > other for other in others)
    return [
        f"random cells{which}: mean {mean:.2f} %, standard deviation {spread:.2f}, "
        f"from {min(others):.2f} to {max(others):.2f} %",
        f"found cell: {found:.2f} %, {found - mean:+.2f} to the mean, {found - max(others):+.2f} "
        f"to the best; better than {beaten} of {len(others)}",
    ]


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--set", choices=SET_NAMES, default="cifar10", help="image set")
    add("--data", type=expanded_path, default="./data", help="folder of the image set")
    add("--learner", choices=LEARNERS, default="published", help="of the search")
    add("--random_cells", type=int, default=8, help="number of random cells, at least 2")
    add(
        "--trainings",
        type=positive_int,
        default=1,
        help="of every cell; their accuracies are averaged",
    )
    add("--seed", type=non_negative_int, default=0, help="of the random cells")
    add(
        "--same_size",
        type=probability,
        metavar="SHARE",
        help="also train as many random cells whose multiply-adds are the found cell's, up to this "
        "share of them, such as 0.05",
    )
    add(
        "--search_flags",
        default="",
        help='flags for train_search.py in one argument (="..."), the budget above all',
    )
    add("--train_flags", default="", help="flags for train.py: the recipe that all cells share")
    add(
        "--save",
        type=expanded_path,
        default="runs/EXP",
        help="PATH/NAME: the folder is PATH/compare-NAME-DATE-TIME",
    )
    add(
        "--resume",
        type=expanded_path,
        metavar="DIR",
        help="go on with the comparison in this run folder",
    )
    args = parse_with_resume(parser, argv, ("data",))
    if args.random_cells < 2:
        raise UserError(f"--random_cells {args.random_cells}: a spread needs at least 2")
    return args


def main() -> None:
    args = parse_arguments()
    run = RunFolder.for_run("compare", args)
    try:
        compare(args, run)
    except UserError:
        run.discard()
        raise


if __name__ == "__main__":
    run_script(main)
