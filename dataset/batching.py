"""How a pass over images is cut into batches, and each batch into the processes' parts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from utils import derive_seed

Part = tuple[int, int]
"""An image's number, and the seed of its augmentation."""


@dataclass(frozen=True)
class Batching:
    """The same for images in memory and for those that are decoded as they are needed.

    Attributes:
        batch_size: of all processes together.
        device: where the batches are augmented and used.
        rank: this process's number among those that share the batches.
        processes: their number; each takes every `processes`-th image.
    """

    batch_size: int
    device: torch.device
    rank: int = 0
    processes: int = 1

    @property
    def own_part(self) -> slice:
        """This process's part of a batch."""
        return slice(self.rank, None, self.processes)

    @property
    def size_of_own(self) -> int:
        """Images in a batch of validation in each process; the last one's may be fewer."""
        return max(1, self.batch_size // self.processes)

    def steps(self, images: int) -> int:
        """Number of training batches that `images` make.

        Batch norm needs two images in each process. A smaller last batch is left out; with a
        `batch_size` below that there are no batches.
        """
        whole, rest = divmod(images, self.batch_size)
        smallest = 2 * self.processes
        return whole * (self.batch_size >= smallest) + (rest >= smallest)

    def drawn_parts(self, images: int, seed: int) -> list[list[Part]]:
        """This process's part of each training batch, for images that are augmented one by one.

        The images' order and their seeds are a function of `seed`, the step and the place in the
        batch, so that neither the number of workers nor that of processes changes them.
        """
        generator = Generator().manual_seed(derive_seed(seed, 1))
        order = torch.randperm(images, generator=generator)
        batches = []
        for step, numbers in enumerate(order.split(self.batch_size)[: self.steps(images)]):
            parts = [
                (number, derive_seed(seed, 2, step, place))
                for place, number in enumerate(numbers.tolist())
            ]
            batches.append(parts[self.own_part])
        return batches


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

        The first `first_step` batches are left out, which does not change the others.
        """

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of the validation images, each once over all processes."""
