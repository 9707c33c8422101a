"""The scripts on a pretended GPU: one device in each operation, and no wait in any step."""

from collections import Counter

import pytest
import torch
from helpers import TINY_IMAGENET, call_script, only_folder, write_lmdb_set, write_small_set
from kill_harness import start_forks
from pretended_gpu import GPU, OnGPU, pretended_gpu

import train_search
from genotypes import RelativeNAS
from model import NetworkCIFAR
from model_search import Supernet
from report.run import Run
from runtime.processes import Processes
from training.classification import evaluate, new_confusion
from training.state import EpochSoFar
from utils import Meter, to_device

SAVED = "runtime/flat_tensors.py FlatTensors.to"
"""Where a checkpoint's tensors come from the device: float32 and int64, so twice each time."""


def waits_of(script, arguments, monkeypatch):
    """How often a script waits for the device, by function."""
    with pretended_gpu() as waits:
        assert call_script(script, [*arguments, "--precision", "fp32"], monkeypatch) == 0
        return dict(waits)


def saved_like_on_the_cpu(path, network):
    """The state dict in a file is the network's: names, layouts in memory, nothing beside."""
    content = torch.load(path, weights_only=True)
    state, expected = content["state_dict"], network.state_dict()
    assert type(state) is type(expected) and state._metadata == expected._metadata
    assert list(state) == list(expected)
    for name, tensor in state.items():
        assert tensor.device.type == "cpu" and tensor.stride() == expected[name].stride(), name
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return len(state)


# What is written down here has to be argued for: all passes have three steps or more, so that one
# wait in each of them would show as three at least.


def test_a_search_waits_twice_a_turn_and_for_its_checkpoints(tmp_path, monkeypatch):
    flags = [*write_small_set(tmp_path / "data"), "--batch_size", "4", "--device", "cuda"]
    flags += ["--pop_size", "2", "--epochs", "1", "--cuda_graphs", "off"]
    flags += ["--save", tmp_path / "runs" / "EXP"]
    waits = waits_of("train_search", flags, monkeypatch)
    supernet = Supernet(2, 3, 3).to(memory_format=torch.channels_last)
    tensors = saved_like_on_the_cpu(only_folder(tmp_path / "runs") / "weight_set.pt", supernet)
    assert waits == {
        "dataset/image_set.py ImageSet.to": 2,  # the images and labels, once for all
        "dataset/image_set.py ImageSet.subset": 2,  # which of them are which part's
        "search/candidate.py make_trainer": tensors,  # the supernet, once for all
        "utils.py Meter.result": 2 + 2,  # each turn's loss, and the final validation's
        "utils.py all_finite": 2,  # once a turn
        SAVED: 2 * 2,  # the checkpoint of one round, and the final weight set
    }


def test_a_training_waits_at_an_epochs_end(tmp_path, monkeypatch):
    flags = [*write_small_set(tmp_path / "data"), "--batch_size", "4", "--data_device", "cpu"]
    flags += ["--epochs", "1", "--save", tmp_path / "runs" / "EXP"]
    waits = waits_of("train", flags, monkeypatch)
    network = NetworkCIFAR(2, 3, 3, True, RelativeNAS).to(memory_format=torch.channels_last)
    tensors = saved_like_on_the_cpu(only_folder(tmp_path / "runs") / "best.pt", network)
    # With --data_device cpu the images of each step come from pinned memory.
    of_the_run = {
        "training/loop.py fit": tensors,
        "training/classification.py Classification.keep_best": 1,
    }
    assert waits == of_the_run | of_an_epoch()


def test_an_imagenet_training_waits_at_an_epochs_end(tmp_path, monkeypatch):
    data = write_lmdb_set(tmp_path / "data", {"train": {"a": 7, "b": 7}, "val": {"a": 6, "b": 6}})
    flags = [*TINY_IMAGENET, "--batch_size", "4", "--data_path", data, "--epochs", "2"]
    waits = waits_of("train_imagenet", [*flags, "--save", tmp_path / "runs" / "EXP"], monkeypatch)
    tensors = len(torch.load(only_folder(tmp_path / "runs") / "last.pt")["state_dict"])
    best = waits[SAVED] // 2 - 2  # an epoch, or both
    assert waits == {"training/loop.py fit": tensors} | of_an_epoch(2, best)


