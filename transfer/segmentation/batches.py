"""Batches of images and label maps: read and augmented in worker processes.

The random numbers of an image are drawn from the run's seed, the step and the image's place in the
batch, so that neither the number of workers nor that of processes changes them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from dataset.augmentation import normalize
from dataset.batching import Batching, Part
from dataset.pixel_statistics import PUBLISHED_STATISTICS, Statistics
from dataset.workers import loaded_batches
from runtime.errors import UserError
from transfer.segmentation.augmentation import Example, augment
from transfer.segmentation.data import LabelledImages


@dataclass(frozen=True)
class SegmentationBatches:
    """Images to train on and images to validate on, in batches.

    As `dataset.batching.Batches`, but that labels are int64 (n, H, W), with `IGNORED` in them, and
    that images to validate on come whole, each in a batch of its own, for they may differ in size.

    Attributes:
        crop_size: height and width of what is cut out of training images.
        batching: the batches, and this process's part of them.
        workers: processes that read images for this one; 0: it reads them itself.
        as_published: as for `augment`.
        statistics: of the normalisation.
    """

    train_images: LabelledImages
    validation_images: LabelledImages
    crop_size: int
    batching: Batching
    workers: int = 0
    as_published: bool = False
    statistics: Statistics = PUBLISHED_STATISTICS["imagenet"]

    @property
    def steps(self) -> int:
        """Number of training batches in a pass, the same in all processes."""
        return self.batching.steps(len(self.train_images))

    def training_batches(self, seed: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of one pass in an order drawn from `seed`, augmented.

        Args:
            first_step: number of batches to leave out at the start.

        Raises:
            UserError: an image or a label map cannot be used; names it. Or a worker died.
        """
        batches = self.batching.drawn_parts(len(self.train_images), seed)
        change = partial(_augmented, self.crop_size, self.as_published)
        read = ReadBatches(self.train_images, batches, change)
        return _loaded(read, self.batching.device, self.workers, self.statistics, first_step)

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of the validation images, each once over all processes.

        Raises:
            UserError: as `training_batches`.
        """
        return evaluation_batches(
            self.validation_images, self.batching, self.workers, self.statistics
        )


def evaluation_batches(
    images: LabelledImages,
    batching: Batching,
    workers: int = 0,
    statistics: Statistics = PUBLISHED_STATISTICS["imagenet"],
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of the images in their order, whole, each in a batch of its own.

    Yields:
        An image, float32 (1, 3, H, W), and its classes, int64 (1, H, W), on the device.

    Raises:
        UserError: as `SegmentationBatches.training_batches`.
    """
    batches = [[(number, 0)] for number in range(len(images))[batching.own_part]]
    read = ReadBatches(images, batches, _unchanged)
    return _loaded(read, batching.device, workers, statistics)


def _loaded(
    batches: "ReadBatches",
    device: torch.device,
    workers: int,
    statistics: Statistics,
    first: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    mean, std = statistics.tensors(device)
    for images, labels in loaded_batches(batches, workers, device, first):
        yield normalize(images, mean, std), labels.long()


def _augmented(
    crop_size: int, as_published: bool, image: Tensor, labels: Tensor, seed: int
) -> Example:
    return augment(image, labels, crop_size, Generator().manual_seed(seed), as_published)


def _unchanged(image: Tensor, labels: Tensor, _: int) -> Example:
    return image, labels


class ReadBatches(Dataset):
    """Batches of images.

    An item is uint8 (n, 3, H, W) and uint8 (n, H, W); or the `UserError` that kept it from being
    read, for one that is raised in a worker comes out as a traceback.

    Args:
        images: where they are.
        batches: which of them are in each batch.
        change: gives what comes of an image, its classes and the seed, of one size in a batch.
    """

    def __init__(
        self,
        images: LabelledImages,
        batches: list[list[Part]],
        change: Callable[[Tensor, Tensor, int], Example],
    ) -> None:
        self.images = images
        self.batches = batches
        self.change = change

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor] | UserError:
        try:
            examples = [
                self.change(*self.images.read(index), seed) for index, seed in self.batches[number]
            ]
        except UserError as error:
            return error
        images, labels = zip(*examples, strict=True)
        return torch.stack(images), torch.stack(labels)
