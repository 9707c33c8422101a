"""The scalars that runs log for TensorBoard, read back as TensorBoard does."""

import math
import re
import shlex
import signal
import statistics
import sys
import time

import pytest
from helpers import (
    TINY_IMAGENET,
    call_script,
    history_without_seconds,
    only_folder,
    write_image_folder,
    write_small_set,
)
from kill_harness import FileWatch, Moment, Script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genotypes import genotype_from_dict
from report import page
from report.sizes import target_of
from runtime.settings import read_settings

SEARCH = ["--pop_size", "4", "--epochs", "2"]

TRAINING = ["--epochs", "3"]


@pytest.fixture(autouse=True)
def without_reports(monkeypatch):
    monkeypatch.setattr(page, "write_report", lambda folder: folder)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return write_small_set(tmp_path_factory.mktemp("data"))


def scalars(folder):
    """The scalars in a run folder: {tag: [(step, value), ...]}."""
    accumulator = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def close(pairs):
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in pairs]


def assert_equals_training(folder, epochs):
    logged = scalars(folder)
    records = history_without_seconds(folder)
    assert len(records) == epochs
    for tag, number in {
        "loss/training": lambda record: record["train"]["loss"],
        "loss/validation": lambda record: record["validation"]["loss"],
        "top1/training": lambda record: record["train"]["top1"],
        "top1/validation": lambda record: record["validation"]["top1"],
        "top5/validation": lambda record: record["validation"]["top5"],
        "learning_rate": lambda record: record["learning_rate"],
    }.items():
        assert logged[tag] == close([(r["epoch"] + 1, number(r)) for r in records]), tag
    assert len(logged["images_per_second"]) == len(logged["seconds"]) == epochs


def assert_equals_search(folder, generations):
    logged = scalars(folder)
    records = history_without_seconds(folder)
    expected = {"loss/best": [], "accuracy/best": [], "diversity": []}
    expected |= {"parameters/median": [], "multiply_adds/median": []}
    target = target_of(read_settings(folder))
    for generation in range(generations):
        own = [record for record in records if record["generation"] == generation]
        step = generation + 1
        losses = [loss for record in own for loss in record["losses"]]
        expected["loss/best"].append((step, min(losses)))
        expected["accuracy/best"].append((step, max(a for r in own for a in r["accuracies"])))
        expected["diversity"].append((step, own[-1]["diversity"]))
        genotypes = [genotype_from_dict(g) for record in own for g in record["genotypes"]]
        parameters, multiply_adds = zip(*map(target.size, genotypes), strict=True)
        expected["parameters/median"].append((step, statistics.median(parameters)))
        expected["multiply_adds/median"].append((step, statistics.median(multiply_adds)))
    for tag, pairs in expected.items():
        assert logged[tag] == close(pairs), tag
    for cell in ("normal", "reduce"):
        shares = [values for tag, values in logged.items() if f"operations_{cell}/" in tag]
        assert len(shares) == 7
        for step in range(generations):
            assert math.isclose(sum(values[step][1] for values in shares), 100, rel_tol=1e-5)


def kill_before_second_save(script, arguments, checkpoint, parent):
    """Kill a run as it begins to write its checkpoint for the second time.

    Returns its folder, and what it printed.
    """
    moment = Moment("open", f"{checkpoint}.*.tmp", 2)
    arguments = [*arguments, "--save", parent / "EXP"]
    run = Script(script, arguments, parent, prepare=FileWatch(parent, moment))
    assert run.wait() == [-signal.SIGKILL]
    time.sleep(1)  # TensorBoard reads a folder's files in the order of the seconds in their names
    return only_folder(parent), run.read_output()


def test_a_search_killed_before_its_checkpoint_has_no_step_twice(small_set, tmp_path, monkeypatch):
    folder, output = kill_before_second_save(
        "train_search", [*small_set, *SEARCH], "checkpoint.pt", tmp_path / "runs"
    )
    # The command that shows the curves is printed at the start.
    line = output.splitlines()[0]
    command = shlex.split(re.search(r"TensorBoard: (.*)", line)[1])
    assert command[1:] == ["-m", "tensorboard.main", "--logdir", str(folder)]
    assert sys.executable.endswith(command[0])
    assert [step for step, _ in scalars(folder)["diversity"]] == [1]
    assert call_script("train_search", ["--resume", folder], monkeypatch) == 0
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2
    assert_equals_search(folder, 2)


def test_a_training_killed_before_its_checkpoint_has_no_step_twice(
    small_set, tmp_path, monkeypatch
):
    folder, _ = kill_before_second_save(
        "train", [*small_set, *TRAINING], "last.pt", tmp_path / "runs"
    )
    assert [step for step, _ in scalars(folder)["learning_rate"]] == [1, 2]
    assert call_script("train", ["--resume", folder], monkeypatch) == 0
    assert_equals_training(folder, 3)


def test_imagenet_is_logged(tmp_path, monkeypatch):
    write_image_folder(tmp_path / "data", {"train": {"a": 8, "b": 8}, "val": {"a": 2, "b": 2}})
    arguments = [*TINY_IMAGENET, "--data_path", tmp_path / "data", "--save", tmp_path / "runs/EXP"]
    assert call_script("train_imagenet", arguments, monkeypatch) == 0
    assert_equals_training(only_folder(tmp_path / "runs"), 4)


@pytest.mark.parametrize(("script", "flags"), [("train_search", SEARCH), ("train", TRAINING)])
def test_it_can_be_turned_off_and_on_again_on_resume(
    script, flags, small_set, tmp_path, monkeypatch, capsys
):
    arguments = [
        *small_set,
        *flags,
        "--epochs",
        "1",
        "--no-tensorboard",
        "--save",
        tmp_path / "EXP",
    ]
    assert call_script(script, arguments, monkeypatch) == 0
    folder = only_folder(tmp_path)
    for resume, files in (([], 0), (["--tensorboard"], 1)):
        assert call_script(script, ["--resume", folder, *resume], monkeypatch) == 0
        assert len(list(folder.glob("events.out.tfevents.*"))) == files
        assert ("TensorBoard:" in capsys.readouterr().out) == bool(files)


def test_without_tensorboard_a_run_goes_on_with_a_warning(small_set, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    arguments = [*small_set, *TRAINING, "--epochs", "1", "--save", tmp_path / "EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    errors = capsys.readouterr().err
    (warning,) = [line for line in errors.splitlines() if "warning:" in line]
    assert "pip install tensorboard" in warning and "--no-tensorboard" in warning
    assert not list(only_folder(tmp_path).glob("events*"))
    assert len(history_without_seconds(only_folder(tmp_path))) == 1


def test_a_full_disk_ends_the_scalars_and_not_the_run(small_set, tmp_path, monkeypatch, capsys):
    from torch.utils.tensorboard import SummaryWriter

    def fail(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "flush", fail)
    arguments = [*small_set, *TRAINING, "--epochs", "2", "--save", tmp_path / "EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    assert capsys.readouterr().err.count("warning: no more scalars for TensorBoard") == 1
