"""Worker processes of a loader, watched: one that dies ends the run and does not hang it."""

import os
import signal
from collections.abc import Iterator
from threading import Thread

from torch.utils.data import DataLoader

from runtime.errors import UserError


def watched(loader: DataLoader) -> Iterator[object]:
    """The loader's items, until a worker dies.

    Raises:
        UserError: one did.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    items = iter(loader)
    if loader.num_workers:
        # PyTorch's handler would raise the error wherever this process is, in the middle of a step
        # or of a save. Without it `next` does, after five seconds at most.
        signal.signal(signal.SIGCHLD, handler)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            if not _is_of_a_dead_worker(error):
                raise
            raise UserError(
                "a process that decodes images has died, as they do when memory runs out; use "
                "fewer --workers"
            ) from None
        yield item


def _is_of_a_dead_worker(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    # A batch that it still sent is fetched from it, in vain. What a living one raises is no such
    # error, for `DecodedBatches` hands it over.
    return isinstance(error, ConnectionError | FileNotFoundError | EOFError)


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
