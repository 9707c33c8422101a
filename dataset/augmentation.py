"""Augmentation of whole batches on the device that holds them.

A function that draws random numbers does so from the generator it is given, which must live on
the images' device.
"""

from collections.abc import Sequence
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
    """Pixels of 0 to 255, (N, 3, H, W), to float32: in [0, 1], less `mean`, over `std`, (3,).

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
    return flip(images, flipped)


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror those images left to right that `flipped`, bool (N,), says."""
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


def color_jitter(images: Tensor, changes: Tensor, order: Sequence[int]) -> Tensor:
    """Change brightness, contrast, saturation and hue, by another amount for each image.

    Args:
        images: float (N, 3, H, W), pixels of 0 to 255.
        changes: float (N, 4): the factors of the first three, 1 for no change, and the shift of
            the hue in turns, 0 for no change.
        order: which of the four comes first, second, ...: a permutation of 0 to 3.
    """
    steps = (_change_brightness, _change_contrast, _change_saturation, _change_hue)
    for step in order:
        images = steps[step](images, changes[:, step].view(-1, 1, 1, 1))
    return images


def _change_brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, 255)


def _change_contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(images).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean, images, factor).clamp(0, 255)


def _change_saturation(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(images), images, factor).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    """Luma by ITU-R BT.601, (N, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _change_hue(images: Tensor, shift: Tensor) -> Tensor:
    """By way of hue, saturation and value (Smith, 1978), the hue in sixths of a turn."""
    red, green, blue = images.split(1, dim=1)
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    divisor = chroma.clamp(min=1e-6)  # grey has no hue; any will do
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue = hue + 6 * shift
    # How far each channel is below `value`, as a part of the chroma.
    # 5, 3 and 1, counted out on the device: it need not be waited for.
    offsets = torch.arange(5.0, 0.0, -2.0, device=images.device).view(1, 3, 1, 1)
    place = (hue + offsets) % 6
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)
