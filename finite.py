"""Whether numbers are finite: the first step that was not, and whether weights are."""

from collections.abc import Iterable

import torch
from torch import Tensor


class FirstNonFinite:
    """Remembers the first step whose number was NaN or infinite, without waiting for the device.

    Args:
        device: where the numbers are.
        steps: number of steps before the first that it sees.
    """

    def __init__(self, device: torch.device, steps: int = 0) -> None:
        self._steps = steps
        self._first = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, number: Tensor) -> None:
        """Look at the next step's `number`, a scalar."""
        self._steps += 1
        is_first = (self._first == 0) & ~number.isfinite()
        self._first += is_first * self._steps

    def step(self) -> int | None:
        """The first such step, counted from 1; None if all were finite. Waits for the device."""
        return int(self._first) or None


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number in `tensors`, all on one device, is NaN or infinite. Waits for it."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
