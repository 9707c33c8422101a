"""The benchmark of budgets: its limits, its runs, and its table."""

import subprocess
import sys

import pytest
from helpers import ROOT, TINY_SEARCH, TINY_TRAINING

from benchmarks import budgets
from benchmarks.study import Study, random_cell
from genotypes import RelativeNAS, save_genotype
from report.sizes import TARGETS
from runtime.errors import UserError


def test_half_of_the_random_cells_are_below_the_median():
    target = TARGETS["imagenet"]
    quarter, half = budgets.multiply_adds_at([25, 50], target)
    sizes = [target.size(random_cell(9, number)).multiply_adds / 1e6 for number in range(1000)]
    assert 0.2 < sum(size < quarter for size in sizes) / 1000 < 0.3
    assert 0.45 < sum(size < half for size in sizes) / 1000 < 0.55


def test_the_scripts_get_the_budget_and_the_seed(tmp_path, monkeypatch):
    started = []

    class FakeStudy(Study):
        def run_to_its_end(self, kind, name, flags):
            started.append((kind, name, " ".join(flags)))
            save_genotype(RelativeNAS, tmp_path / "genotype.json")
            return tmp_path

    monkeypatch.setattr(budgets, "trained_top1", lambda folder: 90.0)
    monkeypatch.setattr(budgets, "read_run", lambda folder: ended_search())
    arguments = ["--set", "digits", "--target_layers", "5", "--search_flags=--epochs 2"]
    args = budgets.parse_arguments([*arguments, "--train_flags=--epochs 3"])
    target = TARGETS["cifar"]
    result = budgets.search_and_train(
        args, target, 600.5, "25th percentile", 4, FakeStudy(args, tmp_path)
    )
    (search, found, other) = started
    assert search == (
        "search", "25th-seed4", "--learner published --seed 4 --target cifar "
        "--target_layers 5 --max_multiply_adds 600.5 --epochs 2",
    )  # fmt: skip
    assert (found[1], other[1]) == ("25th-seed4-found", "25th-seed4-random")
    assert found[2].endswith("25th-seed4-found.json --seed 4 --epochs 3")
    assert result["parameters"] == target.size(RelativeNAS).parameters
    assert (result["free_pairs"], result["free_turns"], result["seconds"]) == (0.25, 0.375, 7.0)


class Pair:
    def __init__(self, seconds, *excesses):
        self.seconds, self.excesses = seconds, excesses


def ended_search():
    pairs = [Pair(3.0, 0.0, 0.0), Pair(1.0, 0.1, 0.0), Pair(0.0, 0.1, 0.2), Pair(3.0, 0.0, 0.0)]
    generation = type("Generation", (), {"pairs": pairs})
    return type("Run", (), {"generations": [generation]})


def test_the_table_has_means_and_deviations():
    common = {
        "parameters": 2_000_000, "multiply_adds": 3e8, "random_top1": 90.0, "free_pairs": 0.5,
        "free_turns": 0.25, "seconds": 60.0,
    }  # fmt: skip
    searches = [{"limit": 310.5, "top1": top1, **common} for top1 in (91.0, 93.0)]
    lines = budgets.report({"none": [{**searches[0], "limit": None}], "25th": searches})
    assert "±" not in budgets.report({"none": searches[:1]})[2]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert lines[3] == (
        "| 25th | 310.5 M | 2.000 ± 0.000 M | 300.00 ± 0.00 M | 92.00 ± 1.41 | 90.00 ± 0.00 | "
        "50.0 ± 0.0 % | 25.0 ± 0.0 % | 60 ± 0 |"
    )


def test_percentiles_are_between_0_and_100():
    with pytest.raises(UserError, match="--percentiles"):
        budgets.parse_arguments(["--percentiles", "50", "100"])


@pytest.mark.stress
def test_searches_with_and_without_a_budget(tmp_path):
    done = subprocess.run(
        [
            sys.executable, "benchmarks/budgets.py", "--set", "digits", "--seeds", "1",
            "--percentiles", "50", "--search_flags", " ".join(TINY_SEARCH[2:]),
            "--train_flags", " ".join(TINY_TRAINING[2:]), "--save", str(tmp_path / "EXP"),
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| none |" in done.stdout and "| 50th percentile |" in done.stdout


def test_budgets_are_percentiles_or_given():
    target = TARGETS["imagenet"]
    limits = budgets.chosen_limits(budgets.parse_arguments(["--limits", "450", "500.5"]), target)
    assert limits == {"none": None, "450 M": 450, "500.5 M": 500.5}
    limits = budgets.chosen_limits(budgets.parse_arguments([]), target)
    assert list(limits) == ["none", "50th percentile", "25th percentile"]
    assert limits["25th percentile"] < limits["50th percentile"]
