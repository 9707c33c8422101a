"""Out of memory, on the GPU or the CPU: one line that names the flags which lower it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import UserError

SIGNS = (
    "out of memory",  # CUDA, torch.OutOfMemoryError among it
    "can't allocate memory",  # PyTorch on the CPU
    "ALLOC_FAILED",  # cuBLAS, cuDNN
    "ALLOCATION_FAILED",  # cuDNN 9
    "CUBLAS_STATUS_NOT_INITIALIZED",  # its handle needs memory
    "cudaHostAlloc failed",  # pinned memory
    "Storage size calculation overflowed",  # more bytes than 64 bits count
    "killed by signal: Killed",  # a worker process of the loader, by the system
)
"""What the text of a RuntimeError has in it when memory is what was lacking."""


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """End running out of memory in a `UserError` with `advice`: the flags that lower it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _lack_of_memory(error)
        if reason is None:
            raise
        asked = re.search(r"allocate ([\d.]+ \w+)", str(reason))
        amount = f" ({asked[1]} more were asked for)" if asked else ""
        raise UserError(f"out of memory{amount}; {advice}") from None


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error`, or one that led to it, says that memory of the CPU or a GPU was lacking."""
    return _lack_of_memory(error) is not None


def _lack_of_memory(error: BaseException | None) -> BaseException | None:
    """The first of `error` and those that led to it which says so."""
    while error is not None:
        if isinstance(error, MemoryError):
            return error
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS):
            return error
        led_to_it = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or led_to_it
    return None
