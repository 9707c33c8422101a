"""Runs killed at any moment, or asked to stop, end as the uninterrupted one does, bit for bit."""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helpers import (
    STOPPED,
    TINY_IMAGENET,
    ask_to_stop,
    kill_with_children,
    only_folder,
    start_script,
    write_image_folder,
)
from kill_harness import FileWatch, Moment, Script, assert_same_run, at_step, resumable

import train
from training import classification
from training.trained_network import DESCRIPTION, check_description

KILLS = 32
"""For each script, in the long test."""

FRESH_KILLS = 8
"""How many of them are of processes that a shell would start, not of forks."""

TINY = ["--image_size", "8", "--layers", "3", "--init_channels", "2", "--drop_path_prob", "0.2"]


@dataclass
class Case:
    """A script, and its uninterrupted run.

    Attributes:
        script, arguments, processes: as for `Script`.
        newest: the name of its checkpoint.
        epochs: of the training, or generations.
        steps: training steps of each.
        whole: the run's folder.
        seconds: how long it took.
        operations: how often it did something to a file.
    """

    script: str
    arguments: list[object]
    processes: int
    newest: str
    epochs: int
    steps: int
    whole: Path | None = None
    seconds: float = 0.0
    operations: int = 0

    def start(self, parent: Path, prepare: Callable[[int], None] = lambda rank: None) -> Script:
        """Start it in the folder `parent`, or go on with what is there."""
        return Script(self.script, self.command(parent), parent, self.processes, prepare)

    def start_fresh(self, parent: Path) -> subprocess.Popen:
        """The same in processes that are not forks."""
        torchrun = 0 if self.processes == 1 else self.processes
        return start_script(self.script, self.command(parent), torchrun)

    def command(self, parent: Path) -> list[object]:
        """The arguments for that."""
        begun = resumable(parent)
        return ["--resume", begun[-1]] if begun else [*self.arguments, "--save", parent / "EXP"]


def make_case(script: str, data: Path) -> Case:
    images = {"train": {"a": 21, "b": 20}, "val": {"a": 5, "b": 6}}
    write_image_folder(data, images, size=8)
    tiny = [*TINY, "--set", "folder", "--data", data]
    if script == "train_search":
        arguments = [*tiny, "--pop_size", "4", "--epochs", "2", "--batch_size", "20"]
        return Case(script, arguments, 1, "checkpoint.pt", 2, 4)
    if script == "train":
        return Case(script, [*tiny, "--epochs", "2", "--batch_size", "8"], 1, "last.pt", 2, 5)
    arguments = [*TINY_IMAGENET, *TINY, "--epochs", "2", "--workers", "1", "--data_path", data]
    return Case(script, arguments, 2, "last.pt", 2, 5)


@pytest.fixture(scope="module", params=["train_search", "train", "train_imagenet"])
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    case = make_case(request.param, folder / "data")
    parent = folder / "whole"
    parent.mkdir()
    watch = FileWatch(parent)
    started = time.monotonic()
    case.start(parent, watch).finish()
    case.seconds, case.operations = time.monotonic() - started, watch.count
    case.whole = only_folder(parent)
    return case


@pytest.fixture
def parent(tmp_path):
    parent = tmp_path / "runs"
    parent.mkdir()
    return parent


def killed_at(case, parent, moment):
    """Run until `moment`; says whether it came."""
    script = case.start(parent, FileWatch(parent, moment))
    status, *others = script.wait()
    assert status in (0, -signal.SIGKILL), script.read_output()
    if status and others:
        assert others == [2]
        assert "error: another process of this run has ended" in script.read_output()
    return status != 0


def test_killed_while_it_writes_its_files(case, parent):
    """Half of a checkpoint is there; one is whole, but not in place; a part of a line of history;
    and one moment drawn at random."""
    for moment in (
        Moment("fsync", f"{case.newest}.*.tmp", 2),
        Moment("os.rename", f"{case.newest}.*.tmp", 1),
        Moment("fsync", "history.jsonl", 1),
        Moment(None, "*", random.Random(case.script).randint(1, 8)),
    ):
        assert killed_at(case, parent, moment)
    case.start(parent).finish()
    assert_same_run(only_folder(parent), case.whole)


