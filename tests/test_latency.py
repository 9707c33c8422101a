"""The benchmark of latencies: what it builds, what it times, and its report."""

import sys

import numpy as np
import pytest
import torch
from helpers import assert_one_line

from benchmarks import latency
from genotypes import DARTS_V1, RelativeNAS, save_genotype
from model import NetworkCIFAR
from report.sizes import TARGETS, Target
from runtime.errors import run_script

TINY = ["--target_channels", "2", "--target_layers", "3", "--target_image_size", "8"]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["latency.py", *map(str, arguments)])
    try:
        run_script(latency.main)
    except SystemExit as stop:
        return stop.code
    return 0


def test_networks_are_measured_side_by_side(tmp_path, monkeypatch, capsys):
    save_genotype(DARTS_V1, tmp_path / "found.json")
    threads = torch.get_num_threads()
    arguments = ["RelativeNAS", tmp_path / "found.json", *TINY, "--threads", "1"]
    arguments += ["--batch_sizes", "1", "3", "--rounds", "2", "--device", "cpu"]
    assert run(monkeypatch, *arguments) == 0
    torch.set_num_threads(threads)
    place, _, *rows = capsys.readouterr().out.splitlines()
    assert place.startswith("NetworkCIFAR, 2 channels, 3 cells, 10 classes, 8×8; ")
    assert "1 CPU threads" in place and "2 rounds" in place
    names = [(row.split()[0], row.split()[5]) for row in rows]
    found = str(tmp_path / "found.json")
    assert names == [("RelativeNAS", "1"), (found, "1"), ("RelativeNAS", "3"), (found, "3")]


def test_the_networks_take_turns():
    turns = []

    def network(name):
        return lambda images: turns.append((name, len(images)))

    seconds = latency.measure(
        [network("a"), network("b")], torch.zeros(2, 3, 4, 4), torch.float32, rounds=3
    )
    assert seconds.shape == (2, 3) and (seconds > 0).all()
    assert turns[-6:] == [("a", 2), ("b", 2)] * 3


def test_the_report_has_medians_and_spreads():
    target = TARGETS["cifar"]
    seconds = np.array([[0.010, 0.012, 0.050, 0.014, 0.020]])
    lines = latency.report({"RelativeNAS": RelativeNAS}, target, {7: seconds})
    assert lines[1].split() == [
        "RelativeNAS", "3.93", "M", "616.8", "M", "7", "14.00", "ms", "12.00–", "20.00", "ms",
        "500.0",
    ]  # fmt: skip


def test_the_network_is_the_targets_and_in_eval_mode():
    target = Target(NetworkCIFAR, 2, 3, 8, 5)
    network = latency.build(target, RelativeNAS, torch.device("cpu"))
    assert not network.training
    assert sum(parameter.numel() for parameter in network.parameters()) == (
        target.size(RelativeNAS).parameters
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["GENOTYPE"]),
        (["nothing.json"], ["GENOTYPE nothing.json", "RelativeNAS"]),
        (["NASNet", "--batch_sizes", "0"], ["--batch_sizes"]),
        (["NASNet", "--target_layers", "2000"], ["--target_layers"]),
    ],
)
def test_mistakes_end_in_one_line(arguments, expected, monkeypatch, capsys):
    assert_one_line(run(monkeypatch, *arguments), capsys, *expected)
