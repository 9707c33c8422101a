"""Several processes, one for each GPU, started by PyTorch's own launcher."""

import hashlib
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from runtime.errors import UserError
from runtime.interruption import Interrupted, Interruption
from runtime.progress_bar import progress_bar
from speed.gpu import set_up_gpu

LOST = "another process of this run has ended; start it again with --resume"

LOST_IN_TEST = "another process of this test has ended; start it again"

PATIENCE = timedelta(days=30)
"""So long a process waits for the others: in a search for as long as one of their pairs takes.

A process that has ended is noticed at once, for its connections break.
"""

Item = TypeVar("Item")
Result = TypeVar("Result")


def gpu_list(gpus: str) -> list[int]:
    """The GPU numbers in `--gpus 0,1`, as a type for argparse.

    Raises:
        ArgumentTypeError: not a list of different numbers from 0 up.
    """
    try:
        numbers = [int(number) for number in gpus.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise ArgumentTypeError(f"{gpus!r} is not a list of GPU numbers such as 0,1")
    return numbers


def own_device(gpus: list[int] | None) -> torch.device:
    """The device of this process: of the GPUs given, or of all, the one with its local rank.

    Raises:
        UserError: there is no GPU of that number.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    own = local_rank()
    numbers = gpus if gpus is not None else list(range(torch.cuda.device_count()))
    if own >= len(numbers) or numbers[own] >= torch.cuda.device_count():
        raise UserError(
            f"--gpus: process {own} of this machine has no GPU among {numbers}; there are "
            f"{torch.cuda.device_count()}, numbered from 0"
        )
    return torch.device("cuda", numbers[own])


def local_rank() -> int:
    """This process's number among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def launched() -> bool:
    """Whether this process was started by torchrun (or by `launch`)."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))


def launch(processes: int) -> None:
    """Run this script with its arguments once for each process; exit with their status."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        run_id="relativenas",
    )
    # As torchrun does, so that the processes do not fight for the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        elastic_launch(config, sys.executable)(*sys.argv)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
    except SignalException as stop:
        sys.exit(128 + stop.sigval)


class Processes:
    """The group of processes that this one belongs to; a group of one if not launched.

    Attributes:
        rank: this process's number in the group.
        size: number of processes.
        device: what this process computes on.
        interruption: whether this process has been asked to stop.
    """

    def __init__(self, device: torch.device, interruption: Interruption | None = None) -> None:
        self.device = device
        self.interruption = interruption or Interruption()
        self._asked_before: _Answer | None = None
        if device.type == "cuda":
            set_up_gpu(device)
        self.rank, self.size = 0, 1
        if launched():
            self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            backend = "nccl" if device.type == "cuda" else "gloo"
            try:
                torch.distributed.init_process_group(backend, timeout=PATIENCE)
            except RuntimeError as error:
                if not self.has_lost(error):
                    raise
                raise UserError(LOST) from None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that logs and writes files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the processes' tensors, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, value: object) -> object:
        """The main process's `value`, any picklable object."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: Result) -> list[Result]:
        """What each process gives, any picklable object, by rank.

        Tensors in it are on the CPU, or `FlatTensors`.
        """
        if self.size == 1:
            return [value]
        values = [value] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def share_out(
        self, items: Sequence[Item], work: Callable[[Item], Result], description: str | None = None
    ) -> list[Result]:
        """The results of `work` on all items, in order; each process does its share of them.

        With a `description` the main process shows a progress bar.

        Raises:
            Interrupted: one of the processes was asked to stop, and `work` did so.
        """
        shown = self.is_main and description is not None
        own = progress_bar(items[self.rank :: self.size], description or "", shown=shown)
        try:
            done = [work(item) for item in own]
        except Interrupted as stop:
            done = stop  # the others wait for an answer, and stop too
        shares = self.gather(done)
        for share in shares:
            if isinstance(share, Interrupted):
                raise share
        return [shares[i % self.size][i // self.size] for i in range(len(items))]

    def check_agreement(self, tensors: Iterable[Tensor], value: object) -> None:
        """Make sure that all processes hold the same, bit for bit.

        Args:
            tensors: all on one device.
            value: numbers in lists and dictionaries, compared by their `repr`.

        Raises:
            UserError: they are not.
        """
        if self.size == 1:
            return
        content = torch.cat([tensor.detach().reshape(-1).view(torch.uint8) for tensor in tensors])
        digest = hashlib.sha256(content.cpu().numpy())
        digest.update(repr(value).encode())
        digests = self.gather(digest.hexdigest())
        differing = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if differing:
            self.close()  # all processes have found the same
            raise UserError(
                f"processes {differing} hold other weights or vectors than process 0; a machine "
                "computes wrongly, or they run different versions; go on from the last checkpoint "
                "with --resume"
            )

    def check_interruption(self) -> None:
        """Stop here, all processes together, if one was asked to stop before the last such call.

        The answer of the last call is there by now; no GPU is drained to wait for it.

        Raises:
            Interrupted: one of them was.
        """
        if self.size == 1:
            self.interruption.check()
            return
        before, self._asked_before = self._asked_before, _Answer(self)
        if before:
            before.check()

    def check_interruption_now(self) -> None:
        """Stop here, all processes together, if one has been asked to stop. Waits for the device.

        Raises:
            Interrupted: one of them has.
        """
        if self.size == 1:
            self.interruption.check()
        else:
            _Answer(self).check()

    def has_lost(self, error: RuntimeError) -> bool:
        """Whether `error` says that another process of the group has gone."""
        from_backend = isinstance(error, torch.distributed.DistError)
        return self.size > 1 and (from_backend or "gloo/transport" in str(error))

    def share_buffers(self, network: nn.Module) -> None:
        """Give all processes the main one's batch norm statistics: each has those of its part."""
        if self.size > 1:
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def close(self) -> None:
        """Leave the group; for all processes at the same place."""
        if torch.distributed.is_initialized():
            # Nobody hangs up while another is still in its last collective.
            gpu = [self.device.index] if self.device.type == "cuda" else None
            torch.distributed.barrier(device_ids=gpu)
            torch.distributed.destroy_process_group()


class _Answer:
    """Which signal has asked any of the processes to stop; on its way until `check` is called."""

    def __init__(self, processes: Processes) -> None:
        number = torch.full(
            (), processes.interruption.signal, dtype=torch.int64, device=processes.device
        )
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        self._number = number.to("cpu", non_blocking=True)
        self._copied: torch.cuda.Event | None = None
        if number.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def check(self) -> None:
        if self._copied:
            self._copied.synchronize()
        if signal_number := int(self._number):
            raise Interrupted(signal_number)
