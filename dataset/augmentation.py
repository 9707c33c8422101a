"""Augmentation of whole batches on the device that holds them.

Every function draws its random numbers from the generator it is given, which must live on the
images' device.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images.

    Attributes:
        crop_padding: pixels of black added on each side before cropping back; 0: no crop.
        flip: whether half of the images are mirrored left to right.
        cutout_length: side of the square set to zero after normalisation, in pixels; 0: none.
    """

    crop_padding: int
    flip: bool
    cutout_length: int


def augment(
    images: Tensor, augmentation: Augmentation, mean: Tensor, std: Tensor, generator: Generator
) -> Tensor:
    """Random crop, flip, normalisation, cutout: uint8 (N, 3, H, W) to float32 of that shape."""
    if augmentation.crop_padding:
        images = random_crop(images, augmentation.crop_padding, generator)
    if augmentation.flip:
        images = random_flip(images, generator)
    normalized = normalize(images, mean, std)
    if augmentation.cutout_length:
        normalized = cutout(normalized, augmentation.cutout_length, generator)
    return normalized


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) to float32: scaled to [0, 1], less `mean`, over `std`, each (3,).

    The result is laid out channels last, which convolutions are fastest in.
    """
    images = images.to(memory_format=torch.channels_last)
    return (images - (255 * mean).view(1, 3, 1, 1)) / (255 * std).view(1, 3, 1, 1)


def random_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Pad with zeros and crop back to the same size, at a place drawn for each image."""
    count, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    top, left = torch.randint(
        2 * padding + 1, (2, count), generator=generator, device=images.device
    )
    # All windows of the padded images as a view: (N, C, tops, lefts, H, W).
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)


def cutout(images: Tensor, length: int, generator: Generator) -> Tensor:
    """Set one square of each image to zero (DeVries and Taylor, 2017, arXiv:1708.04552).

    The centre is drawn over the whole image, so that the square may reach beyond its border.
    """
    count, _, height, width = images.shape
    device = images.device
    rows = _within_square(height, length, count, generator, device)
    columns = _within_square(width, length, count, generator, device)
    square = rows.view(count, 1, height, 1) & columns.view(count, 1, 1, width)
    return torch.where(square, 0.0, images)


def _within_square(
    size: int, length: int, count: int, generator: Generator, device: torch.device
) -> Tensor:
    """Which positions along one side lie in the square: bool (count, size)."""
    centre = torch.randint(size, (count, 1), generator=generator, device=device)
    offset = torch.arange(size, device=device) - centre
    return (offset >= -(length // 2)) & (offset < length // 2)
