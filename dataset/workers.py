"""Worker processes of a loader, watched: whatever goes wrong in one ends the run and no hang.

What a worker has made is handed over in shared memory. Python's queues would put it there in a
thread of theirs, which loses every error; here it is done beforehand, where errors can be told.
"""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from threading import Thread

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from runtime.errors import UserError
from runtime.out_of_memory import is_out_of_memory

SHARED_MEMORY = "/dev/shm"
"""Where PyTorch keeps memory that processes share."""

POLL_SECONDS = 5
"""So often a waiting loader looks whether its workers are alive."""

SILENT_POLLS = 120
"""After so many of them without anything from any worker (ten minutes) none is expected any more.

They are counted, for a clock would go on while a run is suspended.
"""

DIED = (
    "a process that decodes images has died, as they do when memory runs out; use fewer --workers"
)


def worker_count(wanted: int | None) -> int:
    """So many worker processes for this process: `wanted`, or its share of the CPU cores."""
    if wanted is not None:
        return wanted
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, len(os.sched_getaffinity(0)) // on_this_machine)


class Parcel:
    """An item of a data set on its way from a worker, its tensors in shared memory."""

    def __init__(self, item: object) -> None:
        self._content = bytes(ForkingPickler.dumps(item))

    def open(self) -> object:
        """The item. Only once, while its worker lives."""
        return ForkingPickler.loads(self._content)

    def pin_memory(self) -> object:
        """What PyTorch's pinning thread makes of it: the item, its tensors in pinned memory."""
        item = self.open()
        if isinstance(item, Exception):
            return item
        return tuple(tensor.pin_memory() for tensor in item)


class InParcels(Dataset):
    """A data set whose items, tuples of tensors or a `UserError`, leave workers as a `Parcel`."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> object:
        item = self.dataset[number]
        if get_worker_info() is None:
            return item
        try:
            return Parcel(item)
        except (OSError, RuntimeError) as error:
            return Parcel(_handing_over_failed(error))


def watched_loader(dataset: Dataset, workers: int, **options: object) -> Iterator[object]:
    """The items of `dataset`, made by so many worker processes (0: by this one).

    Args:
        dataset: an item is a tuple of tensors, or a `UserError` that kept it from being made.
        options: of PyTorch's `DataLoader`.

    Raises:
        UserError: a worker died, could not start or hand over what it made, or none has sent
            anything for minutes.
    """
    loader = DataLoader(
        InParcels(dataset),
        batch_size=None,
        num_workers=workers,
        timeout=POLL_SECONDS if workers else 0,
        worker_init_fn=leave_signals_to_the_parent,
        **options,
    )
    items, processes = _start(loader)
    with ThreadPoolExecutor(1) as opener:
        while True:
            try:
                item = _receive(items, opener)
            except StopIteration:
                return
            except BaseException as error:
                for process in processes:
                    process.kill()  # what stands still is not waited for
                    process.join(POLL_SECONDS)
                problem = _problem_of_workers(error)
                if problem is None:
                    raise
                raise problem from None
            yield item


def loaded_batches(
    dataset: Dataset, workers: int, device: torch.device, first: int = 0
) -> Iterator[tuple[Tensor, ...]]:
    """The items of `dataset` in order, from number `first` on, their tensors on `device`.

    Args:
        dataset, workers: as for `watched_loader`.

    Raises:
        UserError: an item is one, or as `watched_loader`.
    """
    items = watched_loader(
        dataset,
        workers,
        sampler=range(first, len(dataset)),
        pin_memory=device.type == "cuda",
        generator=Generator(),  # else it would draw from the one that drop path draws from
    )
    for item in items:
        if isinstance(item, UserError):
            raise item
        yield tuple(tensor.to(device, non_blocking=True) for tensor in item)


def _receive(items: Iterator[object], opener: ThreadPoolExecutor) -> object:
    """The next item, opened by the thread of `opener`, for that can take as long as any wait."""
    item = _patiently(lambda: _next_item(items))
    if isinstance(item, Parcel):
        opened = opener.submit(item.open)
        item = _patiently(lambda: opened.result(POLL_SECONDS))
    return item


def _patiently(attempt: Callable[[], object]) -> object:
    """What `attempt` gives, as soon as it raises no `TimeoutError`.

    Raises:
        UserError: it has raised one for minutes.
    """
    for _ in range(SILENT_POLLS):
        with suppress(TimeoutError):
            return attempt()
    raise UserError(
        f"the processes that decode images have sent nothing for {POLL_SECONDS * SILENT_POLLS} "
        "seconds; see whether the disk of the images answers, or use fewer --workers or a smaller "
        "--batch_size"
    )


def _next_item(items: Iterator[object]) -> object:
    try:
        return next(items)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader timed out"):
            raise
    # With a time limit PyTorch does not look after its pinning thread.
    thread = getattr(items, "_pin_memory_thread", None)
    if thread is not None and not thread.is_alive():
        raise RuntimeError("Pin memory thread exited unexpectedly")
    raise TimeoutError


def _start(loader: DataLoader) -> tuple[Iterator[object], set[BaseProcess]]:
    """The loader's items, and the processes that make them."""
    handler = signal.getsignal(signal.SIGCHLD)
    others = set(multiprocessing.active_children())
    try:
        if loader.num_workers:
            # A little more than the loader needs. Where that fails, so does its own clearing up.
            for queue in [multiprocessing.Queue() for _ in range(loader.num_workers + 3)]:
                queue.close()
        items = iter(loader)
    except OSError as error:
        raise UserError(
            f"the processes that decode images cannot be started ({error.strerror}); use fewer "
            f"--workers{_room_in_shared_memory()}"
        ) from None
    if loader.num_workers:
        # PyTorch's handler would raise the error wherever this process is, in the middle of a step
        # or of a save. Without it `next` does, after five seconds at most.
        signal.signal(signal.SIGCHLD, handler)
    return items, set(multiprocessing.active_children()) - others


