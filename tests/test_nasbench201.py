"""The NAS-Bench-201 benchmark on a table of its own: all cells, accuracies by a seeded formula."""

import csv
import gzip
import itertools
import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from helpers import ROOT, only_folder

from benchmarks.nasbench201 import (
    EDGES,
    OPERATIONS,
    Table,
    benchmark,
    best_so_far,
    curves_of_seeds,
    format_cell,
    parse_arguments,
    parse_cell,
    random_search,
    read_table,
    regularised_evolution,
    run_method,
    slow_fast_learning,
    summary,
)
from runtime.errors import UserError

METHODS = {
    "random": random_search,
    "evolution": partial(regularised_evolution, population_size=10, sample_size=3),
    "published": partial(slow_fast_learning, learner="published", population_size=20),
    "shuffled": partial(slow_fast_learning, learner="shuffled", population_size=16),
}

ALL_CELLS = list(itertools.product(range(len(OPERATIONS)), repeat=EDGES))


def make_table():
    """Accuracies that a search can climb: a value for each operation on each edge, and noise."""
    random = np.random.default_rng(1)
    validation = random.normal(60, 2, (len(OPERATIONS),) * EDGES)
    for edge in range(EDGES):
        shape = [1] * EDGES
        shape[edge] = len(OPERATIONS)
        validation += random.normal(0, 3, shape)
    # Rounded, so that there are ties.
    return Table(validation.round(1), (validation + random.normal(5, 1, validation.shape)).round(1))


@pytest.fixture(scope="module")
def table():
    return make_table()


def write_table(path, table, cells, sets=("cifar10",)):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        writer = csv.writer(file)
        columns = [f"{name}-{split}" for name in sets for split in ("test", "val")]
        writer.writerow(["cell", *columns])
        for cell in cells:
            values = [table.test[cell], table.validation[cell]] * len(sets)
            writer.writerow([format_cell(cell), *values])


def test_every_cell_has_its_own_notation():
    texts = {format_cell(cell) for cell in ALL_CELLS}
    assert len(texts) == len(ALL_CELLS) == 15625
    assert all(parse_cell(format_cell(cell)) == cell for cell in ALL_CELLS)
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|none~2|"
    assert parse_cell(text) == (4, 2, 1, 0, 3, 0)
    assert format_cell((4, 2, 1, 0, 3, 0)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~1|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|conv~2|",
        "|none~0|none~0|+|none~1|+|none~0|none~1|none~2|",
    ],
)
def test_what_is_no_cell_is_refused(text):
    with pytest.raises(ValueError, match="not a cell"):
        parse_cell(text)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_a_table_is_read(name, table, tmp_path):
    write_table(tmp_path / name, table, reversed(ALL_CELLS), ("cifar10", "cifar100"))
    tables = read_table(str(tmp_path / name), ["cifar100"])
    assert list(tables) == ["cifar100"]
    np.testing.assert_array_equal(tables["cifar100"].validation, table.validation)
    np.testing.assert_array_equal(tables["cifar100"].test, table.test)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: lines[:-1], "15,624 of the 15,625"),
        (lambda lines: [*lines[:-1], lines[1]], "line 15626: the cell |none~0|"),
        (lambda lines: [lines[0], "|none~0|,1,1"], "line 2: not a cell: '|none~0|'"),
        (lambda lines: [lines[0], lines[1].replace(",", ",x", 1)], "line 2: could not convert"),
        (lambda lines: [lines[0], format_cell(ALL_CELLS[0]) + ",1"], "line 2: "),
        (lambda lines: [lines[0], format_cell(ALL_CELLS[0]) + ",1,101"], "cifar10-val is 101"),
        (lambda lines: ["cell,cifar10-val"], "lacks the columns cifar10-test"),
        (lambda lines: [], "lacks the columns"),
        (lambda lines: ["\udcff"], "cannot be read"),
    ],
)
def test_a_table_that_is_none_is_refused(change, expected, table, tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, table, ALL_CELLS)
    lines = change(path.read_text().splitlines())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError) as error:
        read_table(str(path), ["cifar10"])
    assert str(path) in str(error.value) and expected in str(error.value)


