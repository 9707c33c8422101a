"""What several tests need: scripts run as a user would, and small image folders."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import run_script

ROOT = Path(__file__).parent.parent

FIXTURES = Path(__file__).parent / "fixtures"

TINY = ["--set", "digits", "--layers", "3", "--init_channels", "2", "--batch_size", "128"]

TINY_SEARCH = [*TINY, "--pop_size", "4", "--epochs", "2", "--no-cutout"]

TINY_TRAINING = [*TINY, "--epochs", "3", "--no-cutout", "--drop_path_prob", "0.2"]


def call_script(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a script's main in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    try:
        run_script(importlib.import_module(name).main)
    except SystemExit as stop:
        return stop.code
    return 0


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


def only_folder(parent: Path) -> Path:
    """The one run folder in `parent`."""
    (folder,) = parent.iterdir()
    return folder


def write_image_folder(root: Path, splits: dict[str, dict[str, int]], size: int = 20) -> None:
    """Write random PNGs: `splits` gives for each split the number of images of each class."""
    random = np.random.default_rng(0)
    for split, classes in splits.items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
