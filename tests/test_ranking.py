"""How well signals rank cells: the correlation by hand, the tables, and the benchmark's runs."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import call_script, only_folder
from test_candidate import make_trainer

from benchmarks import ranking
from benchmarks.ranking_report import Answer, choice_table, kendall, noise_table, ranking_table
from benchmarks.study import Study
from benchmarks.study_report import TrainedCell
from genotypes import DARTS_V1, DARTS_V2, AmoebaNet, NASNet
from report.sizes import Size
from runtime.atomic_file import write_json
from train_search import parse_arguments


def test_kendall_by_hand():
    # Of 6 pairs 5 are in the same order and 1 is not.
    assert kendall(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])) == pytest.approx(4 / 6)
    assert kendall(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == -1
    # A tie in one: 5 pairs count there and 6 in the other.
    assert kendall(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(5 / 30**0.5)
    assert np.isnan(kendall(np.array([1.0, 1]), np.array([1.0, 2])))


def trained(*accuracies):
    return [
        TrainedCell(f"random-{number}", Size(1000 - number, 10 * number), [top1])
        for number, top1 in enumerate(accuracies)
    ]


def test_a_signal_that_knows_everything_and_one_that_knows_nothing():
    cells = trained(50, 52, 54, 56, 58, 60)
    answers = [
        Answer("published-0", 100, cell.name, signal, loss)
        for cell, other in zip(cells, (3, 1, 4, 0, 2, 5), strict=True)
        for signal, loss in (("good", 100 - cell.mean), ("other", other), ("bad", cell.mean))
    ]
    answers.append(Answer("published-0", 50, "random-0", "good", 1.0))  # not all were asked there
    lines = ranking_table(cells, answers)
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in lines if "|" in line}
    assert rows["signal"] == [" at 50 % ", " at 100 % "]
    assert rows["good"] == ["  ", " 1.00 [1.00, 1.00], 1 "]
    assert rows["bad"][1].startswith(" -1.00 [")
    low, high = (float(x) for x in rows["other"][1].split("[")[1].split("]")[0].split(","))
    assert low < 0 < high
    assert "parameters alone: -1.00 [-1.00, -1.00]" in lines
    assert "multiply-adds alone: 1.00 [1.00, 1.00]" in lines


def test_what_diverges_is_ranked_last():
    cells = trained(50, 55, 60)
    answers = [
        Answer("published-0", 100, cell.name, "turn", loss)
        for cell, loss in zip(cells, (None, 9.0, 1.0), strict=True)
    ]
    assert any("| turn | 1.00 [" in line for line in ranking_table(cells, answers))


def test_how_far_apart_cells_are_and_one_cell_that_is_asked_twice():
    def answers(search, *losses):
        return [Answer(search, 100, "member", "turn", loss) for loss in losses]

    populations = {
        "a-0": [answers("a-0", 1.0, 1.2), answers("a-0", 2.0, 2.2)],
        "a-1": [answers("a-1", 11.0, 11.2), answers("a-1", 12.0, None, 12.2)],  # one diverged
        "a-2": [[], []],  # not asked yet
    }
    # Within: 0.02 a cell. Between: the means are 0.5 off, twice 4 * 0.25 over 3 degrees of freedom.
    row = f"| turn | {((2 * 4 * 0.25 / 3 - 0.02) / 2) ** 0.5:.3f} | {0.02**0.5:.3f} |"
    assert row in noise_table(populations)
    assert noise_table({"a-0": [answers("a-0", 1.0), answers("a-0", 2.0)]}) == []


def test_choices_are_compared_over_searches_that_all_signals_have():
    chosen = {
        "shared": {"a-0": [60.0], "a-1": [62.0], "a-2": [10.0]},
        "turn": {"a-0": [60.0], "a-1": [66.0]},
    }
    lines = choice_table(chosen)
    assert any("of 2 searches" in line for line in lines)
    assert any(line.startswith("| shared | 61.00 [") and line.endswith("| 0 |") for line in lines)
    assert any(line.startswith("| turn | 63.00 [") and line.endswith("| 1 |") for line in lines)
    assert choice_table({}) == choice_table({"shared": {}}) == []


def test_each_signals_choice_is_trained_unless_the_study_trains_it(tmp_path, monkeypatch):
    cells = (NASNet, DARTS_V1, DARTS_V2, DARTS_V2)
    members = {f"a-0-member-{number}": genotype for number, genotype in enumerate(cells)}
    losses = {
        "shared": (1.0, 2.0, 3.0, 3.0),
        "turn": (3.0, None, 2.0, 3.0),
        "turns": (3.0, 3.0, 2.0, 1.0),
    }
    answers = {
        answer[:4]: answer
        for signal, own in losses.items()
        for name, loss in zip(members, own, strict=True)
        for answer in [Answer("a-0", 100, name, signal, loss)]
    }
    started = []

    class FakeStudy(Study):
        def run_to_its_end(self, kind, name, flags):
            started.append((name, flags[2:]))

    monkeypatch.setattr(ranking, "trained_top1", lambda folder: 70.0)
    study = FakeStudy(SimpleNamespace(minutes=None, jobs=1, train_flags="--epochs 2"), tmp_path)
    args = SimpleNamespace(signals=[*losses], trainings=2)
    known = {"a-0": (NASNet, TrainedCell("a-0", Size(1, 1), [61.0, 63.0]))}
    for _ in range(2):  # the second time all is known, without the trainings' folders
        chosen = ranking.train_choices(args, study, answers, {"a-0": members}, known)
        # The last two members are the same cell.
        trained = {"a-0": [70.0, 70.0]}
        assert chosen == {"shared": {"a-0": [61.0, 63.0]}, "turn": trained, "turns": trained}
        assert started == [
            ("a-0-member-2-seed0", ["--seed", "0", "--epochs", "2"]),
            ("a-0-member-2-seed1", ["--seed", "1", "--epochs", "2"]),
        ]
    # The study has not come to it yet.
    known["a-0"] = (NASNet, TrainedCell("a-0", Size(1, 1), []))
    chosen = ranking.train_choices(args, study, answers, {"a-0": members}, known)
    assert chosen == {"shared": {}, "turn": trained, "turns": trained}
    assert len(started) == 2


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """A study with one tiny search and three random cells that are said to be trained."""
    folder = tmp_path / "compare-EXP"
    folder.mkdir()
    flags = [
        "--set", "digits", "--layers", "3", "--init_channels", "2", "--batch_size", "256",
        "--pop_size", "2", "--epochs", "2", "--no-cutout", "--keep_every", "1",
    ]  # fmt: skip
    search = [*flags, "--seed", "0", "--save", folder / "published-0"]
    assert call_script("train_search", search, monkeypatch) == 0
    settings = {
        "script": "search_vs_random.py", "set": "digits", "data": ".", "learner": ["published"],
        "searches": 1, "search_flags": " ".join(flags[2:]), "train_flags": "",
    }  # fmt: skip
    write_json(folder / "settings.json", settings)
    cells = {
        f"random-{number}": {
            "genotype": genotype._asdict(), "parameters": 1, "multiply_adds": number,
            "top1": {"0": 50.0 + number},
        }
        for number, genotype in enumerate((DARTS_V1, NASNet, AmoebaNet))
    }  # fmt: skip
    write_json(folder / "results.json", {"cells": cells})
    return folder


def test_a_study_is_asked_once(searched, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ranking, "genotype_from_dict", lambda record: DARTS_V1)
    arguments = [
        "--study", searched, "--signals", "shared", "turn", "--percent", "100", "50",
        "--trainings", "0", "--save", tmp_path / "ranking" / "EXP",
    ]  # fmt: skip
    assert call_script("benchmarks.ranking", arguments, monkeypatch) == 0
    table = capsys.readouterr().out
    assert "| signal | at 50 % | at 100 % |" in table
    folder = only_folder(tmp_path / "ranking")
    lines = [Answer(*json.loads(x)) for x in (folder / "answers.jsonl").read_text().splitlines()]
    # Two members and two signals at the end; three cells and two signals at two points.
    assert len(lines) == 4 + 12 and all(answer.loss > 0 for answer in lines)
    by_question = {answer[:4]: answer.loss for answer in lines}
    assert len(by_question) == 16
    at_half = by_question["published-0", 50, "random-0", "shared"]
    assert at_half != by_question["published-0", 100, "random-0", "shared"]
    monkeypatch.setattr(ranking, "make_trainer", None)  # nothing is left to ask
    assert call_script("benchmarks.ranking", ["--resume", folder], monkeypatch) == 0
    again = capsys.readouterr().out
    assert again[again.index("| signal") :] == table[table.index("| signal") :]


def test_cells_are_asked_before_they_are_trained(searched, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ranking, "genotype_from_dict", lambda record: DARTS_V1)
    file = searched / "results.json"
    trained = json.loads(file.read_text())
    untrained = {name: cell | {"top1": {}} for name, cell in trained["cells"].items()}
    write_json(file, {"cells": untrained})
    arguments = ["--study", searched, "--signals", "shared", "--percent", "50"]
    arguments += ["--trainings", "0", "--save", tmp_path / "ranking" / "EXP"]
    assert call_script("benchmarks.ranking", arguments, monkeypatch) == 0
    assert "no random cell of the study has been trained yet" in capsys.readouterr().out
    folder = only_folder(tmp_path / "ranking")
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 2 + 3
    write_json(file, trained)
    monkeypatch.setattr(ranking, "make_trainer", None)  # nothing is left to ask
    assert call_script("benchmarks.ranking", ["--resume", folder], monkeypatch) == 0
    assert "over 3 random cells" in capsys.readouterr().out


def test_turns_that_signals_share_are_taken_once(monkeypatch):
    trainer = make_trainer()
    search_args = parse_arguments(["--set", "digits", "--epochs", "4", "--grad_clip", "1"])
    signals = ["turn", "annealed", "turns", "shared", "middle"]
    alone = {
        name: ranking.losses_by_signal(search_args, trainer, [name], DARTS_V1, 3, 5)[name]
        for name in signals
    }
    assert len({*alone.values()}) == 5
    taken = []
    take_turn = trainer.take_turn
    monkeypatch.setattr(trainer, "take_turn", lambda *turn: taken.append(turn) or take_turn(*turn))
    assert ranking.losses_by_signal(search_args, trainer, signals, DARTS_V1, 3, 5) == alone
    assert len(taken) == 4


def test_final_populations_are_asked_before_anything_is_trained(
    searched, tmp_path, monkeypatch, capsys
):
    (searched / "results.json").unlink()
    arguments = ["--study", searched, "--signals", "shared", "--save", tmp_path / "ranking" / "EXP"]
    assert call_script("benchmarks.ranking", arguments, monkeypatch) == 0
    assert "the study is still searching" in capsys.readouterr().out
    lines = (only_folder(tmp_path / "ranking") / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)[2] for line in lines] == [f"published-0-member-{n}" for n in (0, 1)]


def test_a_search_without_weight_sets_is_named_and_left_out(searched, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "genotype_from_dict", lambda record: DARTS_V1)
    arguments = ["--study", searched, "--signals", "shared", "--percent", "100"]
    arguments += ["--trainings", "0", "--save", tmp_path / "ranking" / "EXP"]
    assert call_script("benchmarks.ranking", arguments, monkeypatch) == 0
    folder = only_folder(tmp_path / "ranking")
    answers = folder / "answers.jsonl"
    lines = answers.read_text().splitlines(keepends=True)
    answers.write_text("".join(lines[:2]))  # those of the final population
    for path in searched.glob("search-*/weight_set-*.pt"):
        path.unlink()
    assert call_script("benchmarks.ranking", ["--resume", folder], monkeypatch) == 0
    assert answers.read_text() == "".join(lines[:2])
    assert "published-0 has no weight sets left" in (folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"), [([], "--study"), (["--study", "."], "not a run folder")]
)
def test_what_is_no_study(arguments, expected, tmp_path, monkeypatch, capsys):
    arguments = [*arguments, "--save", tmp_path / "EXP"]
    assert call_script("benchmarks.ranking", arguments, monkeypatch) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_weight_sets_that_were_not_kept_are_asked_for_in_one_line(
    searched, tmp_path, monkeypatch, capsys
):
    arguments = ["--study", searched, "--percent", "33", "--save", tmp_path / "ranking" / "EXP"]
    (folder,) = searched.glob("search-*")
    (folder / "weight_set-generation-1.pt").unlink()
    arguments += ["--signals", "shared"]
    assert call_script("benchmarks.ranking", arguments, monkeypatch) == 2
    assert "--keep_every" in capsys.readouterr().err
