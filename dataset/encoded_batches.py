"""Batches of encoded images: decoded in worker processes, augmented on the device.

Workers hand over uint8 pixels; flips, colours and normalisation are left to the device. The random
numbers of a training batch are drawn for the whole of it, from the run's seed, the epoch and the
step. So neither the number of workers nor that of processes changes them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from dataset.augmentation import color_jitter, flip, normalize
from dataset.batching import Batching
from dataset.decoding import (
    CROP_ATTEMPTS,
    UNREADABLE,
    Crop,
    center_crop_box,
    decode_crop,
    random_crop_box,
)
from dataset.encoded_images import EncodedImages
from dataset.image_set import Statistics
from dataset.workers import loaded_batches
from runtime.errors import UserError
from utils import derive_seed, to_device


@dataclass(frozen=True)
class Loading:
    """How encoded images become batches.

    Attributes:
        image_size: height and width of the images.
        validation_resize: what the shorter side becomes before the middle is cut out.
        statistics: of the normalisation.
        batching: the batches, and this process's part of them.
        workers: processes that decode for this one; 0: it decodes itself.
        crop_scale: smallest and largest area of a training crop, as a part of the image's.
        jitter: largest change of brightness, contrast, saturation (factors 1 ± that much) and
            hue (turns) in training.
    """

    image_size: int
    validation_resize: int
    statistics: Statistics
    batching: Batching
    workers: int
    crop_scale: tuple[float, float] = (0.08, 1.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)


@dataclass(frozen=True)
class EncodedBatches:
    """Images to train on and images to validate on, in batches (see `Batches`)."""

    train_images: EncodedImages
    validation_images: EncodedImages
    loading: Loading

    @property
    def steps(self) -> int:
        return self.loading.batching.steps(len(self.train_images))

    def training_batches(self, seed: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return training_batches(self.train_images, self.loading, seed, first_step)

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return evaluation_batches(self.validation_images, self.loading)


def training_batches(
    images: EncodedImages, loading: Loading, seed: int, first_step: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of one pass in random order, augmented.

    Args:
        seed: the epoch's.
        first_step: number of batches to leave out at the start.

    Yields:
        Images, float32 (n, 3, image_size, image_size), channels last in memory, and labels, int64
        (n,), on the device.

    Raises:
        UserError: an image cannot be read; names it. Or a worker died.
    """
    mean, std = loading.statistics.tensors(loading.batching.device)
    decoded = decoded_training_batches(images, loading, seed, first_step)
    for step, (pixels, labels) in enumerate(decoded, start=first_step):
        augmented = augment(pixels, loading, derive_seed(seed, 3, step))
        yield normalize(augmented, mean, std), labels


def decoded_training_batches(
    images: EncodedImages, loading: Loading, seed: int, first_step: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """What `training_batches` begins with: random crops, uint8 (n, 3, H, W) on the device."""
    order = np.random.default_rng(derive_seed(seed, 1)).permutation(len(images))
    size = loading.batching.batch_size
    batches = [
        order[step * size : (step + 1) * size][loading.batching.own_part]
        for step in range(loading.batching.steps(len(images)))
    ]
    crops = partial(_random_crops, loading, derive_seed(seed, 2))
    decoded = DecodedBatches(images, batches, crops, loading.image_size, reduced=True)
    return _load(decoded, loading, first_step)


def augment(pixels: Tensor, loading: Loading, seed: int) -> Tensor:
    """Flips and changes of colour: (n, 3, H, W), uint8, or float32 if colours were changed."""
    batching, device = loading.batching, loading.batching.device
    generator = Generator().manual_seed(seed)
    draws = torch.rand(batching.batch_size, 5, generator=generator)
    draws = draws[batching.own_part][: len(pixels)]
    pixels = flip(pixels, to_device(draws[:, 0] < 0.5, device))
    if any(loading.jitter):
        strengths = torch.tensor(loading.jitter)
        unchanged = torch.tensor([1.0, 1.0, 1.0, 0.0])
        changes = unchanged + strengths * (2 * draws[:, 1:] - 1)
        # One order for the whole batch, for that lets the device work on all of it at once.
        order = torch.randperm(4, generator=generator).tolist()
        pixels = color_jitter(pixels.float(), to_device(changes, device), order)
    return pixels


def evaluation_batches(images: EncodedImages, loading: Loading) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of one pass in order; each image once over all processes.

    Yields and raises as `training_batches`.
    """
    batching = loading.batching
    mean, std = loading.statistics.tensors(batching.device)
    own = np.arange(len(images))[batching.own_part]
    size = batching.size_of_own
    batches = [own[start : start + size] for start in range(0, len(own), size)]
    crops = partial(_center_crops, loading)
    # Decoded in full, so that results can be compared with those of others.
    decoded = DecodedBatches(images, batches, crops, loading.image_size, reduced=False)
    for pixels, labels in _load(decoded, loading):
        yield normalize(pixels, mean, std), labels


class DecodedBatches(Dataset):
    """Batches of images, cropped and resized.

    An item is uint8 (n, image_size, image_size, 3) and int64 (n,); or the `UserError` that kept
    it from being read, for one that is raised in a worker comes out as a traceback.

    Args:
        images: where they are.
        batches: which of them are in each batch, integers (n,).
        crops: gives for a batch's number what to cut out of each of its images.
        image_size, reduced: as for `decode_crop`.
    """

    def __init__(
        self,
        images: EncodedImages,
        batches: list[np.ndarray],
        crops: Callable[[int], list[Crop]],
        image_size: int,
        reduced: bool,
    ) -> None:
        self.images = images
        self.batches = batches
        self.crops = crops
        self.image_size = image_size
        self.reduced = reduced

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor] | UserError:
        indices = self.batches[number]
        pixels = np.empty((len(indices), self.image_size, self.image_size, 3), dtype=np.uint8)
        labels = np.empty(len(indices), dtype=np.int64)
        for row, crop in zip(range(len(indices)), self.crops(number), strict=False):
            try:
                encoded, labels[row] = self.images.read(indices[row])
                pixels[row] = decode_crop(encoded, crop, self.image_size, self.reduced)
            except UserError as error:
                return error
            except UNREADABLE as error:
                name = self.images.name(indices[row])
                return UserError(f"{name}: not an image that can be read ({error}); mend it")
        return torch.from_numpy(pixels), torch.from_numpy(labels)


def _random_crops(loading: Loading, seed: int, step: int) -> list[Crop]:
    generator = np.random.default_rng(derive_seed(seed, step))
    batching = loading.batching
    draws = generator.random((batching.batch_size, CROP_ATTEMPTS, 4))[batching.own_part]
    return [partial(random_crop_box, draws=own, scale=loading.crop_scale) for own in draws]


def _center_crops(loading: Loading, _: int) -> list[Crop]:
    crop = partial(center_crop_box, image_size=loading.image_size, resize=loading.validation_resize)
    return [crop] * loading.batching.batch_size


def _load(
    decoded: DecodedBatches, loading: Loading, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decode in the workers, from batch `first` on.

    Images come as uint8 (n, 3, H, W) on the device, channels last.
    """
    if loading.workers:
        decoded.images.close()  # each worker opens its own
    device = loading.batching.device
    for pixels, labels in loaded_batches(decoded, loading.workers, device, first):
        yield pixels.permute(0, 3, 1, 2), labels
