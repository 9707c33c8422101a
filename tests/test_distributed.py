"""Two processes under torchrun, on the CPU with gloo."""

import os
import subprocess
import sys

import torch
from helpers import ROOT, TINY_TRAINING, only_folder

from run_folder import RunFolder


def torchrun(processes, script, arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", f"{script}.py", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_two_processes_train_and_validate_every_image_once(tmp_path):
    torchrun(2, "train", [*TINY_TRAINING, "--epochs", "1", "--save", tmp_path / "EXP"])
    folder = only_folder(tmp_path)
    (record,) = RunFolder.reopen(folder).read_history()
    assert record["validation"]["count"] == 360
    assert record["train"]["count"] == 1437
    assert torch.load(folder / "last.pt")["epoch"] == 1