def stop_group(number):
    """Have a shell send a signal to this process and to its workers."""
    subprocess.run(["sh", "-c", f"kill -s {signal.Signals(number).name[3:]} -- -{os.getpgrp()}"])


def stop_half_way(case, parent, number):
    """Run to a step in the middle of the second epoch, of the third turn in the search.

    Of two processes only the second one gets the signal, and with it its workers, as when a
    cluster manager stops a job. It gets it twice, for torchrun passes on what comes anyway.
    """
    step = case.epochs * case.steps // 2 + 2

    def stop():
        for _ in range(case.processes):
            stop_group(number)

    script = case.start(parent, at_step(step, stop, rank=case.processes - 1))
    assert script.wait() == [128 + number] * case.processes
    return script.read_output()


@pytest.mark.parametrize(
    ("case", "number"),
    [
        ("train_search", signal.SIGTERM),
        ("train", signal.SIGTERM),
        ("train", signal.SIGINT),
        ("train_imagenet", signal.SIGINT),
    ],
    indirect=["case"],
)
def test_a_signal_lets_the_step_be_finished_and_saves(case, number, parent):
    output = stop_half_way(case, parent, number)
    folder = only_folder(parent)
    assert output.count("stopped by") == 1
    launcher = "" if case.processes == 1 else f"torchrun --nproc-per-node {case.processes} "
    assert f"go on with: {launcher}" in output
    assert f"{case.script}.py --resume {folder}\n" in output
    assert f"stopped by {number.name}" in (folder / "log.txt").read_text()
    state = torch.load(folder / case.newest)
    if case.script == "train_search":
        assert state["history_length"] == 2
    else:
        # With several processes the answer is one step old.
        assert state["epoch"] == 1
        assert state["epoch_so_far"]["step"] == 2 + case.processes - 1
    case.start(parent).finish()
    assert_same_run(folder, case.whole)


@pytest.mark.parametrize("case", ["train"], indirect=True)
def test_a_second_ctrl_c_ends_at_once(case, parent):
    def press_twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    script = case.start(parent, at_step(3, press_twice))
    assert script.wait() == [-signal.SIGINT]
    assert not (only_folder(parent) / "last.pt").exists()


@pytest.mark.parametrize("case", ["train"], indirect=True)
def test_a_folder_that_goes_away_ends_the_run(case, parent):
    """And a stop in the first epoch leaves a checkpoint that test.py takes."""
    script = case.start(parent, at_step(3, ask_to_stop))
    assert script.wait() == [STOPPED]
    folder = only_folder(parent)
    description = torch.load(folder / "last.pt")
    assert description["epoch"] == 0
    check_description({name: description[name] for name in DESCRIPTION if name in description})
    script = case.start(parent, at_step(3, lambda: shutil.rmtree(folder)))
    assert script.wait() == [2]
    assert f"error: {folder}/" in script.read_output()


@pytest.mark.parametrize("case", ["train"], indirect=True)
def test_a_signal_while_it_loads_ends_at_once(case, parent):
    def signalled_in_loading(rank):
        train.load_image_set = lambda *_: ask_to_stop()

    script = case.start(parent, signalled_in_loading)
    assert script.wait() == [STOPPED]
    assert "stopped by SIGTERM; all that was finished is saved; go on" in script.read_output()
    case.start(parent).finish()
    assert_same_run(only_folder(parent), case.whole)


@pytest.mark.parametrize("case", ["train_imagenet"], indirect=True)
def test_a_signal_while_it_validates(case, parent):
    def signalled_in_validation(rank):
        evaluate = classification.evaluate

        def signal_and_evaluate(*arguments):
            stop_group(signal.SIGTERM)
            return evaluate(*arguments)

        if rank == 1:
            classification.evaluate = signal_and_evaluate

    script = case.start(parent, signalled_in_validation)
    assert script.wait() == [STOPPED] * 2
    state = torch.load(only_folder(parent) / "last.pt")
    assert (state["epoch"], state["epoch_so_far"]["step"]) == (0, case.steps)
    command = [*case.command(parent), "--workers", "0"]
    Script(case.script, command, parent, case.processes).finish()
    assert_same_run(only_folder(parent), case.whole)


