"""Two processes under torchrun, on the CPU with gloo."""

import json
import re
import shutil
import subprocess

import pytest
import torch
from helpers import (
    TINY_IMAGENET,
    TINY_TRAINING,
    assert_same_tensors,
    call_script,
    history_without_seconds,
    only_folder,
    read_history,
    run_to_the_end,
    start_python,
    wait_until,
    write_lmdb_set,
)


def test_two_processes_train_and_validate_every_image_once(tmp_path):
    arguments = [*TINY_TRAINING, "--epochs", "1", "--save", tmp_path / "EXP"]
    run_to_the_end("train", arguments, torchrun=2)
    folder = only_folder(tmp_path)
    (record,) = read_history(folder)
    assert record["validation"]["count"] == 360
    assert record["train"]["count"] == 1437
    assert torch.load(folder / "last.pt")["epoch"] == 1
    # The main process alone logs and draws; both counted their part of the confusion matrix.
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert (folder / "report.html").exists()
    confusion = torch.tensor(json.loads((folder / "confusion.json").read_text())["counts"])
    assert confusion.sum() == 360
    assert 100 * confusion.trace() / 360 == pytest.approx(record["validation"]["top1"])


def test_imagenet_on_two_processes_stopped_and_resumed_with_two_or_one(
    tmp_path, monkeypatch, capsys
):
    counts = {"train": {"a": 13, "b": 12}, "val": {"a": 6, "b": 5}}
    data = write_lmdb_set(tmp_path / "data", counts)
    arguments = [*TINY_IMAGENET, "--data_path", data, "--save"]
    run_to_the_end("train_imagenet", [*arguments, tmp_path / "whole" / "EXP"], torchrun=2)
    whole = only_folder(tmp_path / "whole")
    stopped = tmp_path / "stopped"
    # As `--gpus 0,1` does.
    launch = "import sys; from runtime.processes import launch; sys.argv = sys.argv[1:]; launch(2)"
    command = ["-c", launch, "train_imagenet.py", *arguments, stopped / "EXP"]
    process = start_python(command, stderr=subprocess.PIPE)
    wait_until(lambda: list(stopped.glob("*/last.pt")), process)
    process.terminate()
    errors = process.communicate()[1]
    assert process.returncode == 143, errors
    assert "stopped by SIGTERM after step" in errors
    assert f"train_imagenet.py --resume {only_folder(stopped)}" in errors
    alone = shutil.copytree(only_folder(stopped), tmp_path / "alone")

    run_to_the_end("train_imagenet", ["--resume", only_folder(stopped)], torchrun=2)
    assert history_without_seconds(only_folder(stopped)) == history_without_seconds(whole)
    states = [torch.load(folder / "last.pt") for folder in (only_folder(stopped), whole)]
    assert_same_tensors(*(state["state_dict"] for state in states))

    assert call_script("train_imagenet", ["--resume", alone], monkeypatch) == 0
    records = history_without_seconds(alone)
    assert [record["epoch"] for record in records] == [0, 1, 2, 3]
    for record in [*records, *history_without_seconds(whole)]:
        assert record["train"]["count"] == 24  # a batch of one image is left out
        assert record["validation"]["count"] == 11

    arguments = ["--model_path", whole / "best.pt", "--data_path", data, "--workers", "0"]
    together = run_to_the_end("test_imagenet", arguments, torchrun=2)
    capsys.readouterr()
    assert call_script("test_imagenet", arguments, monkeypatch) == 0
    by_one = capsys.readouterr().out
    assert "test images     11" in by_one
    assert re.sub("speed.*", "", together) == re.sub("speed.*", "", by_one)
