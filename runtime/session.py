"""A run from the making of its folder to its end, also when it is stopped or the disk fills up."""

import errno
import os
import shlex
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from runtime.arguments import as_typed
from runtime.errors import UserError
from runtime.interruption import Interrupted, Interruption
from runtime.out_of_memory import memory_advice
from runtime.processes import LOST, Processes, launched
from runtime.run_folder import RunFolder
from speed.memory import keep_freed_memory

DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def run_session(
    kind: str,
    args: Namespace,
    device: torch.device,
    work: Callable[[RunFolder | None, Processes], None],
    memory_flags: str,
) -> None:
    """Call `work` in each process, in the main one with the run folder of `kind`.

    A new folder goes again if a mistake of the user's keeps the run from beginning.

    Args:
        memory_flags: what to lower when memory runs out, as advice to the user.

    Raises:
        Interrupted: a signal asked to stop; the log says how to go on.
        UserError: `work` raises one, the disk is full or broken, or another process has ended.
    """
    keep_freed_memory()
    interruption = Interruption()
    with memory_advice(memory_flags), interruption.handled(twice=launched()):
        processes = Processes(device, interruption)
        # Only one process may write: two would append to the same history.
        run = RunFolder.for_run(kind, args) if processes.is_main else None
        try:
            work(run, processes)
            processes.close()
        except UserError:
            if run:
                run.discard()
            raise
        except Interrupted as stop:
            if run:
                run.log.warning(
                    "stopped by %s%s; go on with: %s",
                    signal.Signals(stop.signal).name, stop.place, _resume_command(args, run),
                )  # fmt: skip
            if interruption.deferred:
                with suppress(RuntimeError):  # another process has ended meanwhile
                    processes.close()
            raise
        except OSError as error:
            if run is None or not _is_of_folder(error, run.path):
                raise
            remedy = "see to the run's folder"
            if error.errno in DISK_TROUBLE:
                remedy = "what was saved before is intact, so make room"
            raise UserError(
                f"{error.filename or run.path}: {error.strerror}; {remedy} and go on with: "
                f"{_resume_command(args, run)}"
            ) from None
        except RuntimeError as error:
            if not processes.has_lost(error):
                raise
            # The process that ended has said why; this one only has to get out of its way.
            raise UserError(LOST) from None
        finally:
            if run:
                run.close()


def _is_of_folder(error: OSError, folder: Path) -> bool:
    """Whether `error` is about a file in `folder`."""
    if isinstance(error.filename, (str, os.PathLike)):
        return Path(error.filename).is_relative_to(folder)
    # A write to an open file does not say to which, and what a run writes is in its folder.
    return error.errno in DISK_TROUBLE


def _resume_command(args: Namespace, run: RunFolder) -> str:
    command = [as_typed(Path(sys.executable)), as_typed(Path(sys.argv[0]).resolve())]
    if launched() and not getattr(args, "gpus", None):
        command[0] = f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}"
        return f"{command[0]} {shlex.join([*command[1:], '--resume', str(run.path)])}"
    return shlex.join([*command, "--resume", str(run.path)])