def _handing_over_failed(error: Exception) -> UserError:
    reason = _last_line(error)
    if "Too many open files" in reason:
        return _too_many_files()
    return UserError(
        f"decoded images cannot be handed over in {SHARED_MEMORY} ({reason}); use fewer --workers, "
        f"a smaller --batch_size or, in Docker, a larger --shm-size{_room_in_shared_memory()}"
    )


def _too_many_files() -> UserError:
    return UserError(
        "too many open files to hand over decoded images; use fewer --workers, or allow more with "
        "ulimit -n"
    )


def _room_in_shared_memory() -> str:
    try:
        total, _, free = shutil.disk_usage(SHARED_MEMORY)
    except OSError as error:
        return f" ({SHARED_MEMORY}: {error.strerror})"
    return f" ({SHARED_MEMORY} has {free >> 20} of {total >> 20} MiB free)"


def _problem_of_workers(error: BaseException) -> UserError | None:
    """What went wrong in a worker, in the pinning thread or between them; None: something else."""
    if not isinstance(error, RuntimeError | OSError | EOFError):
        return None
    text = str(error)
    if text.startswith("DataLoader worker"):
        return UserError(DIED)
    if "Too many open files" in text or "items of ancdata" in text:
        return _too_many_files()
    # Something that it still sent is fetched from a worker in vain.
    if isinstance(error, ConnectionError | FileNotFoundError | EOFError):
        return UserError(DIED)
    if is_out_of_memory(error):
        return None
    if "Pin memory thread exited" in text or "in pin memory thread" in text:
        return UserError(
            f"decoded images cannot be made ready for the GPU ({_last_line(error)}); use fewer "
            "--workers or a smaller --batch_size"
        )
    if "in DataLoader worker process" in text:
        return UserError(
            f"a process that decodes images has failed ({_last_line(error)}); use fewer --workers, "
            "or none with --workers 0"
        )
    return None


def _last_line(error: Exception) -> str:
    """The last line of an error's text: of a traceback from elsewhere, the error itself."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def leave_signals_to_the_parent(worker: int) -> None:
    """Let a worker outlive what stops a whole group: the parent may still need its images.

    Ctrl-C and cluster managers send their signal to every process. The parent's own SIGTERM ends a
    worker as ever; so does the parent's end.
    """

    def end_if_the_parent_says_so() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=end_if_the_parent_says_so, daemon=True).start()
