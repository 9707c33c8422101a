"""What can be resumed, and by whom."""

import pytest
from helpers import (
    TINY_TRAINING,
    call_script,
    history_without_seconds,
    only_folder,
    run_to_the_end,
    write_small_set,
)

from genotypes import DARTS_V2, save_genotype


@pytest.fixture(scope="module")
def uninterrupted_search(tmp_path_factory):
    parent = tmp_path_factory.mktemp("search")
    small = write_small_set(tmp_path_factory.mktemp("data"))
    arguments = [*small, "--pop_size", "2", "--epochs", "1", "--save", parent / "whole"]
    run_to_the_end("train_search", arguments)
    return only_folder(parent)


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
