"""How a pass over images is cut into batches, and each batch into the processes' parts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batching:
    """One way for all sets of images, in memory or decoded as they are needed.

    Attributes:
        batch_size: of all processes together.
        device: where the batches are augmented and used.
        rank: this process's number among those that share the batches.
        size: number of those processes; each takes every `size`-th image.
    """

    batch_size: int
    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def own(self) -> slice:
        """This process's part of a batch."""
        return slice(self.rank, None, self.size)

    @property
    def own_size(self) -> int:
        """Images of a batch in each process, where they need not be the same for all."""
        return max(1, self.batch_size // self.size)

    def steps(self, images: int) -> int:
        """Number of training batches that `images` make.

        Batch norm needs two images in each process: a smaller last batch is left out, and so are
        all batches where even whole ones are smaller.
        """
        whole, rest = divmod(images, self.batch_size)
        smallest = 2 * self.size
        return whole * (self.batch_size >= smallest) + (rest >= smallest)


class Batches(Protocol):
    """What training loops ask of images: `ImageBatches`, or `EncodedBatches`.

    Batches are float32 images (n, 3, H, W), channels last in memory, and int64 labels (n,), on
    the device of their `Batching`; n differs by at most one between processes.
    """

    @property
    def steps(self) -> int:
        """Number of training batches in a pass, the same in all processes."""

    def training_batches(self, seed: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of one pass in an order drawn from `seed`, augmented.

        The first `first_step` batches are left out; the others are as they are without that.
        """

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of the validation images, each once over all processes."""
