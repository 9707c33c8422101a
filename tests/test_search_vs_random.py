"""The comparison of the search's cell with random cells: its report, its mistakes, and a run."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT, TINY_SEARCH, TINY_TRAINING, call_script, only_folder

from benchmarks import search_vs_random
from benchmarks.search_vs_random import parse_arguments, report, run_to_its_end, same_size_cell
from genotypes import RelativeNAS
from report.sizes import TARGETS
from runtime.errors import UserError
from runtime.run_folder import RunFolder


def test_the_report_compares_means_with_mean_spread_and_best():
    def trainings(*accuracies):
        size = {"parameters": 1_250_000, "multiply_adds": 200_000_000}
        return [{"top1": accuracy, **size} for accuracy in accuracies]

    lines = report(
        {
            "found": trainings(95, 97),
            "random-0": trainings(94, 94),
            "random-1": trainings(97, 98),
            "random-2": trainings(92, 93),
        }
    )
    assert [line.split()[0] for line in lines[1:5]] == ["random-1", "found", "random-0", "random-2"]
    assert lines[2].split() == ["found", "96.00", "%", "1.250", "M", "200.0", "M"]
    # Of 94, 97.5 and 92.5: mean 94.67, deviations −0.67, 2.83 and −2.17, √(13.17 / 2) = 2.57.
    assert "mean 94.67 %, standard deviation 2.57, from 92.50 to 97.50 %" in lines[5]
    assert "96.00 %, +1.33 to the mean, -1.50 to the best; better than 2 of 3" in lines[6]


def test_cells_of_the_found_ones_size_are_a_comparison_of_their_own():
    def trainings(accuracy):
        return [{"top1": accuracy, "parameters": 1_250_000, "multiply_adds": 200_000_000}]

    accuracies = {
        "found": 95, "random-0": 90, "random-1": 92, "same-size-0": 94, "same-size-1": 97
    }  # fmt: skip
    lines = report({name: trainings(accuracy) for name, accuracy in accuracies.items()})
    assert "random cells: mean 91.00 %" in lines[6]
    assert "+4.00 to the mean, +3.00 to the best; better than 2 of 2" in lines[7]
    assert "random cells of its size: mean 95.50 %" in lines[8]
    assert "-0.50 to the mean, -2.00 to the best; better than 1 of 2" in lines[9]


def test_random_cells_of_the_same_size():
    target = TARGETS["cifar"]
    wanted = target.size(RelativeNAS).multiply_adds
    cells = [same_size_cell(RelativeNAS, target, 0.05, 3, number) for number in range(3)]
    assert len({str(cell) for cell in cells}) == 3
    for cell in cells:
        assert abs(target.size(cell).multiply_adds - wanted) <= 0.05 * wanted
    assert cells[1] == same_size_cell(RelativeNAS, target, 0.05, 3, 1)


def test_a_size_that_no_random_cell_has(monkeypatch):
    monkeypatch.setattr(search_vs_random, "MAX_DRAWS", 100)
    with pytest.raises(UserError, match=r"--same_size 0: none of 100 .* 616\.8 M multiply-adds"):
        same_size_cell(RelativeNAS, TARGETS["cifar"], 0, 3, 0)


def test_a_mistake_in_the_scripts_flags_is_passed_on(tmp_path):
    run = RunFolder.create("compare", str(tmp_path / "EXP"), {})
    with pytest.raises(UserError, match=r"^train\.py: .*DARTS_V3"):
        run_to_its_end("train", "found", ["--arch", "DARTS_V3"], run)
    run.close()


def test_a_comparison_that_cannot_begin_leaves_no_folder(tmp_path, monkeypatch):
    arguments = ["--set", "folder", "--data", tmp_path / "nowhere", "--save", tmp_path / "EXP"]
    assert call_script("benchmarks.search_vs_random", arguments, monkeypatch) == 2
    assert not list(tmp_path.iterdir())


def test_a_spread_needs_two_cells():
    with pytest.raises(UserError, match="--random_cells 1"):
        parse_arguments(["--random_cells", "1"])


@pytest.mark.stress
def test_a_comparison_and_its_resumption(tmp_path):
    def compare(*arguments):
        done = subprocess.run(
            [sys.executable, "benchmarks/search_vs_random.py", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = compare(
        "--set", "digits", "--learner", "shuffled", "--random_cells", "2",
        "--search_flags", " ".join(TINY_SEARCH[2:]), "--train_flags", " ".join(TINY_TRAINING[2:]),
        "--save", str(tmp_path / "EXP"),
    )  # fmt: skip
    folder = only_folder(tmp_path)
    results = json.loads((folder / "results.json").read_text())
    assert list(results) == ["found", "random-0", "random-1"]
    # Resumed, it finds everything done, and reports the same.
    again = compare("--resume", str(folder))
    assert again.splitlines()[-7:] == first.splitlines()[-7:]
    assert len(list(folder.glob("*/settings.json"))) == 4
