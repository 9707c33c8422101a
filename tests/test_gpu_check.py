"""The checks for whoever has a GPU, on the CPU and in small."""

import contextlib
import importlib
import io
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from graph_like import GraphLike
from helpers import only_folder

from benchmarks import gpu_check, search_speed
from search import candidate
from speed.cuda_graphs import GraphsFailed

CPU = torch.device("cpu")


def run_here(setting, script, *arguments, **environment):
    """A script in this process, which has PyTorch already."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr("sys.argv", [script.rsplit("/")[-1], *map(str, arguments)])
        module.main()
    return out.getvalue()


class Here:
    """In place of a pool of one process."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        result = function(*arguments)
        return SimpleNamespace(result=lambda: result)


@pytest.fixture
def check_here(monkeypatch, tmp_path, capsys):
    """Makes the checks with these names; returns the exit status and the page."""
    monkeypatch.setattr(gpu_check.Setting, "run", run_here)
    monkeypatch.setattr(search_speed, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(search_speed, "LOADER_WORKERS", 0)
    monkeypatch.setattr(search_speed, "MATRIX_SIZE", {"cpu": 64})

    def check(*names):
        words = ["--device", "cpu", "--save", tmp_path / "page", "--only", *names]
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *map(str, words)])
        status = 0
        try:
            gpu_check.main()
        except SystemExit as stop:
            status = stop.code
        folder = only_folder(tmp_path)
        page = (folder / "page.md").read_text()
        assert page in capsys.readouterr().out
        shutil.rmtree(folder)
        return status, page

    return check


def results(page):
    """What the page's first table says, by check."""
    rows = re.findall(r"^\| (\w+) \| (.*) \|$", page.split("\n## ")[0], re.MULTILINE)
    return {name: result for name, result in rows if name in gpu_check.CHECKS}


def test_what_a_cpu_can_is_ok_and_the_rest_is_said_not_to_be_possible(check_here):
    status, page = check_here("hardware", "devices", "graphs", "two_gpus", "speed")
    assert status == 0, page
    found = results(page)
    assert found.pop("graphs").startswith("not possible here: ")
    assert found.pop("two_gpus").startswith("not possible here: ")
    assert found == dict.fromkeys(("hardware", "devices", "speed"), "ok")
    assert torch.__version__ in page
    for row in ("plain", "ours", "The published search", "launches"):
        assert row in page


def test_a_search_is_killed_resumed_and_its_cell_trained_tested_and_exported(check_here):
    status, page = check_here("search", "training")
    assert status == 0, page
    assert results(page) == {"search": "ok", "training": "ok"}
    assert "Killed after 1 of 2 pairs" in page
    assert "top-1 accuracy" in page and "at most from PyTorch" in page


def test_a_failure_is_told_and_does_not_end_the_others(check_here, monkeypatch):
    def breaks(setting):
        """Whatever breaks"""
        raise RuntimeError("CUDA error: misaligned address\nmore")

    monkeypatch.setitem(gpu_check.CHECKS, "devices", breaks)
    status, page = check_here("devices", "hardware")
    assert status == 1
    assert results(page) == {
        "devices": "failed: RuntimeError: CUDA error: misaligned address",
        "hardware": "ok",
    }


def test_a_tensor_that_another_device_trains_otherwise_is_named(check_here, monkeypatch):
    real = gpu_check.trained
    runs = []

    def trained(setting, genotype, batches):
        before, after = real(setting, genotype, batches)
        runs.append(genotype)
        if len(runs) == 2:
            after["stem.0.weight"] += 1e-3 * (after["stem.0.weight"] - before["stem.0.weight"])
        return before, after

    monkeypatch.setattr(gpu_check, "trained", trained)
    status, page = check_here("devices")
    assert status == 1
    assert re.search(r"failed: RelativeNAS in float64: \['stem.0.weight'", page)


@pytest.mark.parametrize("works", [True, False])
def test_graphs_are_compared_with_eager_steps(works, tmp_path, monkeypatch):
    class Unusable(GraphLike):
        def record(self, function):
            raise RuntimeError("no capture")

    monkeypatch.setattr(gpu_check.Setting, "is_gpu", True)
    monkeypatch.setattr(
        gpu_check, "CudaGraphs", lambda device: (GraphLike if works else Unusable)()
    )
    monkeypatch.setattr(gpu_check, "reserved", lambda setting: 0.0)
    monkeypatch.setattr(gpu_check, "GENOTYPES", {})
    setting = gpu_check.Setting(CPU, True, tmp_path)
    if works:
        page = gpu_check.graphs_and_eager(setting)
        rows = [line.split(" | ") for line in page.splitlines()[2:]]
        assert [row[1] for row in rows] == ["float32", "bfloat16"]
        assert all(row[2] == row[3] for row in rows)  # the losses
    else:
        with pytest.raises(GraphsFailed, match="no capture"):
            gpu_check.graphs_and_eager(setting)


def test_a_search_that_gave_up_graphs_is_a_failure(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("11/25 14:12:00 resumed\n")
    gpu_check.check_graphs_kept(tmp_path)
    text = candidate.GIVEN_UP % "no capture"
    log.write_text(f"11/25 14:12:00 {text}\n")
    with pytest.raises(gpu_check.Failed, match="no capture"):
        gpu_check.check_graphs_kept(tmp_path)