def of_an_epoch(epochs=1, best=1):
    """What every epoch waits for; `best` counts those that were the best so far."""
    return {
        "training/loop.py FirstNonFinite.step": epochs,
        "utils.py Meter.result": 2 * epochs,  # of training, of validation
        "utils.py all_finite": epochs,
        SAVED: 2 * (epochs + best),
    }


def test_the_pretended_gpu_refuses_and_counts():
    with pretended_gpu() as waits:
        here = to_device(torch.ones(3), GPU)
        assert not waits and isinstance(here, OnGPU)
        with pytest.raises(AssertionError, match="mixes devices"):
            here + torch.ones(3)
        with pytest.raises(AssertionError, match="CPU's generator"):
            here.bernoulli_(generator=torch.Generator())
        for waiting in (
            lambda: here.sum().item(),
            lambda: here.tolist(),
            lambda: here.cpu(),
            lambda: here[here > 0],
            lambda: torch.ones(3).to(GPU, non_blocking=True),
            lambda: torch.tensor([1.0], device=GPU),
            lambda: here.copy_(torch.ones(3)),
        ):
            before = waits.total()
            waiting()
            assert waits.total() == before + 1


class Refusing:
    """Collectives that take no CPU tensors, as NCCL's; what they take goes over gloo."""

    def __init__(self, patch):
        self.calls = Counter()
        for name in ("all_reduce", "broadcast"):
            patch.setattr(torch.distributed, name, self._stand_in(name))
        barrier, start = torch.distributed.barrier, torch.distributed.init_process_group
        patch.setattr(torch.distributed, "barrier", lambda device_ids: barrier())
        patch.setattr(
            torch.distributed, "init_process_group", lambda backend, timeout: start("gloo")
        )

    def _stand_in(self, name):
        collective = getattr(torch.distributed, name)

        def checked(tensor, *options, **named):
            assert isinstance(tensor, OnGPU), f"{name} of a CPU's tensor"
            self.calls[name] += 1
            return collective(tensor.held, *options, **named)

        return checked


def search_and_evaluate(rank, folder):
    """One of two processes: a search, and the end of an epoch."""
    flags = ["--set", "folder", "--data", str(folder), "--image_size", "8", "--layers", "3"]
    flags += ["--init_channels", "2", "--batch_size", "12", "--pop_size", "2", "--epochs", "1"]
    with pretended_gpu(), pytest.MonkeyPatch.context() as patch:
        collectives = Refusing(patch)
        processes = Processes(GPU)
        args = train_search.parse_arguments([*flags, "--precision", "fp32", "--cuda_graphs", "off"])
        train_search.search(args, Run(None, processes))

        network = NetworkCIFAR(2, 3, 3, False, RelativeNAS).to(GPU)
        network.stem[1].running_mean.fill_(rank)
        batches = [(torch.rand(4, 3, 8, 8).to(GPU), torch.tensor([0, 1, 2, 0]).to(GPU))]
        confusion = new_confusion(3, GPU)
        result = evaluate(network, batches, processes, torch.float32, confusion)
        assert result["count"] == confusion.sum() == 8
        assert network.stem[1].running_mean.sum() == 0  # the main process's
        assert EpochSoFar(Meter(GPU)).state_dict(processes)["sums"].shape == (2, 4)
        processes.check_interruption()
        processes.check_interruption()
        processes.close()
        assert collectives.calls["all_reduce"] and collectives.calls["broadcast"]


def test_two_processes_give_collectives_tensors_of_the_gpu(tmp_path):
    write_small_set(tmp_path)
    for process in start_forks(2, lambda rank: search_and_evaluate(rank, tmp_path)):
        process.join()
        assert process.exitcode == 0
