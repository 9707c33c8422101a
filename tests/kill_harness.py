"""Scripts in forked processes, killed or asked to stop where a test says, and what is left of them.

A fork has PyTorch imported already, so that a run of a tiny network takes a second or two.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import torch
import torch._dynamo  # what scripts import late is here for all forks
from helpers import act_at_step, free_port, history_without_seconds, only_folder, read_history
from torch.utils import tensorboard  # noqa: F401

import train  # noqa: F401
import train_imagenet  # noqa: F401
import train_search  # noqa: F401
from report import page  # noqa: F401
from runtime.errors import run_script

FORK = multiprocessing.get_context("fork")


class Moment(NamedTuple):
    """When a process is about to do something to a file.

    Attributes:
        event: open (to write), fsync, os.rename, os.link or os.remove; None: any of them.
        name: a pattern for the file's name.
        occurrence: the how manieth time, from 1.
    """

    event: str | None
    name: str
    occurrence: int


class Script:
    """A script in one process, or in several as torchrun starts them.

    Args:
        name, arguments: as on the command line.
        folder: where the run folders are; what is printed goes to a file beside it.
        processes: how many.
        prepare: called in each process with its rank, before the script begins.
    """

    def __init__(
        self,
        name: str,
        arguments: list[object],
        folder: Path,
        processes: int = 1,
        prepare: Callable[[int], None] = lambda rank: None,
    ) -> None:
        self.output = folder.parent / f"{folder.name}-output.txt"
        self.output.write_text("")
        self.processes = start_forks(
            processes, lambda rank: _run(name, arguments, self.output, prepare, rank)
        )

    def kill(self) -> None:
        """SIGKILL all processes."""
        for process in self.processes:
            process.kill()

    def wait(self, seconds: float = 60) -> list[int]:
        """The exit statuses; fails if a process does not end in time."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        running = [process.pid for process in self.processes if process.is_alive()]
        self.kill()
        assert not running, self.read_output()
        return [process.exitcode for process in self.processes]

    def finish(self) -> str:
        """Run to the end; returns what it printed."""
        statuses = self.wait(300)
        assert not any(statuses), self.read_output()
        return self.read_output()

    def read_output(self) -> str:
        """What the processes printed so far."""
        return self.output.read_text()


def start_forks(count: int, work: Callable[[int], None]) -> list[FORK.Process]:
    """Start `work` with its rank in forked processes; several have torchrun's environment."""
    port = free_port()

    def begin(rank: int) -> None:
        if count > 1:
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(count))
            os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        work(rank)

    processes = [FORK.Process(target=begin, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def _run(
    name: str, arguments: list[object], output: Path, prepare: Callable[[int], None], rank: int
) -> None:
    os.setpgid(0, 0)
    with open(output, "a", buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = stream
        sys.argv = [f"{name}.py", *map(str, arguments)]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # perhaps pytest ignores it
        prepare(rank)
        try:
            run_script(importlib.import_module(name.replace("/", ".")).main)
        except Exception:
            traceback.print_exc()
            os._exit(1)


class FileWatch:
    """Prepares a process to count what it does to files in `folder`, and to be killed at `moment`.

    Only the first of several processes, which is the one that writes.
    """

    def __init__(self, folder: Path, moment: Moment | None = None) -> None:
        self.folder = folder
        self.moment = moment
        self._count = FORK.Value("i", 0)
        self._seen = 0

    @property
    def count(self) -> int:
        """How often it did something."""
        return self._count.value

    def __call__(self, rank: int) -> None:
        if rank:
            return
        sys.addaudithook(self._audit)
        fsync = os.fsync

        def watched_fsync(descriptor: int) -> None:
            self._about_to("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            fsync(descriptor)

        os.fsync = watched_fsync

    def _audit(self, event: str, arguments: tuple) -> None:
        if event in ("os.rename", "os.link", "os.remove"):
            self._about_to(event, Path(arguments[0]))
        elif event == "open" and isinstance(arguments[0], str | Path):
            _, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR):
                self._about_to(event, Path(arguments[0]))

    def _about_to(self, event: str, path: Path) -> None:
        if not path.is_relative_to(self.folder):
            return
        self._count.value += 1
        moment = self.moment
        if moment and moment.event in (None, event) and fnmatch(path.name, moment.name):
            self._seen += 1
            if self._seen == moment.occurrence:
                if event == "fsync" and path.is_file():
                    # The kill came while it was being written: a part is there.
                    size = path.stat().st_size
                    os.truncate(path, size // 2 if path.suffix == ".tmp" else size - 3)
                os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, action: Callable[[], None], rank: int = 0) -> Callable[[int], None]:
    """Prepares process `rank` to do something in its `step`-th training step."""

    def prepare(own_rank: int) -> None:
        if own_rank == rank:
            act_at_step(step, action)

    return prepare


def resumable(parent: Path) -> list[Path]:
    """The run folders in `parent` that the run got far enough to make."""
    return [path.parent for path in sorted(parent.glob("*/settings.json"))]


def killed_in_the_second_epochs_save(script: str, arguments: list, parent: Path) -> Path:
    """A training in `parent`, killed as its second last.pt gets its name, and resumed to its end.

    Returns:
        Its run folder.
    """
    moment = Moment("os.rename", "last.pt.*.tmp", 2)
    killed = Script(script, arguments, parent, prepare=FileWatch(parent, moment))
    assert killed.wait() == [-signal.SIGKILL]
    folder = only_folder(parent)
    assert len(read_history(folder)) == 2  # the second epoch was recorded, and not saved
    Script(script, ["--resume", folder], parent).finish()
    return folder


def assert_same_run(folder: Path, whole: Path) -> None:
    """Two finished runs hold the same, bit for bit, the seconds aside.

    What is kept of the checkpoint before the last may be of another moment; the report and the
    scalars tell the time.
    """
    names, expected = (
        {path.name for path in run.iterdir() if not path.name.startswith("events.out")}
        for run in (folder, whole)
    )
    assert names == expected
    assert history_without_seconds(folder) == history_without_seconds(whole)
    for name in names - {"history.jsonl", "log.txt", "report.html", "settings.json"}:
        if name.endswith(".previous.pt"):
            continue
        if name.endswith(".pt"):
            assert same(torch.load(folder / name), torch.load(whole / name)), name
        else:
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def same(first: object, second: object) -> bool:
    """Whether two contents of checkpoints are equal bit for bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second
