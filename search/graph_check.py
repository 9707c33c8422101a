"""Do CUDA graphs compute what the steps compute without them? A few steps both ways tell."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from dataset.batching import Batches
from runtime.flat_tensors import FlatTensors
from speed.cuda_graphs import WARM_UP_CALLS, GraphsFailed

STEPS = WARM_UP_CALLS + 2
"""Of training and of validation: so many that the last two are replays."""

DROP_PATH_PROB = 0.2
"""At least this in the check, for drop path's random numbers are part of it."""

ROUNDINGS_OF_TRAINING = 32
"""How many roundings of what was learned may add up in the steps of a check."""

ROUNDINGS_OF_LOSS = 2
"""The same of a mean loss, by weights that are equal."""

NOISE = 4
"""How many times the difference of two runs without graphs a third may have."""


@dataclass(frozen=True)
class FirstBatches:
    """The first `count` batches of each pass over `data` (see `Batches`)."""

    data: Batches
    count: int

    @property
    def steps(self) -> int:
        return min(self.count, self.data.steps)

    def training_batches(self, seed: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return islice(self.data.training_batches(seed, first_step), self.count - first_step)

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return islice(self.data.validation_batches(), self.count)


@dataclass(frozen=True)
class Learned:
    """What a few steps came to: the trained tensors by name, and the untrained ones' loss."""

    tensors: FlatTensors
    loss: float


def check_agreement(
    before: FlatTensors, plain: Learned, again: Learned, replayed: Learned, rounding: float
) -> None:
    """Compare the same steps twice without CUDA graphs and once with them.

    Two runs without graphs may differ too, where kernels add up in any order; that much is
    allowed, and what `rounding` explains.

    Args:
        before: the tensors that all three began with.
        rounding: the largest relative error of a product (`relative_rounding`).

    Raises:
        GraphsFailed: the steps with graphs came to something else.
    """
    difference = abs(replayed.loss - plain.loss)
    allowed = NOISE * abs(again.loss - plain.loss) + ROUNDINGS_OF_LOSS * rounding * abs(plain.loss)
    if not difference <= allowed:  # NaN is not either
        raise GraphsFailed(
            f"with them the loss of the same steps is {replayed.loss:.6g}, not {plain.loss:.6g}"
        )
    excess = [
        _excess(first, plain.tensors[name], again.tensors[name], replayed.tensors[name], rounding)
        for name, first in before.items()
    ]
    worst = torch.stack(excess).nan_to_num(nan=torch.inf)
    times, place = worst.max().item(), int(worst.argmax())
    if times > 1:
        raise GraphsFailed(
            f"with them the same steps make other weights ({list(before)[place]} differs "
            f"{times:.1f} times more than rounding explains)"
        )


def _excess(
    before: Tensor, plain: Tensor, again: Tensor, replayed: Tensor, rounding: float
) -> Tensor:
    """The difference of `replayed` from `plain`, as a part of what is allowed."""
    before, plain, again, replayed = (t.double() for t in (before, plain, again, replayed))
    learned = (plain - before).norm()
    stored = torch.finfo(torch.float32).eps * plain.norm()
    allowed = NOISE * (again - plain).norm() + ROUNDINGS_OF_TRAINING * (rounding * learned + stored)
    return (replayed - plain).norm() / allowed.clamp(min=1e-30)


def relative_rounding(precision: torch.dtype, device: torch.device) -> float:
    """The largest relative error of a factor in a product of `precision`.

    With TF32, where float32 means that on a GPU, a mantissa has 10 bits.
    """
    tf32 = device.type == "cuda" and torch.backends.cudnn.allow_tf32
    return 2.0**-11 if precision == torch.float32 and tf32 else torch.finfo(precision).eps / 2
