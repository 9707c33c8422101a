"""A loader's worker processes: what goes wrong in them ends the run in one line, in no hang."""

import ctypes
import multiprocessing
import os
import signal
import time
from argparse import Namespace

import pytest
import torch
from torch.utils.data import Dataset

from dataset import workers
from dataset.workers import InParcels, Parcel, watched_loader
from runtime.errors import UserError
from runtime.out_of_memory import is_out_of_memory


class Numbers(Dataset):
    """Item n is two tensors of n; before that `work` is done, in the worker."""

    def __init__(self, work=lambda number: None):
        self.work = work

    def __len__(self):
        return 6

    def __getitem__(self, number):
        self.work(number)
        return torch.full((1000,), number), torch.tensor([number])


def items_of(work=lambda number: None, processes=2):
    dataset = Numbers(work)
    return list(watched_loader(dataset, processes, sampler=range(len(dataset))))


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_items_come_whole_and_in_order(processes):
    items = items_of(processes=processes)
    assert [label.item() for _, label in items] == list(range(6))
    assert all(torch.equal(big, torch.full((1000,), n)) for n, (big, _) in enumerate(items))


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def refusal(capfd, **options):
    with pytest.raises(UserError) as caught:
        for item in watched_loader(Numbers(), 2, sampler=range(6), **options):
            if isinstance(item, UserError):
                raise item
    assert "\n" not in str(caught.value)
    output = capfd.readouterr()
    assert "Traceback" not in output.out + output.err
    return str(caught.value)


SHARED_MEMORY_IS_FULL = RuntimeError(
    "unable to allocate shared memory(shm) for file </torch_7_8_0>: No space left on device (28)"
)


def test_too_little_shared_memory_is_one_line_with_the_remedies(monkeypatch, capfd):
    # Workers are forked, so that it fails in them too; their queues' threads would lose it.
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", failing(SHARED_MEMORY_IS_FULL))
    message = refusal(capfd)
    for text in (
        "/dev/shm",
        "No space left",
        "--workers",
        "--batch_size",
        "--shm-size",
        "MiB free",
    ):
        assert text in message


def test_too_many_open_files_name_the_limit(monkeypatch, capfd):
    too_many = OSError(24, "Too many open files")
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", failing(too_many))
    assert "ulimit -n" in refusal(capfd)


def test_workers_that_cannot_start_are_one_line(monkeypatch, capfd):
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", failing(OSError(11, "again")))
    message = refusal(capfd)
    assert "cannot be started (again)" in message and "--workers" in message


def test_an_error_when_a_worker_begins_is_one_line(monkeypatch, capfd):
    start = failing(RuntimeError("can't start new thread"))
    monkeypatch.setattr(workers, "leave_signals_to_the_parent", start)
    message = refusal(capfd)
    assert "(RuntimeError: can't start new thread)" in message and "--workers 0" in message


def test_a_mistake_in_the_code_is_not_hidden():
    with pytest.raises(TypeError, match="a mistake"):
        items_of(failing(TypeError("a mistake")))


def test_memory_that_runs_out_in_a_worker_is_known_as_that():
    with pytest.raises(MemoryError) as caught:
        items_of(failing(MemoryError()))
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("ending", [lambda: os._exit(1), lambda: os.kill(os.getpid(), 9)])
def test_a_worker_that_dies_is_one_line(ending, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.2)
    with pytest.raises(UserError, match="has died"):
        items_of(lambda number: ending() if number == 3 else None)


@pytest.mark.parametrize(
    "stop",
    [
        lambda: os.kill(os.getpid(), signal.SIGSTOP),
        # Without letting go of Python's lock: SIGTERM would not end it.
        lambda: ctypes.PyDLL(None).sleep(1000),
    ],
)
def test_workers_that_send_nothing_for_minutes_end_the_run(stop, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(workers, "SILENT_POLLS", 4)
    before = set(multiprocessing.active_children())
    with pytest.raises(UserError, match=r"nothing for .* seconds.*--workers"):
        items_of(lambda number: stop() if number == 2 else None)
    assert set(multiprocessing.active_children()) == before


def test_a_worker_that_is_slow_is_waited_for(monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(workers, "SILENT_POLLS", 8)
    # Longer than the limit in all, but something comes before it each time.
    assert len(items_of(lambda number: time.sleep(0.3), processes=1)) == 6


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("Pin memory thread exited unexpectedly"), "for the GPU"),
        (RuntimeError("Caught RuntimeError in pin memory thread for device 0.\nX: no"), "(X: no)"),
        (ConnectionResetError("Caught ... in pin memory thread for device 0.\nX"), "has died"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
    ],
)
def test_errors_of_the_pinning_thread_are_one_line(error, expected, monkeypatch):
    class Loader:
        num_workers = 0

        def __iter__(self):
            return self

        def __next__(self):
            raise error

    monkeypatch.setattr(workers, "DataLoader", lambda *_, **__: Loader())
    with pytest.raises(UserError) as caught:
        items_of(processes=0)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_dead_pinning_thread_is_seen_while_the_loader_waits():
    class Items:
        def __init__(self, alive):
            self._pin_memory_thread = Namespace(is_alive=lambda: alive)

        def __next__(self):
            raise RuntimeError("DataLoader timed out after 5 seconds")

    with pytest.raises(RuntimeError, match="Pin memory thread exited"):
        workers._next_item(Items(alive=False))
    with pytest.raises(TimeoutError):
        workers._next_item(Items(alive=True))


def test_a_parcel_is_pinned_item_by_item(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    item = Parcel((torch.ones(3), torch.zeros(1))).pin_memory()
    assert [tensor.tolist() for tensor in item] == [[1, 1, 1], [0]] and len(pinned) == 2
    error = Parcel(UserError("a line")).pin_memory()
    assert isinstance(error, UserError) and str(error) == "a line"


def test_only_workers_make_parcels():
    assert torch.equal(InParcels(Numbers())[4][1], torch.tensor([4]))
