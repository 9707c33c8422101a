"""The study of searches against chance: its cells, their order, its mistakes, and a run."""

import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from helpers import ROOT, TINY_SEARCH, TINY_TRAINING, call_script, only_folder

from benchmarks import search_vs_random
from benchmarks.search_vs_random import in_random_order, parse_arguments
from runtime.errors import UserError


def test_wherever_it_is_cut_short_all_cells_are_trained_equally_often():
    names = [f"a-{number}" for number in range(10)] + ["b-0", "b-1"]
    order = in_random_order(names, 3, seed=4)
    assert len(set(order)) == 36
    for place in range(37):
        counts = Counter(name for name, _ in order[:place])
        counts = [counts[name] for name in names]
        assert max(counts) - min(counts) <= 1
    rounds = [[name for name, _ in order[first : first + 12]] for first in (0, 12, 24)]
    assert len({tuple(names) for names in [*rounds, tuple(names)]}) == 4
    assert order == in_random_order(names, 3, seed=4) != in_random_order(names, 3, seed=5)


def test_a_spread_needs_two_cells():
    with pytest.raises(UserError, match="--random_cells 1"):
        parse_arguments(["--random_cells", "1"])


@pytest.mark.parametrize(
    "mistake",
    [
        ["--search_flags=--pop_size 3"],
        ["--train_flags=--layers 0"],
        ["--set", "folder", "--data", "nowhere"],
    ],
)
def test_a_study_that_cannot_begin_leaves_no_folder(mistake, tmp_path, monkeypatch, capsys):
    arguments = ["--set", "digits", "--save", tmp_path / "EXP", *mistake]
    assert call_script("benchmarks.search_vs_random", arguments, monkeypatch) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.stress
def test_a_study_and_its_resumption(tmp_path):
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
        "--set", "digits", "--learner", "shuffled", "published", "--random_cells", "2",
        "--same_size_cells", "1", "--same_size", "0.2", "--trainings", "2", "--jobs", "2",
        "--search_flags", " ".join(TINY_SEARCH[2:]), "--train_flags", " ".join(TINY_TRAINING[2:]),
        "--save", str(tmp_path / "EXP"),
    )  # fmt: skip
    folder = only_folder(tmp_path)
    results = json.loads((folder / "results.json").read_text())
    assert {name: len(cell["top1"]) for name, cell in results["cells"].items()} == dict.fromkeys(
        ("shuffled-0", "published-0", "random-0", "random-1", "same-size-0"), 2
    )
    assert (folder / "accuracy.svg").exists()
    # Resumed, it finds everything done, and reports the same.
    again = compare("--resume", str(folder))
    assert again[again.index("| group") :] == first[first.index("| group") :]
    assert len(list(folder.glob("*/settings.json"))) == 12


@pytest.mark.stress
def test_a_study_goes_on_without_the_trainings_that_are_in_its_results(
    tmp_path, monkeypatch, capsys
):
    arguments = [
        "--set", "digits", "--random_cells", "2", "--trainings", "1",
        "--search_flags", " ".join(TINY_SEARCH[2:]), "--train_flags", " ".join(TINY_TRAINING[2:]),
    ]  # fmt: skip
    name = "benchmarks.search_vs_random"

    def fail(*training):
        raise UserError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(search_vs_random, "train", fail)
        assert call_script(name, [*arguments, "--save", tmp_path / "EXP"], monkeypatch) == 2
    folder = only_folder(tmp_path)
    # The weight sets can be asked about the cells (ranking.py) before one has been trained.
    results = json.loads((folder / "results.json").read_text())
    assert len(results["cells"]) == 3 and not any(c["top1"] for c in results["cells"].values())
    assert call_script(name, ["--resume", folder], monkeypatch) == 0
    first = capsys.readouterr().out
    for training in folder.glob("train-*"):
        shutil.rmtree(training)
    assert call_script(name, ["--resume", folder], monkeypatch) == 0
    again = capsys.readouterr().out
    assert again[again.index("| group") :] == first[first.index("| group") :]
    assert not list(folder.glob("train-*"))
    # What is said of another cell is not taken for this one's.
    results = json.loads((folder / "results.json").read_text())
    results["cells"]["random-0"]["genotype"] = results["cells"]["random-1"]["genotype"]
    (folder / "results.json").write_text(json.dumps(results))
    # Asked for a report only, it reports what there is and trains nothing.
    assert call_script(name, ["--resume", folder, "--minutes", "0"], monkeypatch) == 0
    assert "| random | 1 | 1 |" in capsys.readouterr().out
    assert not list(folder.glob("train-*"))
    assert call_script(name, ["--resume", folder], monkeypatch) == 0
    assert len(list(folder.glob("train-*"))) == 1
    (folder / "results.json").write_text("[")
    assert call_script(name, ["--resume", folder], monkeypatch) == 2
    assert "results.json: cannot be read" in capsys.readouterr().err
