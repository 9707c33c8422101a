"""Batches of images and their objects: read and augmented in worker processes.

The random numbers of an image are drawn from the run's seed, the step and the image's place in the
batch, so that neither the number of workers nor that of processes changes them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dataset.batching import Batching, Part
from dataset.workers import loaded_batches
from runtime.errors import UserError
from transfer.detection.data import Sample, augment
from transfer.detection.sets import DetectionSet

Target = dict[str, Tensor]

TRAINING_FIELDS = ("boxes", "labels")

VALIDATION_FIELDS = ("boxes", "labels", "ignored", "area")
"""What targets have for each object."""


@dataclass(frozen=True)
class DetectionBatches:
    """Images to train on and images to validate on, in batches.

    As `dataset.batching.Batches`, but that a batch has a target for each image in the place of its
    label. Pixels are in [0, 1].

    Attributes:
        image_size: height and width that training images get.
        batching: the batches, and this process's part of them.
        workers: processes that read images for this one; 0: it reads them itself.
        as_published: as for `augment`.
    """

    train_images: DetectionSet
    validation_images: DetectionSet
    image_size: int
    batching: Batching
    workers: int = 0
    as_published: bool = False

    @property
    def steps(self) -> int:
        """Number of training batches in a pass, the same in all processes."""
        return self.batching.steps(len(self.train_images))

    def training_batches(
        self, seed: int, first_step: int = 0
    ) -> Iterator[tuple[Tensor, list[Target]]]:
        """This process's part of one pass in an order drawn from `seed`, augmented.

        Args:
            first_step: number of batches to leave out at the start.

        Returns:
            Batches of float32 (n, 3, image_size, image_size), and targets with `TRAINING_FIELDS`.

        Raises:
            UserError: an image cannot be used; names it. Or a worker died.
        """
        batches = self.batching.drawn_parts(len(self.train_images), seed)
        change = partial(_augmented, self.image_size, self.as_published)
        reader = ReadBatches(self.train_images, batches, change)
        for images, targets in _load(reader, self.workers, self.batching.device, first_step):
            yield torch.stack(images), targets

    def validation_batches(self) -> Iterator[tuple[list[Tensor], list[Target]]]:
        """This process's part of the validation images, as `evaluation_batches` gives them."""
        return evaluation_batches(self.validation_images, self.batching, self.workers)


def evaluation_batches(
    images: DetectionSet, batching: Batching, workers: int
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    """This process's part of the images, each once over all processes.

    Args:
        workers: as in `DetectionBatches`.

    Returns:
        Batches of images of their own sizes, float32 (3, H, W), and of targets, with
        `VALIDATION_FIELDS` and the image's `number` in the set, int64 ().

    Raises:
        UserError: an image cannot be used; names it. Or a worker died.
    """
    numbers = range(len(images))[batching.own_part]
    size = batching.size_of_own
    batches = [
        [(number, 0) for number in numbers[start : start + size]]
        for start in range(0, len(numbers), size)
    ]
    loaded = _load(ReadBatches(images, batches), workers, batching.device)
    for parts, (pixels, targets) in zip(batches, loaded, strict=True):
        for (number, _), target in zip(parts, targets, strict=True):
            target["number"] = torch.tensor(number)
        yield pixels, targets


def _load(
    reader: "ReadBatches", workers: int, device: torch.device, first: int = 0
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    for packed in loaded_batches(reader, workers, device, first):
        samples = unpack(packed, reader.fields)
        yield [image.float() / 255 for image, _ in samples], [target for _, target in samples]


def _augmented(
    image_size: int, as_published: bool, image: Tensor, target: Target, seed: int
) -> Sample:
    return augment(image, target, image_size, seed, as_published)


class ReadBatches(Dataset):
    """Batches of images.

    An item is what `pack` gives; or the `UserError` that kept it from being read, for one that is
    raised in a worker comes out as a traceback.

    Args:
        images: where they are.
        batches: which of them are in each batch.
        change: gives what comes of an image to train on, its target and the seed; None: images are
            to be validated on, and stay as they are.

    Attributes:
        fields: what the targets have.
    """

    def __init__(
        self,
        images: DetectionSet,
        batches: list[list[Part]],
        change: Callable[[Tensor, Target, int], Sample] | None = None,
    ) -> None:
        self.images = images
        self.batches = batches
        self.change = change
        self.fields = TRAINING_FIELDS if change else VALIDATION_FIELDS

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, ...] | UserError:
        try:
            return pack([self._sample(*part) for part in self.batches[number]], self.fields)
        except UserError as error:
            return error

    def _sample(self, index: int, seed: int) -> Sample:
        sample = self.images.read(index, training=self.change is not None)
        return self.change(*sample, seed) if self.change else sample


def pack(samples: Sequence[Sample], fields: Sequence[str]) -> tuple[Tensor, ...]:
    """Samples as a few tensors, for each that leaves a worker costs time.

    Returns:
        By image its height, its width and the number of its objects, int64 (n, 3); all pixels,
        uint8; and for each field what the targets have in it, one after the other.
    """
    shapes = [[*image.shape[1:], len(target["labels"])] for image, target in samples]
    pixels = torch.cat([image.as_subclass(Tensor).flatten() for image, _ in samples])
    parts = [
        torch.cat([target[name].as_subclass(Tensor) for _, target in samples]) for name in fields
    ]
    return torch.tensor(shapes), pixels, *parts


def unpack(packed: tuple[Tensor, ...], fields: Sequence[str]) -> list[Sample]:
    """The samples that were packed, with these fields in their targets."""
    shapes, pixels, *parts = packed
    sizes = shapes.tolist()
    counts = [count for _, _, count in sizes]
    images = pixels.split([3 * height * width for height, width, _ in sizes])
    split = [part.split(counts) for part in parts]
    return [
        (
            image.view(3, height, width),
            {name: part[index] for name, part in zip(fields, split, strict=True)},
        )
        for index, (image, (height, width, _)) in enumerate(zip(images, sizes, strict=True))
    ]
