"""How well signals rank cells: the correlation by hand, the tables, and the benchmark's runs."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import call_script, only_folder
from test_candidate import make_trainer

from benchmarks import ranking
from benchmarks.ranking_report import Answer, choice_table, kendall, ranking_table
from benchmarks.study import Study
from benchmarks.study_statistics import TrainedCell
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


def rows_of(lines):
    """The cells of tables' rows."""
    rows = [line.strip("| ").split("|") for line in lines if line.startswith("|")]
    return [[column.strip() for column in row] for row in rows]


def test_a_signal_that_knows_everything_and_one_that_knows_nothing():
    cells = trained(50, 52, 54, 56, 58, 60)
    answers = [
        Answer("published-0", 100, cell.name, signal, loss)
        for cell, other in zip(cells, (3, 1, 4, 0, 2, 5), strict=True)
        for signal, loss in (("good", 100 - cell.mean), ("other", other), ("bad", cell.mean))
    ]
    answers.append(Answer("published-0", 50, "random-0", "good", 1.0))  # not all were asked there
    lines = ranking_table(cells, answers)
    header, _, *rows = rows_of(lines)
    assert header[:4] == ["learner", "signal", "at 50 %", "at 100 %"]
    good, other, bad = rows
    assert good == ["published", "good", "", "1.00 [1.00, 1.00], 1", "0.00 [0.00, 0.00]"]
    assert bad[3].startswith("-1.00 [") and bad[4].startswith("-2.00 [")
    low, high = (float(x) for x in other[3].split("[")[1].split("]")[0].split(","))
    assert low < 0 < high
    assert "parameters alone: -1.00 [-1.00, -1.00]" in lines
    assert "multiply-adds alone: 1.00 [1.00, 1.00]" in lines
    assert not any("first training" in line for line in lines)
    twice = [cell._replace(top1=[cell.mean, 100 - cell.mean]) for cell in cells]
    lines = ranking_table(twice, answers)
    assert "the first training with the second: -1.00 [-1.00, -1.00]" in lines


def test_a_signal_that_only_knows_the_size_is_not_ahead_of_it():
    cells = trained(50, 56, 52, 54, 60, 58)
    answers = [Answer("a-0", 100, cell.name, "size", -cell.size.multiply_adds) for cell in cells]
    (row,) = rows_of(ranking_table(cells, answers))[2:]
    assert row[2].startswith("0.60 [") and "0.60]" not in row[2]
    assert row[3] == "0.00 [0.00, 0.00]"  # the cells drawn are the same ones for both


def test_searches_are_averaged_by_learner():
    cells = trained(50, 55, 60)
    answers = [
        Answer(search, 100, cell.name, "shared", sign * cell.mean)
        for search, sign in (("a-0", -1), ("a-1", 1), ("b-0", 1))
        for cell in cells
    ]
    rows = rows_of(ranking_table(cells, answers))[2:]
    assert [row[0] for row in rows] == ["a", "b"]
    assert rows[0][2].startswith("0.00 [") and rows[0][2].endswith("], 2")
    assert rows[1][2].startswith("-1.00 [") and rows[1][2].endswith("], 1")


def test_what_diverges_is_ranked_last():
    cells = trained(50, 55, 60)
    answers = [
        Answer("published-0", 100, cell.name, "turn", loss)
        for cell, loss in zip(cells, (None, 9.0, 1.0), strict=True)
    ]
    assert rows_of(ranking_table(cells, answers))[2][2].startswith("1.00 [")
    assert ranking_table(cells[:2], answers) == []


def test_choices_are_compared_over_searches_that_all_signals_have():
    def cell(name, *top1):
        return TrainedCell(name, Size(1, 8_000_000), list(top1))

    chosen = {
        "shared": {
            "a-0": cell("a-0-member-0", 60.0),
            "a-1": cell("a-1-member-0", 62.0),
            "a-2": cell("a-2-member-0", 10.0),
            "b-0": cell("b-0-member-0", 50.0),
        },
        "turn": {
            "a-0": cell("a-0-member-0", 60.0),
            "a-1": cell("a-1-member-3", 66.0, 64.0),
            "b-0": cell("b-0-member-1", 51.0),
        },
    }
    chance = trained(55, 55, 58, 58)
    lines = choice_table(chosen, chance, {"shared": 1.0, "turn": 1.125})
    shared, turn, *others = rows_of(lines)[2:]
    assert shared[:4] == ["a", "2", "shared", "1.00"] and shared[4].startswith("61.00 [")
    assert shared[6:8] == ["", "0"]
    assert turn[:4] == ["a", "2", "turn", "1.12"] and turn[4].startswith("62.50 [")
    assert turn[5] == "8.0 (8.0 to 8.0)"
    assert turn[6].startswith("1.50 [") and turn[7] == "1"
    assert "[" in turn[8] and "[" in turn[9]
    assert [row[:5] for row in others] == [
        ["b", "1", "shared", "1.00", "50.00"], ["b", "1", "turn", "1.12", "51.00"],
    ]  # fmt: skip
    assert choice_table({}, chance, {}) == choice_table({"shared": {}}, chance, {}) == []


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
    settings = {"set": "digits", "minutes": None, "jobs": 1, "search_flags": ""}
    study = FakeStudy(SimpleNamespace(**settings, train_flags="--epochs 2"), tmp_path)
    args = SimpleNamespace(signals=[*losses], trainings=2)
    known = {"a-0": (NASNet, TrainedCell("a-0", Size(1, 1), [61.0, 63.0]))}
    for _ in range(2):  # the second time all is known, without the trainings' folders
        chosen = ranking.train_choices(args, study, study, answers, {"a-0": members}, known)
        # The last two members are the same cell.
        top1 = {
            signal: {search: cell.top1 for search, cell in own.items()}
            for signal, own in chosen.items()
        }
        trained = {"a-0": [70.0, 70.0]}
        assert top1 == {"shared": {"a-0": [61.0, 63.0]}, "turn": trained, "turns": trained}
        assert chosen["turn"]["a-0"].name == "a-0-member-2"
        assert chosen["turn"]["a-0"].size.multiply_adds > 1e6
        assert started == [
            ("a-0-member-2-seed0", ["--seed", "0", "--epochs", "2"]),
            ("a-0-member-2-seed1", ["--seed", "1", "--epochs", "2"]),
        ]
    # The study has not come to it yet.
    known["a-0"] = (NASNet, TrainedCell("a-0", Size(1, 1), []))
    chosen = ranking.train_choices(args, study, study, answers, {"a-0": members}, known)
    assert not chosen["shared"] and chosen["turn"]["a-0"].top1 == trained["a-0"]
    assert len(started) == 2


