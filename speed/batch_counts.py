"""Batch norms that count a pass's batches together.

Batch norm counts every batch it sees, an operation of its own. A candidate has some eighty norms,
and on a GPU each of these counts takes as long to launch as a convolution.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def counted_together(norms: Mapping[nn.BatchNorm2d, int]) -> Iterator[Callable[[int], None]]:
    """Let batch norms count nothing, and give what adds a number of steps to all counts at once.

    Args:
        norms: the batch norms, and how often each sees the batch of a step.
    """
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.num_batches_tracked = None

    def add(steps: int) -> None:
        torch._foreach_add_(counts, [steps * seen for seen in norms.values()])

    try:
        yield add
    finally:
        for norm, count in zip(norms, counts, strict=True):
            norm.num_batches_tracked = count
