"""A run killed with SIGKILL and resumed ends as the uninterrupted one does, bit for bit."""

import json

import pytest
import torch
from helpers import (
    TINY_SEARCH,
    TINY_TRAINING,
    assert_same_tensors,
    call_script,
    history_without_seconds,
    kill_when,
    only_folder,
    start_script,
)

from genotypes import DARTS_V2, save_genotype


def history_lines(parent):
    files = list(parent.glob("*/history.jsonl"))
    return len(files[0].read_text().splitlines()) if files else 0


@pytest.fixture(scope="module")
def uninterrupted_search(tmp_path_factory):
    parent = tmp_path_factory.mktemp("search")
    process = start_script("train_search", [*TINY_SEARCH, "--save", parent / "whole"])
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return only_folder(parent)


@pytest.mark.parametrize("pairs_done", [0, 1, 3])
def test_search_killed_and_resumed(pairs_done, uninterrupted_search, tmp_path, monkeypatch):
    process = start_script("train_search", [*TINY_SEARCH, "--save", tmp_path / "killed"])
    if pairs_done:
        kill_when(process, lambda: history_lines(tmp_path) >= pairs_done)
    else:
        kill_when(process, lambda: list(tmp_path.glob("*/statistics.json")))
    folder = only_folder(tmp_path)
    assert not (folder / "genotype.json").exists()
    process = start_script("train_search", ["--resume", folder])
    output = process.communicate()[0]
    assert process.returncode == 0, output
    for name in ("genotype.json", "population.json", "statistics.json"):
        assert (folder / name).read_text() == (uninterrupted_search / name).read_text()
    assert history_without_seconds(folder) == history_without_seconds(uninterrupted_search)
    assert_same_tensors(
        torch.load(folder / "weight_set.pt")["state_dict"],
        torch.load(uninterrupted_search / "weight_set.pt")["state_dict"],
    )


def test_history_tells_what_the_issue_asks_for(uninterrupted_search):
    records = history_without_seconds(uninterrupted_search)
    assert [(record["generation"], record["pair"]) for record in records] == [
        (0, 0), (0, 1), (1, 0), (1, 1)
    ]  # fmt: skip
    for generation in (0, 1):
        members = [m for r in records if r["generation"] == generation for m in r["members"]]
        assert sorted(members) == [0, 1, 2, 3]
    for record in records:
        first, second = record["losses"]
        assert record["slow"] == record["members"][1 if first <= second else 0]
        assert set(record["genotypes"][0]) == {
            "normal", "normal_concat", "reduce", "reduce_concat"
        }  # fmt: skip
        assert all(0 <= accuracy <= 100 for accuracy in record["accuracies"])


def test_the_best_of_the_final_population_is_written(uninterrupted_search):
    population = json.loads((uninterrupted_search / "population.json").read_text())
    best = min(population, key=lambda member: member["loss"])
    assert len(population) == 4
    assert json.loads((uninterrupted_search / "genotype.json").read_text()) == best["genotype"]


def without_tensors(checkpoint):
    return {
        name: value for name, value in checkpoint.items() if name not in ("state_dict", "optimizer")
    }


def test_training_killed_and_resumed(tmp_path):
    folders = {}
    for name in ("whole", "killed"):
        parent = tmp_path / name
        parent.mkdir()
        process = start_script("train", [*TINY_TRAINING, "--save", parent / "run"])
        if name == "killed":
            kill_when(process, lambda parent=parent: list(parent.glob("*/last.pt")))
            (folder,) = parent.iterdir()
            process = start_script("train", ["--resume", folder])
        output = process.communicate()[0]
        assert process.returncode == 0, output
        folders[name] = only_folder(parent)
    assert history_without_seconds(folders["killed"]) == history_without_seconds(folders["whole"])
    for file in ("last.pt", "best.pt"):
        killed, whole = (torch.load(folders[name] / file) for name in ("killed", "whole"))
        assert_same_tensors(killed["state_dict"], whole["state_dict"])
        assert without_tensors(killed) == without_tensors(whole)
    momentum = [
        torch.load(folders[name] / "last.pt")["optimizer"]["state"][0]["momentum_buffer"]
        for name in ("killed", "whole")
    ]
    assert torch.equal(*momentum)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--layers", "4"], "--layers was 3"), (["--learning_rate", "0.5"], "--learning_rate was")],
)
def test_settings_cannot_change_on_resume(
    arguments, message, uninterrupted_search, monkeypatch, capsys
):
    arguments = ["--resume", str(uninterrupted_search), *arguments]
    assert call_script("train_search", arguments, monkeypatch) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train", "train_imagenet"])
def test_a_run_is_resumed_by_its_own_script(script, uninterrupted_search, monkeypatch, capsys):
    before = (uninterrupted_search / "history.jsonl").read_text()
    assert call_script(script, ["--resume", str(uninterrupted_search)], monkeypatch) == 2
    assert "was made by train_search.py" in capsys.readouterr().err
    assert (uninterrupted_search / "history.jsonl").read_text() == before


def test_training_stopped_in_its_first_epoch_begins_again(tmp_path, monkeypatch):
    arguments = [*TINY_TRAINING, "--epochs", "1", "--save", tmp_path / "run"]
    assert call_script("train", arguments, monkeypatch) == 0
    folder = only_folder(tmp_path)
    before = history_without_seconds(folder)
    (folder / "last.pt").unlink()
    assert call_script("train", ["--resume", folder], monkeypatch) == 0
    assert history_without_seconds(folder) == before


def test_training_resumes_from_anywhere_without_its_genotype_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_genotype(DARTS_V2, "mine.json")
    arguments = [*TINY_TRAINING, "--epochs", "1", "--arch", "mine.json", "--save", "runs/run"]
    assert call_script("train", arguments, monkeypatch) == 0
    folder = only_folder(tmp_path / "runs").resolve()
    (tmp_path / "mine.json").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call_script("train", ["--resume", folder], monkeypatch) == 0
