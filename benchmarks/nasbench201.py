"""Does slow-fast learning find good cells? Measured on the NAS-Bench-201 table, in minutes.

Random search, regularised evolution (Real et al., 2019, arXiv:1802.01548), slow-fast learning as
published, and the improved learner look for the cell with the highest validation accuracy; what
counts is the test accuracy of the best cell they have asked for. Two accounts are kept of the same
runs: every query counts, also of a cell asked before; or asking again is free, for every method.
"""

import csv
import gzip
import math
import os
import random
import sys
import zlib
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

if __name__ == "__main__":  # run as benchmarks/nasbench201.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import numpy as np

from runtime.arguments import ArgumentParser, expanded_path, positive_int
from runtime.atomic_file import write_json
from runtime.errors import UserError, run_script
from runtime.progress_bar import progress_bar
from runtime.run_folder import RunFolder
from search.learners import LEARNERS
from slow_fast_learning import choices, slow_and_fast

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")

EDGES = 6
"""Variables of a cell: the operations on the edges into nodes 1 (1), 2 (2) and 3 (3)."""

SETS = ("cifar10", "cifar100", "imagenet16-120")

BUDGETS = (50, 100, 200, 400, 1000)

ACCOUNTS = ("every query counts", "asking again is free")

STALLED = 1000
"""So many queries in a row without a new cell, and a method is taken to have converged."""

Cell = tuple[int, ...]
"""The numbers of the operations on the edges, in the order of the benchmark's strings."""

Method = Callable[[int], Generator[Cell, float, None]]
"""Takes a seed, yields the cells it asks for and is sent their validation accuracies."""


Summary = dict[str, np.ndarray]
"""Statistics over the seeds by name, each float64 (budget,)."""

Summaries = dict[str, Summary]
"""Every method's."""


@dataclass(frozen=True)
class Table:
    """Accuracies in percent of all cells on one image set, float64 (5, 5, 5, 5, 5, 5)."""

    validation: np.ndarray
    test: np.ndarray


def parse_cell(text: str) -> Cell:
    """The cell in the benchmark's notation: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

    Raises:
        ValueError: it is not one.
    """
    parts = [part for node in text.split("+") for part in node.strip("|").split("|")]
    names = [part.split("~")[0] for part in parts]
    if len(names) != EDGES or not set(names) <= set(OPERATIONS):
        raise ValueError(f"not a cell: {text[:100]!r}")
    cell = tuple(OPERATIONS.index(name) for name in names)
    if format_cell(cell) != text:
        raise ValueError(f"not a cell: {text[:100]!r}")
    return cell


def format_cell(cell: Cell) -> str:
    """The cell in the benchmark's notation."""
    nodes = []
    for first, last in pairwise((0, 1, 3, 6)):
        edges = enumerate(cell[first:last])
        nodes.append("|" + "".join(f"{OPERATIONS[number]}~{source}|" for source, number in edges))
    return "+".join(nodes)


