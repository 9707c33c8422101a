"""Run folders: never overwritten, locked while in use, and saved to without half-written files."""

import json

import pytest
import torch

from checkpoint import load_checkpoint, save_checkpoint
from errors import UserError
from run_folder import RunFolder


def test_two_runs_of_the_same_second_get_different_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda pattern: "20261124-101010")
    folders = [RunFolder.create("search", str(tmp_path / "EXP"), {"n": n}) for n in range(3)]
    names = [folder.path.name for folder in folders]
    assert names == [
        "search-EXP-20261124-101010",
        "search-EXP-20261124-101010-2",
        "search-EXP-20261124-101010-3",
    ]
    assert json.loads((folders[0].path / "settings.json").read_text()) == {"n": 0}


def test_a_folder_in_use_is_refused(tmp_path):
    run = RunFolder.create("search", str(tmp_path / "EXP"), {})
    with pytest.raises(UserError, match="another process is running"):
        RunFolder.reopen(str(run.path))
    run.close()
    RunFolder.reopen(str(run.path)).close()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder.reopen(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_history_is_cut_back_to_what_the_checkpoint_counts(tmp_path):
    run = RunFolder.create("search", str(tmp_path / "EXP"), {})
    run.append_history({"pair": 0})
    run.append_history({"pair": 1})
    assert run.truncate_history(1) == run.read_history() == [{"pair": 0}]
    run.append_history({"pair": 2})
    assert run.read_history() == [{"pair": 0}, {"pair": 2}]


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint({"epoch": 1}, path)
    with pytest.raises(AttributeError):
        save_checkpoint({"epoch": lambda: None}, path)  # cannot be pickled
    assert load_checkpoint(path) == {"epoch": 1}


def test_a_checkpoint_never_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    path = tmp_path / "evil.pt"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(UserError, match=r"evil\.pt.*never loaded"):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()