def test_a_missing_or_damaged_table_is_refused(table, tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_table(str(tmp_path / "none.csv"), ["cifar10"])
    path = tmp_path / "table.csv.gz"
    write_table(path, table, ALL_CELLS)
    path.write_bytes(path.read_bytes()[:10000])
    with pytest.raises(UserError, match="cannot be read"):
        read_table(str(path), ["cifar10"])


class CountedQueries:
    """Stands in for the validation accuracies and keeps what was asked."""

    def __init__(self, validation):
        self.validation = validation
        self.asked = []

    def __getitem__(self, cell):
        self.asked.append(cell)
        return self.validation[cell]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("budget", [1, 37, 200])
def test_query_counts_are_exact(name, budget, table):
    queries = CountedQueries(table.validation)
    every, different = run_method(METHODS[name](0), queries, budget)
    assert every == queries.asked[:budget] and len(every) == budget
    assert different == list(dict.fromkeys(queries.asked))[:budget]
    assert len(different) == budget or len(queries.asked) >= len(different) + 1000
    if len(different) == budget:  # and not one query more than it takes
        assert queries.asked.index(different[-1]) == len(queries.asked) - 1 or (
            len(queries.asked) == budget
        )


def test_a_method_that_converged_stops(table):
    def stubborn(seed):
        while True:
            yield (0,) * EDGES

    every, different = run_method(stubborn(0), table.validation, 50)
    assert (len(every), len(different)) == (50, 1)
    assert (best_so_far(different, table, 50) == best_so_far(every, table, 50)).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_curve(name, table):
    first, again, longer = (
        curves_of_seeds(range(3), METHODS[name], table, budget) for budget in (100, 100, 150)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, longer[..., :100])  # a budget changes nothing before
    assert not (first[:, 0] == first[:, 1]).all()


def test_the_best_by_validation_counts_and_of_equal_ones_the_first():
    table = Table(np.zeros((5,) * EDGES), np.zeros((5,) * EDGES))
    cells = ALL_CELLS[:5]
    for cell, validation, test in zip(cells, (50, 40, 50, 60, 60), (1, 9, 2, 3, 4), strict=True):
        table.validation[cell], table.test[cell] = validation, test
    test, validation = best_so_far(cells, table, 7)
    assert test.tolist() == [1, 1, 1, 3, 3, 3, 3]
    assert validation.tolist() == [50, 50, 50, 60, 60, 60, 60]


def expected_random_search(table, queries):
    """Mean test accuracy of the best by validation of `queries` cells drawn with replacement.

    The best of n draws has at most the accuracy v with probability F(v)ⁿ; among cells of equal
    validation accuracy each is as likely to be drawn first.
    """
    levels, members, counts = np.unique(table.validation, return_inverse=True, return_counts=True)
    at_most = np.cumsum(counts) / counts.sum()
    probability = np.diff(at_most**queries, prepend=0)
    test = np.bincount(members.ravel(), weights=table.test.ravel()) / counts
    assert len(levels) < table.validation.size  # ties are tested too
    return float(probability @ test)


def test_random_search_agrees_with_order_statistics(table):
    curves = curves_of_seeds(range(1000), random_search, table, 400)
    found = summary(curves[0], best=table.test.max())
    for queries in (50, 100, 200, 400):
        expected = expected_random_search(table, queries)
        assert found["low"][queries - 1] < expected < found["high"][queries - 1]


def test_evolution_keeps_the_youngest(table):
    queries = CountedQueries(table.validation)
    run_method(METHODS["evolution"](3), queries, 300)
    for age, child in enumerate(queries.asked[10:], start=10):
        parents = queries.asked[age - 10 : age]
        differences = [sum(a != b for a, b in zip(child, p, strict=True)) for p in parents]
        assert 1 in differences


def test_the_whole_benchmark(table, tmp_path, monkeypatch, capsys):
    path = tmp_path / "table.csv"
    write_table(path, table, ALL_CELLS)
    arguments = ["--table", str(path), "--sets", "cifar10", "--seeds", "3"]
    benchmark(parse_arguments([*arguments, "--save", str(tmp_path / "runs" / "EXP")]))
    folder = only_folder(tmp_path / "runs")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((folder / "results.json").read_text())["cifar10"]
    printed = capsys.readouterr().out
    assert len(results) == 2
    for methods in results.values():
        for name, budgets in methods.items():
            assert list(budgets) == ["50", "100", "200", "400", "1000"]
            for budget, values in budgets.items():
                assert f"{name:22} {budget:>7} {values['mean']:7.3f}" in printed
                assert values["regret"] == pytest.approx(table.test.max() - values["mean"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--seeds", "1"], "--seeds 1"), (["--shuffled_population", "5"], "even number")],
)
def test_arguments_out_of_range(flags, message):
    with pytest.raises(UserError, match=message):
        parse_arguments(["--table", "none", *flags])


def test_the_benchmark_runs_from_its_own_path(tmp_path):
    process = subprocess.run(
        [sys.executable, "benchmarks/nasbench201.py", "--table", str(tmp_path / "none.csv")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("error: --table") and process.stderr.count("\n") == 1
