"""Batches of image sets held in memory, augmented on the device that computes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from dataset.augmentation import Augmentation, augment, normalize
from dataset.batching import Batching
from dataset.image_set import ImageSet, Statistics
from utils import derive_seed, to_device


@dataclass(frozen=True)
class ImageBatches:
    """A set to train on and one to validate on, in batches (see `Batches`).

    A search validates on a part of the training images, a training on the test images.
    """

    train_set: ImageSet
    validation_set: ImageSet
    augmentation: Augmentation
    statistics: Statistics
    batching: Batching

    @property
    def steps(self) -> int:
        return self.batching.steps(len(self.train_set))

    def training_batches(self, seed: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return training_batches(
            self.train_set, self.augmentation, self.statistics, self.batching, seed, first_step
        )

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return evaluation_batches(self.validation_set, self.statistics, self.batching)


def training_batches(
    image_set: ImageSet,
    augmentation: Augmentation,
    statistics: Statistics,
    batching: Batching,
    seed: int,
    first_step: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the set in random order, augmented.

    Args:
        seed: of the order, which all processes share, and of the augmentation.
        first_step: number of batches to leave out at the start.

    Yields:
        This process's part of each batch: images, float32 (n, 3, H, W), and labels, int64 (n,).
    """
    device = batching.device
    mean, std = statistics.tensors(device)
    data_device = image_set.images.device
    generator = Generator(device)
    # On the CPU, for each kind of device draws other numbers, and a resumed run may keep its
    # images elsewhere than before.
    order = torch.randperm(len(image_set), generator=Generator().manual_seed(derive_seed(seed)))
    batches = to_device(order, data_device).split(batching.batch_size)
    for step in range(first_step, batching.steps(len(image_set))):
        generator.manual_seed(derive_seed(seed, batching.rank, step))
        images, labels = _to_device(image_set, batches[step][batching.own_part], device)
        yield augment(images, augmentation, mean, std, generator), labels


def evaluation_batches(
    image_set: ImageSet, statistics: Statistics, batching: Batching
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of the set in order, normalised; each image once over all processes."""
    mean, std = statistics.tensors(batching.device)
    own = torch.arange(len(image_set), device=image_set.images.device)[batching.own_part]
    for first in range(0, len(own), batching.size_of_own):
        indices = own[first : first + batching.size_of_own]
        images, labels = _to_device(image_set, indices, batching.device)
        yield normalize(images, mean, std), labels


def _to_device(image_set: ImageSet, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    images = to_device(image_set.images[indices], device)
    return images, to_device(image_set.labels[indices], device)
