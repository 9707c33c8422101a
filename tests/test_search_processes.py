"""The search on two processes (gloo, CPU): a pair in each, the same population in both."""

import os
import shutil
import signal
from datetime import timedelta

import pytest
import torch
from helpers import (
    assert_same_tensors,
    call_script,
    children_of,
    history_without_seconds,
    only_folder,
    run_to_the_end,
    start_script,
    wait_until,
    write_small_set,
)

from runtime.errors import UserError
from runtime.processes import Processes


@pytest.fixture
def search(tmp_path):
    """The flags of a search of three pairs and two generations."""
    return [*write_small_set(tmp_path / "data"), "--no-cutout", "--pop_size", "6", "--epochs", "2"]


def results(folder):
    names = ("genotype.json", "population.json")
    return [history_without_seconds(folder), *((folder / name).read_text() for name in names)]


def test_one_of_two_processes_killed_and_resumed_with_two_or_one(search, tmp_path, monkeypatch):
    arguments = [*search, "--save", tmp_path / "whole" / "EXP"]
    run_to_the_end("train_search", arguments, torchrun=2)
    whole = only_folder(tmp_path / "whole")
    killed = tmp_path / "killed"
    process = start_script("train_search", [*search, "--save", killed / "EXP"], torchrun=2)
    wait_until(lambda: list(killed.glob("*/checkpoint.pt")), process)
    os.kill(children_of(process)[-1], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    alone = shutil.copytree(only_folder(killed), tmp_path / "alone")

    run_to_the_end("train_search", ["--resume", only_folder(killed)], torchrun=2)
    assert results(only_folder(killed)) == results(whole)
    weight_sets = [torch.load(f / "weight_set.pt") for f in (only_folder(killed), whole)]
    assert_same_tensors(*(weight_set["state_dict"] for weight_set in weight_sets))

    assert call_script("train_search", ["--resume", alone], monkeypatch) == 0
    records = history_without_seconds(alone)
    assert [(record["generation"], record["pair"]) for record in records] == [
        (generation, pair) for generation in range(2) for pair in range(3)
    ]
    # The first round was that of two processes: both its pairs trained from one weight set.
    assert records[:2] == history_without_seconds(whole)[:2]


def test_one_process_is_the_published_order(search, tmp_path, monkeypatch):
    arguments = [*search, "--save", tmp_path / "launched" / "EXP"]
    run_to_the_end("train_search", arguments, torchrun=1)
    arguments = [*search, "--save", tmp_path / "plain" / "EXP"]
    assert call_script("train_search", arguments, monkeypatch) == 0
    launched, plain = (only_folder(tmp_path / name) for name in ("launched", "plain"))
    assert results(launched) == results(plain)


@pytest.mark.parametrize(
    ("last_weight", "velocity", "agree"),
    [(1.0, 0.5, True), (1.0000001, 0.5, False), (1.0, 0.5000000000000001, False)],
)
def test_processes_that_disagree_stop(last_weight, velocity, agree, monkeypatch):
    digests = []

    def check(last_weight, velocity):
        processes = Processes(torch.device("cpu"))
        processes.size = 2

        def gather(digest):
            digests.append(digest)
            return [digests[0], digest]

        monkeypatch.setattr(processes, "gather", gather)
        weights = [torch.tensor(3), torch.tensor([[1.0, last_weight]])]
        processes.check_agreement(weights, {"velocities": [[velocity]]})

    check(1.0, 0.5)
    if agree:
        check(last_weight, velocity)
    else:
        with pytest.raises(UserError, match=r"processes \[1\].*--resume"):
            check(last_weight, velocity)


def test_processes_wait_for_each_other_as_long_as_a_pair_takes(monkeypatch):
    patience = []
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, timeout: patience.append(timeout)
    )
    Processes(torch.device("cpu"))
    assert patience[0] > timedelta(days=7)  # PyTorch's own is ten minutes for GPUs


def test_work_is_shared_out_in_order(monkeypatch):
    processes = Processes(torch.device("cpu"))
    assert processes.share_out([3, 1, 2], lambda item: item * 10) == [30, 10, 20]
    processes.size = 2
    monkeypatch.setattr(processes, "gather", lambda own: [own, [10]])
    assert processes.share_out([3, 1, 2], lambda item: item * 10) == [30, 10, 20]