def read_table(path: str, sets: list[str]) -> dict[str, Table]:
    """Read a CSV file, gzipped or not, with columns `cell`, `<set>-val` and `<set>-test`.

    Raises:
        UserError: the file cannot be read, or is not a table of all 15,625 cells; names the line.
    """
    columns = [f"{name}-{split}" for name in sets for split in ("val", "test")]
    accuracies = {column: np.full((len(OPERATIONS),) * EDGES, math.nan) for column in columns}
    cells = set()
    try:
        open_text = gzip.open if path.endswith(".gz") else open
        with open_text(path, "rt", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if missing := {"cell", *columns} - set(rows.fieldnames or ()):
                raise UserError(f"--table {path}: lacks the columns {', '.join(sorted(missing))}")
            for row in rows:
                cell = parse_cell(row["cell"] or "")
                if cell in cells:
                    raise ValueError(f"the cell {row['cell']} is there twice")
                cells.add(cell)
                for column in columns:
                    accuracies[column][cell] = float(row[column])
                    if not 0 <= accuracies[column][cell] <= 100:
                        raise ValueError(f"{column} is {row[column]}, not a percentage")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--table {path}: cannot be read ({reason})") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"--table {path}: line {rows.line_num}: {error}") from None
    if len(cells) != len(OPERATIONS) ** EDGES:
        raise UserError(
            f"--table {path}: holds {len(cells):,} of the {len(OPERATIONS) ** EDGES:,} cells; "
            "export all of them"
        )
    return {name: Table(accuracies[f"{name}-val"], accuracies[f"{name}-test"]) for name in sets}


def random_search(seed: int) -> Generator[Cell, float, None]:
    """Cells at random, each independent of the others."""
    generator = random.Random(seed)
    while True:
        yield random_cell(generator)


def regularised_evolution(
    seed: int, population_size: int, sample_size: int
) -> Generator[Cell, float, None]:
    """Regularised evolution: the best of a sample has a mutated child, the oldest cell dies.

    The sample is drawn with replacement. A mutation changes the operation on one edge.
    """
    generator = random.Random(seed)
    population: deque[tuple[float, Cell]] = deque(maxlen=population_size)
    while True:
        if len(population) < population_size:
            cell = random_cell(generator)
        else:
            sample = generator.choices(population, k=sample_size)
            _, parent = max(sample, key=itemgetter(0))
            cell = mutated(parent, generator)
        accuracy = yield cell
        population.append((accuracy, cell))


def random_cell(generator: random.Random) -> Cell:
    """A cell drawn uniformly from all."""
    return tuple(generator.choices(range(len(OPERATIONS)), k=EDGES))


def mutated(cell: Cell, generator: random.Random) -> Cell:
    """`cell` with another operation on one edge."""
    edge = generator.randrange(EDGES)
    shift = generator.randrange(1, len(OPERATIONS))
    return (*cell[:edge], (cell[edge] + shift) % len(OPERATIONS), *cell[edge + 1 :])


def slow_fast_learning(
    seed: int, learner: str, population_size: int
) -> Generator[Cell, float, None]:
    """A learner of `LEARNERS`, used as in `train_search.py`: both cells of each pair are asked."""
    upper = np.full(EDGES, len(OPERATIONS))
    learning = LEARNERS[learner](np.zeros(EDGES), upper, population_size, seed)
    while True:
        for pair in learning.draw_pairs():
            errors = []
            for cell in choices(learning.positions[list(pair)], upper).tolist():
                accuracy = yield tuple(cell)
                errors.append(100 - accuracy)
            learning.move(*slow_and_fast(pair, tuple(errors)))


def run_method(
    proposals: Generator[Cell, float, None], validation: np.ndarray, budget: int
) -> tuple[list[Cell], list[Cell]]:
    """The cells that a method spends `budget` on, in order, under both `ACCOUNTS`.

    Under the second the list is shorter than `budget` if the method converged (`STALLED`).
    """
    asked: list[Cell] = []
    different: dict[Cell, None] = {}
    last_new = 0
    cell = next(proposals)
    while len(asked) < budget or (
        len(different) < budget and len(asked) - last_new < max(STALLED, budget)
    ):
        if cell not in different:
            different[cell] = None
            last_new = len(asked)
        asked.append(cell)
        cell = proposals.send(validation[cell])
    return asked[:budget], list(different)[:budget]


def best_so_far(cells: list[Cell], table: Table, budget: int) -> np.ndarray:
    """Test and validation accuracy of the cell best by validation after each query (2, budget).

    Of cells equal by validation the first found. If `cells` ends early, its last value goes on.
    """
    index = tuple(np.array(cells).T)
    validation, test = table.validation[index], table.test[index]
    best = np.maximum.accumulate(validation)
    is_new = np.concatenate([[True], validation[1:] > best[:-1]])
    last_new = np.maximum.accumulate(np.where(is_new, np.arange(len(cells)), 0))
    curves = np.stack([test[last_new], best])
    return np.pad(curves, ((0, 0), (0, budget - len(cells))), mode="edge")


def curves_of_seeds(seeds: range, method: Method, table: Table, budget: int) -> np.ndarray:
    """`best_so_far` of several runs of a method, float32 (accounts, seeds, 2, budget)."""
    curves = np.empty((len(ACCOUNTS), len(seeds), 2, budget), dtype=np.float32)
    for number, seed in enumerate(seeds):
        for account, cells in enumerate(run_method(method(seed), table.validation, budget)):
            curves[account, number] = best_so_far(cells, table, budget)
    return curves


def measure(
    methods: dict[str, Method], table: Table, seeds: int, name: str
) -> dict[str, np.ndarray]:
    """`curves_of_seeds` of every method, up to the largest budget."""
    parts = [range(start, min(start + 25, seeds)) for start in range(0, seeds, 25)]
    tasks = [(label, part) for label in methods for part in parts]
    curves: dict[str, list[np.ndarray]] = {label: [] for label in methods}
    with ProcessPoolExecutor(os.cpu_count()) as executor:
        futures = [
            executor.submit(curves_of_seeds, part, methods[label], table, BUDGETS[-1])
            for label, part in tasks
        ]
        for (label, _), future in zip(tasks, progress_bar(futures, name, "part"), strict=True):
            curves[label].append(future.result())
    return {label: np.concatenate(parts, axis=1) for label, parts in curves.items()}


def summary(curves: np.ndarray, best: float) -> Summary:
    """Of curves (seeds, 2, budget): the test accuracy's mean, standard deviation, the mean's 95 %
    interval and regret to `best`; and the mean of the validation accuracy.
    """
    test, validation = curves.astype(np.float64).swapaxes(0, 1)
    mean, std = test.mean(axis=0), test.std(axis=0, ddof=1)
    half = 1.96 * std / math.sqrt(len(test))
    return {
        "mean": mean,
        "std": std,
        "low": mean - half,
        "high": mean + half,
        "regret": best - mean,
        "validation": validation.mean(axis=0),
    }


def test_of_the_best(table: Table) -> str:
    """The test accuracies of the cells with the highest validation accuracy; often it is one."""
    accuracies = table.test[table.validation == table.validation.max()]
    return ", ".join(f"{accuracy:.3f}" for accuracy in sorted(accuracies))


def table_lines(summaries: Summaries, compared: str) -> Iterator[str]:
    """The printed table of one image set under one account; `compared` is the method to beat."""
    yield f"{'method':22} queries    mean     std   95 % interval    regret  validation"
    for label, values in summaries.items():
        for budget in BUDGETS:
            at = {name: value[budget - 1] for name, value in values.items()}
            yield (
                f"{label:22} {budget:7} {at['mean']:7.3f} {at['std']:7.3f}   "
                f"{at['low']:.3f}–{at['high']:.3f} {at['regret']:9.3f} {at['validation']:11.3f}"
            )
    for label, values in summaries.items():
        if label != compared:
            parts = [_difference(values, summaries[compared], budget) for budget in BUDGETS]
            yield f"{label} against {compared}: " + ", ".join(parts)


def _difference(values: Summary, other: Summary, budget: int) -> str:
    at = budget - 1
    difference = values["mean"][at] - other["mean"][at]
    apart = values["low"][at] > other["high"][at] or values["high"][at] < other["low"][at]
    return f"{difference:+.3f} at {budget}{' (intervals apart)' if apart else ''}"


def plot(results: dict[str, list[Summaries]], best: dict[str, float], path: Path) -> None:
    """Draw the mean curves and their 95 % intervals: a row per account, a column per image set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(ACCOUNTS), len(results), figsize=(4.6 * len(results) + 0.6, 8), sharey="col",
        squeeze=False, layout="constrained",
    )  # fmt: skip
    queries = np.arange(1, BUDGETS[-1] + 1)
    shown = slice(BUDGETS[0] // 2 - 1, None)
    for column, (name, accounts) in enumerate(results.items()):
        for row, summaries in enumerate(accounts):
            ax = axes[row, column]
            for label, values in summaries.items():
                (line,) = ax.plot(queries[shown], values["mean"][shown], label=label)
                ax.fill_between(
                    queries[shown], values["low"][shown], values["high"][shown],
                    color=line.get_color(), alpha=0.2, linewidth=0,
                )  # fmt: skip
            ax.axhline(best[name], color="grey", linestyle="--", linewidth=1, label="best cell")
            ax.set_xscale("log")
            ax.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
            ax.minorticks_off()
            ax.set_title(f"{name}, {ACCOUNTS[row]}")
            ax.set_xlabel("queries of validation accuracy")
            ax.set_ylabel("test accuracy of the best by validation (%)")
            ax.grid(alpha=0.3)
    axes[0, 0].legend(loc="lower right")
    figure.savefig(path, dpi=110)


def benchmark(args: Namespace) -> None:
    """Run all methods on all image sets; print and write the tables, draw the curves."""
    tables = read_table(args.table, args.sets)
    run = RunFolder.create("nasbench201", args.save, vars(args))
    evolution = "regularised evolution"
    methods: dict[str, Method] = {
        "random search": random_search,
        evolution: partial(
            regularised_evolution,
            population_size=args.evolution_population,
            sample_size=args.evolution_sample,
        ),
        "slow-fast, published": partial(
            slow_fast_learning, learner="published", population_size=args.published_population
        ),
        "slow-fast, shuffled": partial(
            slow_fast_learning, learner="shuffled", population_size=args.shuffled_population
        ),
    }
    best = {name: float(table.test.max()) for name, table in tables.items()}
    results = {}
    for name, table in tables.items():
        curves = measure(methods, table, args.seeds, name)
        results[name] = [
            {label: summary(both[account], best[name]) for label, both in curves.items()}
            for account in range(len(ACCOUNTS))
        ]
        for account, summaries in zip(ACCOUNTS, results[name], strict=True):
            print(f"\n{name}, {account}; {args.seeds} seeds")
            print(
                f"best test accuracy {best[name]:.3f}; of the cells best by validation "
                f"({table.validation.max():.3f}): {test_of_the_best(table)}"
            )
            print(*table_lines(summaries, evolution), sep="\n", flush=True)
    write_json(run.path / "results.json", at_budgets(results))
    plot(results, best, run.path / "curves.png")
    print(f"\ncurves: {run.path / 'curves.png'}")


def at_budgets(results: dict[str, list[Summaries]]) -> dict:
    """The numbers of the printed tables as plain data: set, account, method, budget, statistic."""
    return {
        name: {
            account: {
                label: {
                    budget: {key: float(value[budget - 1]) for key, value in values.items()}
                    for budget in BUDGETS
                }
                for label, values in summaries.items()
            }
            for account, summaries in zip(ACCOUNTS, accounts, strict=True)
        }
        for name, accounts in results.items()
    }


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--table",
        type=expanded_path,
        required=True,
        help="CSV file (.csv or .csv.gz) of all cells' accuracies",
    )
    add("--sets", nargs="+", choices=SETS, default=SETS, help="image sets")
    add("--seeds", type=int, default=2000, help="runs of every method, at least 2")
    add("--evolution_population", type=positive_int, default=10, help="of regularised evolution")
    add("--evolution_sample", type=positive_int, default=3, help="of regularised evolution")
    add("--published_population", type=int, default=20, help="of slow-fast learning as published")
    add("--shuffled_population", type=int, default=16, help="of the improved learner")
    add(
        "--save",
        type=expanded_path,
        default="runs/EXP",
        help="PATH/NAME: the folder is PATH/nasbench201-NAME-...",
    )
    args = parser.parse_args(argv)
    if args.seeds < 2:
        raise UserError(f"--seeds {args.seeds}: an interval needs at least 2")
    for name in ("published_population", "shuffled_population"):
        size = getattr(args, name)
        if size < 2 or size % 2:
            raise UserError(f"--{name} {size}: pairs need an even number, at least 2")
    return args


def main() -> None:
    benchmark(parse_arguments())


if __name__ == "__main__":
    run_script(main)
