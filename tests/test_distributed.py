"""Two processes under torchrun, on the CPU with gloo."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import (
    ROOT,
    TINY_IMAGENET,
    TINY_TRAINING,
    assert_same_tensors,
    call_script,
    history_without_seconds,
    kill_when,
    only_folder,
    write_lmdb_set,
)

from run_folder import RunFolder


def start_torchrun(processes, script, arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", f"{script}.py", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(processes, script, arguments):
    process = start_torchrun(processes, script, arguments)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    return out


def test_two_processes_train_and_validate_every_image_once(tmp_path):
    torchrun(2, "train", [*TINY_TRAINING, "--epochs", "1", "--save", tmp_path / "EXP"])
    folder = only_folder(tmp_path)
    (record,) = RunFolder.reopen(folder).read_history()
    assert record["validation"]["count"] == 360
    assert record["train"]["count"] == 1437
    assert torch.load(folder / "last.pt")["epoch"] == 1
    # The main process alone logs and draws; both counted their part of the confusion matrix.
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert (folder / "report.html").exists()
    confusion = torch.tensor(json.loads((folder / "confusion.json").read_text())["counts"])
    assert confusion.sum() == 360
    assert 100 * confusion.trace() / 360 == pytest.approx(record["validation"]["top1"])


def test_imagenet_on_two_processes_killed_and_resumed_with_two_or_one(
    tmp_path, monkeypatch, capsys
):
    counts = {"train": {"a": 13, "b": 12}, "val": {"a": 6, "b": 5}}
    data = write_lmdb_set(tmp_path / "data", counts)
    arguments = [*TINY_IMAGENET, "--data_path", data, "--save"]
    torchrun(2, "train_imagenet", [*arguments, tmp_path / "whole" / "EXP"])
    whole = only_folder(tmp_path / "whole")
    killed = tmp_path / "killed"
    process = start_torchrun(2, "train_imagenet", [*arguments, killed / "EXP"])
    kill_when(process, lambda: list(killed.glob("*/last.pt")))
    assert len(history_without_seconds(only_folder(killed))) < 4
    alone = shutil.copytree(only_folder(killed), tmp_path / "alone")

    torchrun(2, "train_imagenet", ["--resume", only_folder(killed)])
    assert history_without_seconds(only_folder(killed)) == history_without_seconds(whole)
    states = [torch.load(folder / "last.pt") for folder in (only_folder(killed), whole)]
    assert_same_tensors(*(state["state_dict"] for state in states))

    assert call_script("train_imagenet", ["--resume", alone], monkeypatch) == 0
    records = history_without_seconds(alone)
    assert [record["epoch"] for record in records] == [0, 1, 2, 3]
    for record in [*records, *history_without_seconds(whole)]:
        assert record["train"]["count"] == 24  # a batch of one image is left out
        assert record["validation"]["count"] == 11

    arguments = ["--model_path", whole / "best.pt", "--data_path", data, "--workers", "0"]
    together = torchrun(2, "test_imagenet", arguments)
    capsys.readouterr()
    assert call_script("test_imagenet", arguments, monkeypatch) == 0
    by_one = capsys.readouterr().out
    assert "test images     11" in by_one
    assert re.sub("speed.*", "", together) == re.sub("speed.*", "", by_one)