@pytest.fixture
def searched(searched_once, tmp_path):
    """A study with one tiny search and three random cells that are said to be trained."""
    return shutil.copytree(searched_once, tmp_path / "compare-EXP")


@pytest.fixture(scope="module")
def searched_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare-EXP")
    flags = [
        "--set", "digits", "--layers", "3", "--init_channels", "2", "--batch_size", "256",
        "--pop_size", "2", "--epochs", "2", "--no-cutout", "--keep_every", "1",
    ]  # fmt: skip
    search = [*flags, "--seed", "0", "--save", folder / "published-0"]
    with pytest.MonkeyPatch.context() as monkeypatch:
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
    assert "| learner | signal | at 50 % | at 100 % |" in table
    folder = only_folder(tmp_path / "ranking")
    lines = [Answer(*json.loads(x)) for x in (folder / "answers.jsonl").read_text().splitlines()]
    # Two members and two signals at the end; three cells and two signals at two points.
    assert len(lines) == 4 + 12 and all(answer.loss > 0 for answer in lines)
    by_question = {answer[:4]: answer.loss for answer in lines}
    assert len(by_question) == 16
    at_half = by_question["published-0", 50, "random-0", "shared"]
    assert at_half != by_question["published-0", 100, "random-0", "shared"]
    # The three cells are the same one here, and all see the same batches.
    assert len({loss for q, loss in by_question.items() if q[1] == 50 and q[3] == "turn"}) == 1
    monkeypatch.setattr(ranking, "make_trainer", None)  # nothing is left to ask
    assert call_script("benchmarks.ranking", ["--resume", folder], monkeypatch) == 0
    again = capsys.readouterr().out
    assert again[again.index("| learner") :] == table[table.index("| learner") :]


def test_cells_are_asked_before_they_are_trained(searched, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ranking, "genotype_from_dict", lambda record: DARTS_V1)
    file = searched / "results.json"
    trained = json.loads(file.read_text())
    untrained = {name: cell | {"top1": {}} for name, cell in trained["cells"].items()}
    write_json(file, {"cells": untrained})
    # At half of the search it is too early for the signal that is for its end.
    arguments = ["--study", searched, "--signals", "shared", "annealed", "--percent", "50"]
    arguments += ["--trainings", "0", "--save", tmp_path / "ranking" / "EXP"]
    assert call_script("benchmarks.ranking", arguments, monkeypatch) == 0
    assert "Kendall" not in capsys.readouterr().out
    folder = only_folder(tmp_path / "ranking")
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 2 * 2 + 3
    write_json(file, trained)
    monkeypatch.setattr(ranking, "make_trainer", None)  # nothing is left to ask
    assert call_script("benchmarks.ranking", ["--resume", folder], monkeypatch) == 0
    assert "over 3 random cells" in capsys.readouterr().out


def test_a_cell_that_a_population_holds_twice_is_asked_once(monkeypatch):
    cells = (NASNet, DARTS_V1, NASNet, DARTS_V2)
    history = SimpleNamespace(population=[SimpleNamespace(genotype=cell) for cell in cells])
    monkeypatch.setattr(ranking, "read_run", lambda folder: history)
    assert ranking.final_population("a-0", None) == {
        "a-0-member-0": NASNet, "a-0-member-1": DARTS_V1, "a-0-member-3": DARTS_V2,
    }  # fmt: skip


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
    answers.write_text(lines[0])  # one of the two of the final population
    for path in searched.glob("search-*/weight_set-*.pt"):
        path.unlink()
    assert call_script("benchmarks.ranking", ["--resume", folder], monkeypatch) == 0
    assert answers.read_text() == lines[0]
    log = (folder / "log.txt").read_text()
    assert log.count("published-0 has no weight sets left") == 2
    assert "to ask about 1 cell(s)" in log


@pytest.mark.parametrize(("flags", "data"), [([], "."), (["--data", "/moved"], "/moved")])
def test_the_images_are_the_studys_or_where_they_were_moved(
    flags, data, searched, tmp_path, monkeypatch
):
    seen = []
    costs = ranking.costs
    monkeypatch.setattr(
        ranking, "costs", lambda args, study: seen.append(study.args) or costs(args, study)
    )
    arguments = ["--study", searched, "--signals", "shared", "--minutes", "0", *flags]
    arguments += ["--save", tmp_path / "ranking" / "EXP"]
    assert call_script("benchmarks.ranking", arguments, monkeypatch) == 0
    assert seen[0].data == data


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
