"""The group of processes is closed, with a barrier, where all of them stop at the same place."""

import math
import signal
from argparse import Namespace

import pytest
import torch
from helpers import call_script, write_small_set
from test_training_recipe import random_batches, trainer_of

from genotypes import RelativeNAS
from model import NetworkCIFAR
from runtime.errors import UserError
from runtime.interruption import Interrupted
from runtime.processes import Processes
from runtime.session import run_session

CPU = torch.device("cpu")


@pytest.fixture
def group(monkeypatch):
    """What is done to a group that this process is said to be in."""
    calls = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: not calls)
    monkeypatch.setattr("torch.distributed.barrier", lambda device_ids: calls.append(device_ids))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: calls.append("left"))
    return calls


@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupted_run_closes_the_group_once_signals_wait_for_a_steps_end(
    begun, group, tmp_path
):
    def work(folder, processes):
        if begun:
            processes.interruption.defer()
        signal.raise_signal(signal.SIGTERM)
        processes.check_interruption()

    args = Namespace(resume=None, save=str(tmp_path / "EXP"), gpus=None)
    with pytest.raises(Interrupted):
        run_session("train", args, CPU, work, "")
    assert group == ([None, "left"] if begun else [])


def test_a_loss_that_is_not_finite_closes_the_group(group):
    network = NetworkCIFAR(2, 5, 3, True, RelativeNAS)
    trainer = trainer_of(network, random_batches(1, 8, 5))
    trainer.refuse_non_finite("after epoch 1")
    assert not group
    with pytest.raises(UserError, match="validation loss is nan"):
        trainer.refuse_non_finite("after epoch 1", math.nan)
    assert group == [None, "left"]


def test_an_interrupted_epoch_is_judged_by_the_main_processes_statistics(monkeypatch, tmp_path):
    def interrupted(trainer):
        trainer.state.network.stem[1].running_var.fill_(math.inf)
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("training.loop.Trainer.train_epoch", interrupted)
    # As if the main process's were all 1.
    monkeypatch.setattr(
        Processes,
        "share_buffers",
        lambda _, network: [buffer.fill_(1) for buffer in network.buffers()],
    )
    flags = [*write_small_set(tmp_path / "data"), "--save", tmp_path / "EXP"]
    assert call_script("train", flags, monkeypatch) == 128 + signal.SIGTERM


def test_processes_that_disagree_close_the_group(group, monkeypatch):
    processes = Processes(CPU)
    processes.size = 2
    monkeypatch.setattr(processes, "gather", lambda digest: [digest, "another"])
    with pytest.raises(UserError, match=r"processes \[1\]"):
        processes.check_agreement([torch.zeros(2)], 0)
    assert group == [None, "left"]


def test_the_barrier_is_told_the_gpu(group, monkeypatch):
    monkeypatch.setattr("runtime.processes.set_up_gpu", lambda device: None)
    Processes(torch.device("cuda", 3)).close()
    assert group == [[3], "left"]
