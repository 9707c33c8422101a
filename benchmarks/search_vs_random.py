"""Is the cell that the search finds better than random cells of the same space?

Runs the search, trains its cell from scratch, and trains random cells under the same recipe. What
is compared is the test accuracy after the last epoch.
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
from genotypes import save_genotype
from runtime.arguments import ArgumentParser, expanded_path, non_negative_int, positive_int
from runtime.atomic_file import write_json
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError, run_script
from runtime.progress import progress_bar
from runtime.run_folder import RunFolder
from runtime.settings import parse_with_resume
from search.learners import LEARNERS
from slow_fast_learning import decode, search_bounds
from training.trained_network import build_network
from utils import derive_seed, parameter_count

ROOT = Path(__file__).resolve().parent.parent

FOUND = "found"
"""The name of the search's cell; the random ones are `random-0`, `random-1`, ..."""


def compare(args: Namespace, run: RunFolder) -> None:
    """Search, train all cells, and report; what an interrupted run did is not done again."""
    images = ["--set", args.set]
    if args.set != "digits":
        images += ["--data", str(Path(args.data).resolve())]
    search = [*images, "--learner", args.learner, *shlex.split(args.search_flags)]
    run.log.info("searching: train_search.py %s", shlex.join(search))
    genotypes = {FOUND: run_to_its_end("search", FOUND, search, run) / "genotype.json"}
    for number in range(args.random_cells):
        path = run.path / f"random-{number}.json"
        random = np.random.default_rng(derive_seed(args.seed, number))
        save_genotype(decode(random.uniform(*search_bounds())), path)
        genotypes[path.stem] = path
    trainings = [(name, seed) for name in genotypes for seed in range(args.trainings)]
    results: dict[str, list[dict]] = {name: [] for name in genotypes}
    for name, seed in progress_bar(trainings, "training", "network"):
        flags = [*images, "--arch", str(genotypes[name].resolve()), "--seed", str(seed)]
        flags += shlex.split(args.train_flags)
        folder = run_to_its_end("train", f"{name}-seed{seed}", flags, run)
        last = load_checkpoint(folder / "last.pt")
        results[name].append(
            {"top1": last["top1"], "parameters": parameter_count(build_network(last))}
        )
        run.log.info("%s, seed %d: %.2f %%", name, seed, last["top1"])
    write_json(run.path / "results.json", results)
    print(*report(results), sep="\n")
    print(f"run folder: {run.path}")


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
    lines = ["cell          top-1    parameters"]
    for name in sorted(means, key=means.get, reverse=True):
        parameters = results[name][0]["parameters"] / 1e6
        lines.append(f"{name:12} {means[name]:6.2f} % {parameters:8.3f} M")
    found = means.pop(FOUND)
    others = list(means.values())
    mean, spread = statistics.mean(others), statistics.stdev(others)
    beaten = sum(found > other for other in others)
    return [
        *lines,
        f"random cells: mean {mean:.2f} %, standard deviation {spread:.2f}, "
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
