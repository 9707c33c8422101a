"""What several tests need: scripts run, and stopped, as a user would, and small image folders."""

import gc
import importlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

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
    """Run the main of a script, such as `train` or `transfer/train_detection`, in this process.

    Returns:
        Its exit status.
    """
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    gc.collect()  # an LMDB must not be opened twice in a process
    try:
        run_script(importlib.import_module(name.replace("/", ".")).main)
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


def start_python(words: list[object], **options: object) -> subprocess.Popen:
    """Start Python in a process of its own, from the repository's root.

    Args:
        words: of the command line, after `python`.
        options: of `subprocess.Popen`; without any, stdout and stderr are one pipe.
    """
    usual = {
        "cwd": ROOT,
        "env": {**os.environ, "PYTHONUNBUFFERED": "1"},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    return subprocess.Popen([sys.executable, *map(str, words)], **usual | options)


def start_script(
    name: str, arguments: list[object], torchrun: int = 0, **options: object
) -> subprocess.Popen:
    """Start a script as `start_python` does; by torchrun, on the CPU, in so many processes."""
    words = [f"{name}.py", *arguments]
    if not torchrun:
        return start_python(words, **options)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={torchrun}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return start_python([*launcher, *words], env=environment, **options)


def run_to_the_end(name: str, arguments: list[object], torchrun: int = 0) -> str:
    """Run a script as `start_script` does; it must succeed. Returns what it wrote to stdout."""
    process = start_script(name, arguments, torchrun, stderr=subprocess.PIPE)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    return output


def act_at_step(step: int, action: Callable[[], None]) -> RemovableHandle:
    """Have `action` called in the `step`-th training step, from 1, that this process now begins.

    The one way to stop a run of this process: `with act_at_step(7, ask_to_stop):`.
    """
    steps = itertools.count(1)

    def act(*_: object) -> None:
        if next(steps) == step:
            action()

    return register_optimizer_step_pre_hook(act)


def ask_to_stop() -> None:
    """Send this process SIGTERM, as a cluster manager does."""
    os.kill(os.getpid(), signal.SIGTERM)


STOPPED = 128 + signal.SIGTERM
"""The exit status of what stopped because of `ask_to_stop`."""


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


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


def operations_of(cell: nn.Module) -> nn.ModuleList:
    """A cell's operations, or a search cell's candidate operations: the one list it has."""
    (operations,) = (part for part in cell.children() if isinstance(part, nn.ModuleList))
    return operations


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


def formula_weights(
    shapes: Mapping[str, Sequence[int]], seed: int, factor: float = 1.0
) -> dict[str, torch.Tensor]:
    """The weights that reference outputs were computed with (shared/README.md), by name.

    Args:
        factor: of tensors of more than one dimension.
    """
    weights = {}
    for index, (name, shape) in enumerate(sorted(shapes.items())):
        random = np.random.RandomState(seed + index)
        if name.endswith("num_batches_tracked"):
            values = np.array(1)
        elif name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            values = random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:])) * factor
        elif name.endswith("weight"):
            values = random.uniform(0.5, 1.5, shape)
        else:
            values = random.randn(*shape) * 0.1
        whole = name.endswith("num_batches_tracked")
        weights[name] = torch.as_tensor(values).to(torch.int64 if whole else torch.float32)
    return weights
