"""Out of memory, on the GPU or the CPU: one line that names the flags which lower it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import UserError

SIGNS = (
    "out of memory",  # CUDA, torch.OutOfMemoryError among it
    "can't allocate memory",  # PyTorch on the CPU
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Storage size calculation overflowed",  # more bytes than 64 bits count
    "killed by signal: Killed",  # a worker process of the loader, by the system
)
"""What the text of a RuntimeError has in it when memory is what was lacking."""


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """End running out of memory in a `UserError` with `advice`: the flags that lower it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"allocate ([\d.]+ \w+)", str(error))
        amount = f" ({asked[1]} more were asked for)" if asked else ""
        raise UserError(f"out of memory{amount}; {advice}") from None


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory, of the CPU or a GPU, was lacking."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )
