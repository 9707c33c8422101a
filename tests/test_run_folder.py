"""Run folders: never overwritten, locked while in use, and usable when the disk is full."""

import contextlib
import json
import os
import signal
import time

import pytest
from helpers import read_history
from kill_harness import FORK, start_forks

from runtime.errors import UserError
from runtime.run_folder import RunFolder


def test_two_runs_of_the_same_second_get_different_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda pattern: "20261124-101010")
    all_here = FORK.Barrier(4)

    def create(_):
        all_here.wait()
        RunFolder.create("search", str(tmp_path / "EXP"), {"process": os.getpid()}).close()

    processes = start_forks(4, create)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    stem = "search-EXP-20261124-101010"
    assert names == [stem, f"{stem}-2", f"{stem}-3", f"{stem}-4"]
    settings = [json.loads((tmp_path / name / "settings.json").read_text()) for name in names]
    assert {s["process"] for s in settings} == {process.pid for process in processes}


def test_a_folder_in_use_is_refused_until_its_process_is_killed(tmp_path):
    """Even if a process that the killed one has forked, as loaders do, lives on."""
    folder = RunFolder.create("search", str(tmp_path / "EXP"), {})
    folder.close()
    orphan = FORK.Value("i", 0)

    def run_with_a_worker(_):
        RunFolder.reopen(str(folder.path))
        if child := os.fork():
            orphan.value = child
        time.sleep(60)

    (process,) = start_forks(1, run_with_a_worker)
    while not orphan.value:
        time.sleep(0.01)
    with pytest.raises(UserError, match="another process is running in this folder"):
        RunFolder.reopen(str(folder.path))
    process.kill()
    process.join()
    os.kill(orphan.value, 0)  # it is there
    RunFolder.reopen(str(folder.path)).close()
    os.kill(orphan.value, signal.SIGKILL)


def test_only_the_folder_of_a_run_that_could_not_begin_is_removed(tmp_path):
    unused = RunFolder.create("search", str(tmp_path / "EXP"), {})
    unused.log.info("a line")
    unused.discard()
    assert not list(tmp_path.iterdir())
    with_users_file = RunFolder.create("search", str(tmp_path / "EXP"), {})
    (with_users_file.path / "notes.txt").write_text("mine")
    with_users_file.discard()
    assert (with_users_file.path / "settings.json").exists()
    assert (with_users_file.path / "notes.txt").exists()
    RunFolder.reopen(str(with_users_file.path)).discard()
    (with_users_file.path / "notes.txt").unlink()
    RunFolder.reopen(str(with_users_file.path)).discard()
    assert (with_users_file.path / "settings.json").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder.reopen(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_history_is_cut_back_to_what_the_checkpoint_counts(tmp_path):
    run = RunFolder.create("search", str(tmp_path / "EXP"), {})
    run.append_history({"pair": 0})
    run.append_history({"pair": 1})
    assert run.truncate_history(1) == read_history(run.path) == [{"pair": 0}]
    run.append_history({"pair": 2})
    assert read_history(run.path) == [{"pair": 0}, {"pair": 2}]


def test_a_history_that_lost_lines_is_refused(tmp_path):
    run = RunFolder.create("search", str(tmp_path / "EXP"), {})
    run.append_history({"pair": 0})
    with pytest.raises(UserError, match=r"history\.jsonl: line 2 is damaged"):
        run.truncate_history(2)
    assert read_history(run.path) == [{"pair": 0}]


def test_a_history_that_cannot_be_written_is_named(tmp_path):
    run = RunFolder.create("search", str(tmp_path / "EXP"), {})
    (run.path / "history.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*history.jsonl"):
        run.append_history({"pair": 0})


def test_a_log_that_cannot_be_written_is_one_warning(tmp_path, capsys):
    folder = RunFolder.create("search", str(tmp_path / "EXP"), {})
    folder.close()
    (folder.path / "log.txt").unlink()
    (folder.path / "log.txt").symlink_to("/dev/full")
    run = RunFolder.reopen(str(folder.path))
    run.log.info("first")
    run.log.info("second")
    run.close()
    output, errors = capsys.readouterr()
    assert "first" in output and "second" in output
    assert errors.count("\n") == 1
    assert "log.txt: No space left on device" in errors


def test_the_log_goes_on_when_nobody_reads_the_output(tmp_path):
    """As after Ctrl-C on `train.py | tee`, which ends tee first."""

    def log_into_a_closed_pipe(_):
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        with open(1, "w") as stdout, contextlib.redirect_stdout(stdout):
            run = RunFolder.create("search", str(tmp_path / "EXP"), {})
            run.log.info("first")
            run.log.info("second")

    (process,) = start_forks(1, log_into_a_closed_pipe)
    process.join()
    assert process.exitcode == 0
    (log,) = tmp_path.glob("*/log.txt")
    assert [line.split()[-1] for line in log.read_text().splitlines()] == ["first", "second"]
