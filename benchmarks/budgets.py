"""What does a budget cost a search, and what does it find within it?

Searches without a budget and with budgets at percentiles of random cells' multiply-adds, with
several seeds. The cells found are trained from scratch, and so is beside each of them a random
cell of its size. The table is in Markdown; docs/sizes.md has one.
"""

import shlex
import statistics
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as benchmarks/budgets.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import numpy as np

from benchmarks.search_vs_random import image_flags, random_cell, run_to_its_end, same_size_cell
from dataset.image_set import SET_NAMES
from genotypes import Genotype, load_genotype, save_genotype
from report.history import read_run
from report.sizes import Target
from runtime.arguments import ArgumentParser, expanded_path, positive_int, probability
from runtime.atomic_file import write_json
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError, run_script
from runtime.progress_bar import progress_bar
from runtime.run_folder import RunFolder
from runtime.settings import parse_with_resume
from search.budget import add_target_arguments, chosen_target
from search.learners import LEARNERS

DRAWN = 2000
"""So many random cells tell the percentiles."""


def compare(args: Namespace, run: RunFolder) -> None:
    """Search and train with all budgets and seeds, and report; what was done is not done again."""
    target = chosen_target(args)
    limits = {"none": None} | {
        f"{percentile:g}th percentile": limit
        for percentile, limit in zip(
            args.percentiles, multiply_adds_at(args.percentiles, target), strict=True
        )
    }
    results: dict[str, list[dict]] = {name: [] for name in limits}
    searches = [(name, seed) for seed in range(args.seeds) for name in limits]
    for name, seed in progress_bar(searches, "searching and training", "search"):
        result = search_and_train(args, target, limits[name], name, seed, run)
        results[name].append({"limit": limits[name], **result})
        run.log.info("budget %s, seed %d: %s", name, seed, result)
        write_json(run.path / "results.json", results)
    print(*report(results), sep="\n")
    print(f"run folder: {run.path}")


def multiply_adds_at(percentiles: Sequence[float], target: Target) -> list[float]:
    """Percentiles of random cells' multiply-adds, in millions."""
    drawn = [target.size(random_cell(0, number)).multiply_adds for number in range(DRAWN)]
    return np.round(np.percentile(drawn, percentiles) / 1e6, 3).tolist()


def search_and_train(
    args: Namespace, target: Target, limit: float | None, name: str, seed: int, run: RunFolder
) -> dict:
    """A search, and what came of its cell and of a random one of its size."""
    place = f"{name.split()[0]}-seed{seed}"
    flags = [*image_flags(args), "--learner", args.learner, "--seed", str(seed)]
    for flag in ("target", "target_channels", "target_layers", "target_image_size"):
        if getattr(args, flag) is not None:
            flags += [f"--{flag}", str(getattr(args, flag))]
    if limit is not None:
        flags += ["--max_multiply_adds", str(limit)]
    folder = run_to_its_end("search", place, flags + shlex.split(args.search_flags), run)
    found = load_genotype(folder / "genotype.json")
    other = same_size_cell(found, target, args.same_size, 1, seed)
    pairs = [pair for generation in read_run(folder).generations for pair in generation.pairs]
    return {
        **target.size(found)._asdict(),
        "top1": train(args, found, f"{place}-found", seed, run),
        "random_top1": train(args, other, f"{place}-random", seed, run),
        "free_pairs": statistics.mean(all(pair.excesses) for pair in pairs),
        "free_turns": statistics.mean(x > 0 for pair in pairs for x in pair.excesses),
        "seconds": sum(pair.seconds for pair in pairs),
    }


def train(args: Namespace, genotype: Genotype, name: str, seed: int, run: RunFolder) -> float:
    """Test accuracy of `genotype` after training, in percent."""
    path = run.path.resolve() / f"{name}.json"
    save_genotype(genotype, path)
    flags = [*image_flags(args), "--arch", str(path), "--seed", str(seed)]
    folder = run_to_its_end("train", name, flags + shlex.split(args.train_flags), run)
    return load_checkpoint(folder / "last.pt")["top1"]


def report(results: dict[str, list[dict]]) -> list[str]:
    """The table: means over seeds ± standard deviations."""
    lines = [
        "| budget | limit | parameters | multiply-adds | top-1 % | random of its size, top-1 % | "
        "pairs at no cost | turns at no cost | seconds |",
        "| --- " * 9 + "|",
    ]
    for name, searches in results.items():

        def shown(field: str, unit: float, places: int, searches: list[dict] = searches) -> str:
            values = [search[field] / unit for search in searches]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            return f"{statistics.mean(values):.{places}f} ± {spread:.{places}f}"

        limit = searches[0]["limit"]
        columns = [
            name,
            "" if limit is None else f"{limit:g} M",
            shown("parameters", 1e6, 3) + " M",
            shown("multiply_adds", 1e6, 2) + " M",
            shown("top1", 1, 2),
            shown("random_top1", 1, 2),
            shown("free_pairs", 0.01, 1) + " %",
            shown("free_turns", 0.01, 1) + " %",
            shown("seconds", 1, 0),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--set", choices=SET_NAMES, default="cifar10", help="image set")
    add("--data", type=expanded_path, default="./data", help="folder of the image set")
    add("--learner", choices=LEARNERS, default="published", help="of the searches")
    add("--seeds", type=positive_int, default=5, help="number of searches with each budget")
    add(
        "--percentiles",
        type=float,
        nargs="+",
        default=[50.0, 25.0],
        help="of random cells' multiply-adds: the budgets",
    )
    add("--same_size", type=probability, default=0.05, help="share up to which sizes are the same")
    add_target_arguments(parser)
    add("--search_flags", default="", help='flags for train_search.py in one argument (="...")')
    add("--train_flags", default="", help="flags for train.py: the recipe that all cells share")
    add(
        "--save",
        type=expanded_path,
        default="runs/EXP",
        help="PATH/NAME: the folder is PATH/budgets-NAME-DATE-TIME",
    )
    add(
        "--resume",
        type=expanded_path,
        metavar="DIR",
        help="go on with the comparison in this run folder",
    )
    args = parse_with_resume(parser, argv, ("data",))
    if not all(0 < percentile < 100 for percentile in args.percentiles):
        raise UserError(f"--percentiles {args.percentiles}: must be between 0 and 100")
    return args


def main() -> None:
    args = parse_arguments()
    run = RunFolder.for_run("budgets", args)
    try:
        compare(args, run)
    except UserError:
        run.discard()
        raise


if __name__ == "__main__":
    run_script(main)
