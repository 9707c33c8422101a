"""What several tests need: scripts run as a user would, and small image folders."""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from runtime.errors import run_script

ROOT = Path(__file__).parent.parent

FIXTURES = Path(__file__).parent / "fixtures"

TINY = ["--set", "digits", "--layers", "3", "--init_channels", "2", "--batch_size", "128"]

TINY_SEARCH = [*TINY, "--pop_size", "4", "--epochs", "2", "--no-cutout"]

TINY_TRAINING = [*TINY, "--epochs", "3", "--no-cutout", "--drop_path_prob", "0.2"]

TINY_IMAGENET = [
    "--image_size", "16", "--layers", "3", "--init_channels", "2", "--batch_size", "8",
    "--epochs", "4", "--warmup_epochs", "1", "--final_epochs", "1", "--learning_rate", "0.05",
    "--drop_path_prob", "0.2", "--workers", "0",
]  # fmt: skip


def call_script(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a script's main in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    gc.collect()  # an LMDB must not be opened twice in a process
    try:
        run_script(importlib.import_module(name).main)
    except SystemExit as stop:
        return stop.code
    return 0


def assert_one_line(status: int, capsys: pytest.CaptureFixture, *expected: str) -> None:
    """The script ended with status 2 and one line on stderr, with all of `expected` in it."""
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1 and error.startswith("error: "), error
    for text in expected:
        assert text in error


def start_script(name: str, arguments: list[str], **options: object) -> subprocess.Popen:
    """Start a script in a process of its own, from the repository's root."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, f"{name}.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def start_torchrun(processes: int, script: str, arguments: list[object]) -> subprocess.Popen:
    """Start a script with torchrun, from the repository's root."""
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


def wait_until(
    reached: Callable[[], object], process: subprocess.Popen, timeout: float = 120
) -> None:
    """Wait until `reached()`; fails if `process` ends before."""
    deadline = time.monotonic() + timeout
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children_of(process: subprocess.Popen) -> list[int]:
    """The numbers of the processes that `process` has started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return list(map(int, path.read_text().split()))


def kill_with_children(process: subprocess.Popen) -> None:
    """SIGKILL `process` and those it started."""
    for process_id in (process.pid, *children_of(process)):
        with suppress(ProcessLookupError):  # it ended just now
            os.kill(process_id, signal.SIGKILL)
    process.communicate()


def read_history(folder: Path) -> list[dict]:
    """The records of a run's history."""
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def history_without_seconds(folder: Path) -> list[dict]:
    """The records of a run's history, less what differs from run to run."""
    records = read_history(folder)
    for record in records:
        del record["seconds"]
    return records


def assert_same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Two state dicts are equal bit for bit."""
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def only_folder(parent: Path) -> Path:
    """The one run folder in `parent`."""
    (folder,) = parent.iterdir()
    return folder


def write_image_folder(
    root: Path, splits: dict[str, dict[str, int]], size: int = 20, suffix: str = "png"
) -> None:
    """Write random images: `splits` gives for each split the number of images of each class."""
    random = np.random.default_rng(0)
    for split, classes in splits.items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.{suffix}")


def write_small_set(root: Path) -> list[str]:
    """Write so few images that a run takes a moment; returns the flags of such a run."""
    classes = {"cat": 8, "dog": 8, "eel": 8}
    write_image_folder(root, {"train": classes, "test": classes}, size=8)
    return [
        "--set", "folder", "--data", str(root), "--image_size", "8", "--layers", "3",
        "--init_channels", "2", "--batch_size", "12",
    ]  # fmt: skip


def write_lmdb_set(root: Path, splits: dict[str, dict[str, int]], size: int = 20) -> Path:
    """Write random JPEGs, as `write_image_folder`, and their LMDBs; returns the LMDBs' folder."""
    write_image_folder(root / "images", splits, size, "JPEG")
    data = root / "lmdb"
    call_data_script("mk_img_list", "--image_path", root / "images", "--output_path", data)
    for split in splits:
        call_data_script(
            "img2lmdb", "--image_path", root / "images", "--list_path", data,
            "--output_path", data, "--split", split,
        )  # fmt: skip
    return data


def call_data_script(name: str, *arguments: object) -> None:
    """Run a script in dataset/ as a user would, but in this process; it must succeed."""
    module = importlib.import_module(f"dataset.{name}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module.main()