@pytest.mark.parametrize("case", ["train_search", "train"], indirect=True)
def test_a_disk_without_room(case, parent):
    """No file may grow beyond 20 kB, less than a checkpoint has. Python gets the error, not the
    signal."""
    stop_half_way(case, parent, signal.SIGTERM)
    folder = only_folder(parent)
    before = {path.name: path.read_bytes() for path in folder.glob("*.pt")}

    def leave_little_room(rank):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    script = case.start(parent, leave_little_room)
    assert script.wait() == [2]
    error = script.read_output().splitlines()[-1]
    assert error.startswith(f"error: {folder}/") and "File too large; what was saved" in error
    assert error.endswith(f"{case.script}.py --resume {folder}")
    assert {path.name: path.read_bytes() for path in folder.glob("*.pt*")} == before
    case.start(parent).finish()
    assert_same_run(folder, case.whole)


@pytest.mark.parametrize("case", ["train_search", "train"], indirect=True)
def test_a_damaged_checkpoint(case, parent):
    stop_half_way(case, parent, signal.SIGTERM)
    newest = only_folder(parent) / case.newest
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    output = case.start(parent).finish()
    assert f"warning: checkpoint {newest}: damaged (its checksum is wrong); going on from" in output
    assert newest.with_stem(f"{newest.stem}.damaged").read_bytes() == content
    newest.with_stem(f"{newest.stem}.damaged").unlink()
    assert_same_run(only_folder(parent), case.whole)


@pytest.mark.parametrize("case", ["train_imagenet"], indirect=True)
def test_a_worker_that_dies_ends_the_run(case, parent):
    def kill_worker():
        for worker in multiprocessing.active_children():
            worker.kill()

    script = case.start(parent, at_step(2, kill_worker, rank=1))
    assert script.wait() == [2, 2]
    assert "error: a process that decodes images has died" in script.read_output()


@pytest.mark.stress
def test_killed_at_many_random_moments(case, tmp_path, capsys):
    """Each run is killed up to three times, in its first process and in resumed ones, at a random
    time or at a random thing it does to a file; then it is resumed to its end."""
    draw = random.Random(case.script)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    started = time.monotonic()
    case.start_fresh(fresh).communicate()
    fresh_seconds = time.monotonic() - started
    assert_same_run(only_folder(fresh), case.whole)
    kills = Counter()
    runs = 0
    while kills.total() < KILLS:
        parent = tmp_path / str(runs)
        parent.mkdir()
        for _ in range(draw.randint(1, 3)):
            if kills["fresh processes"] < FRESH_KILLS and draw.random() < 0.3:
                process = case.start_fresh(parent)
                try:
                    process.communicate(timeout=draw.uniform(0, fresh_seconds))
                except subprocess.TimeoutExpired:
                    kill_with_children(process)
                    kills["fresh processes"] += process.returncode == -signal.SIGKILL
            elif draw.random() < 0.6:
                moment = Moment(None, "*", draw.randint(1, case.operations))
                kills["at a file"] += killed_at(case, parent, moment)
            else:
                script = case.start(parent)
                time.sleep(draw.uniform(0, case.seconds))
                # One process can die alone once they have found each other.
                alone = draw.random() < 0.5 and resumable(parent)
                victims = [draw.choice(script.processes)] if alone else script.processes
                for process in victims:
                    process.kill()
                script.wait()
                kills["at a time"] += victims[0].exitcode == -signal.SIGKILL
        case.start(parent).finish()
        assert_same_run(resumable(parent)[-1], case.whole)
        runs += 1
    with capsys.disabled():
        print(
            f"\n{case.script}: {kills.total()} kills {dict(kills)} in {runs} runs, "
            "all equal to the uninterrupted one"
        )
