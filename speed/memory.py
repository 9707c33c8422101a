"""Memory: how the C library hands it out on the CPU, and how to spend time to need less of it."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Numbers of glibc's mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Keep what is freed for the next tensor, instead of asking the system for new pages each time.

    Training frees and asks for the same large tensors in every step; getting zeroed pages for them
    takes up to a third of the step. Does nothing where the C library is not glibc.
    """
    set_allocator({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


def set_allocator(options: dict[int, int]) -> None:
    """Set options of mallopt(3) by their numbers, and give all free memory back."""
    c_library = ctypes.CDLL(None)
    if not hasattr(c_library, "mallopt"):
        return
    for option, value in options.items():
        c_library.mallopt(option, value)
    c_library.malloc_trim(0)


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """`module(x)`, of which only `x` is kept: the backward pass computes the rest again.

    The result, the gradients and batch norm's running statistics are those of the plain call. The
    module must not draw random numbers.
    """
    return checkpoint(
        module,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _frozen_statistics(module)),
    )


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """While a batch is seen a second time, batch norm must not count it again."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
