"""What does a budget cost a search, and what does it find within it?

Searches without a budget and with budgets at percentiles of random cells' multiply-adds, with
several seeds. The cells found are trained from scratch, and so is beside each of them a random
cell of its size. The table is in Markdown; docs/sizes.md has two.
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

from benchmarks.study import (
    Study,
    add_study_arguments,
    cell_of_size,
    parse_study,
    random_cell,
    run_study,
    trained_top1,
)
from genotypes import load_genotype
from report.history import read_run
from report.sizes import Target
from runtime.arguments import ArgumentParser, non_negative_float, positive_int, probability
from runtime.atomic_file import write_json
from runtime.errors import UserError, run_script
from runtime.progress_bar import progress_bar
from search.budget import add_target_arguments, chosen_target
from search.learners import LEARNERS

DRAWN = 2000
"""So many random cells tell the percentiles."""


def compare(args: Namespace, study: Study) -> None:
    """Search and train with all budgets and seeds, and report; what was done is not done again."""
    target = chosen_target(args)
    limits = chosen_limits(args, target)
    results: dict[str, list[dict]] = {name: [] for name in limits}

    def search_with(budget: tuple[str, int]) -> None:
        name, seed = budget
        result = search_and_train(args, target, limits[name], name, seed, study)
        results[name].append({"limit": limits[name], "seed": seed, **result})
        study.log.info("budget %s, seed %d: %s", name, seed, result)
        write_json(study.path / "results.json", results)

    searches = [(name, seed) for seed in range(args.seeds) for name in limits]
    study.all(progress_bar(searches, "searching and training", "search"), search_with)
    print(*report({name: done for name, done in results.items() if done}), sep="\n")
    print(f"run folder: {study.path}")


def chosen_limits(args: Namespace, target: Target) -> dict[str, float | None]:
    """The budgets by their names: millions of multiply-adds, None for a search without one."""
    if args.limits:
        return {"none": None} | {f"{limit:g} M": limit for limit in args.limits}
    limits = multiply_adds_at(args.percentiles, target)
    names = [f"{percentile:g}th percentile" for percentile in args.percentiles]
    return {"none": None} | dict(zip(names, limits, strict=True))


def multiply_adds_at(percentiles: Sequence[float], target: Target) -> list[float]:
    """Percentiles of random cells' multiply-adds, in millions."""
    drawn = [target.size(random_cell(0, number)).multiply_adds for number in range(DRAWN)]
    return np.round(np.percentile(drawn, percentiles) / 1e6, 3).tolist()


def search_and_train(
    args: Namespace, target: Target, limit: float | None, name: str, seed: int, study: Study
) -> dict:
    """A search, and what came of its cell and of a random one of its size."""
    place = f"{name.split()[0]}-seed{seed}"
    flags = ["--learner", args.learner, "--seed", str(seed)]
    for flag in ("target", "target_channels", "target_layers", "target_image_size"):
        if getattr(args, flag) is not None:
            flags += [f"--{flag}", str(getattr(args, flag))]
    if limit is not None:
        flags += ["--max_multiply_adds", str(limit)]
    folder = study.run_to_its_end("search", place, flags + shlex.split(args.search_flags))
    found = load_genotype(folder / "genotype.json")
    other = cell_of_size(target, target.size(found).multiply_adds, args.same_size, 1, seed)
    pairs = [pair for generation in read_run(folder).generations for pair in generation.pairs]
    return {
        **target.size(found)._asdict(),
        "top1": trained_top1(study.train(f"{place}-found", found, seed)),
        "random_top1": trained_top1(study.train(f"{place}-random", other, seed)),
        "free_pairs": statistics.mean(all(pair.excesses) for pair in pairs),
        "free_turns": statistics.mean(x > 0 for pair in pairs for x in pair.excesses),
        "seconds": sum(pair.seconds for pair in pairs),
    }


def report(results: dict[str, list[dict]]) -> list[str]:
    """The table: means over seeds, ± standard deviations if there are several."""
    lines = [
        "| budget | limit | parameters | multiply-adds | top-1 % | random of its size, top-1 % | "
        "pairs at no cost | turns at no cost | seconds |",
        "| --- " * 9 + "|",
    ]
    for name, searches in results.items():

        def shown(field: str, unit: float, places: int, searches: list[dict] = searches) -> str:
            values = [search[field] / unit for search in searches]
            spread = f" ± {statistics.stdev(values):.{places}f}" if len(values) > 1 else ""
            return f"{statistics.mean(values):.{places}f}{spread}"

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
    add_study_arguments(parser, "budgets")
    add = parser.add_argument
    add("--learner", choices=LEARNERS, default="published", help="of the searches")
    add("--seeds", type=positive_int, default=5, help="number of searches with each budget")
    add(
        "--percentiles",
        type=float,
        nargs="+",
        default=[50.0, 25.0],
        help="of random cells' multiply-adds: the budgets",
    )
    add(
        "--limits",
        type=non_negative_float,
        nargs="+",
        help="the budgets themselves, in millions of multiply-adds, instead of --percentiles",
    )
    add("--same_size", type=probability, default=0.05, help="share up to which sizes are the same")
    add_target_arguments(parser)
    args = parse_study(parser, argv)
    if not all(0 < percentile < 100 for percentile in args.percentiles):
        raise UserError(f"--percentiles {args.percentiles}: must be between 0 and 100")
    return args


def main() -> None:
    args = parse_arguments()
    run_study("budgets", args, lambda study: compare(args, study))


if __name__ == "__main__":
    run_script(main)
