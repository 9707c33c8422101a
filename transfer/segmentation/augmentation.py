"""Changes of training images and their label maps: colours, mirroring, scale, a random window."""

import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from dataset.pixel_statistics import PUBLISHED_STATISTICS
from transfer.segmentation.loss import IGNORED

COLOUR_CHANGE = 0.5
"""Brightness, contrast and saturation are multiplied by 1 ± at most so much."""

SCALES = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)

MEAN_COLOUR = [round(255 * mean) for mean in PUBLISHED_STATISTICS["imagenet"].mean]
"""What lies around an image that is smaller than the window: close to 0 when normalised."""

Example = tuple[Tensor, Tensor]
"""An image, uint8 (3, H, W), and its classes, uint8 (H, W)."""


def augment(
    image: Tensor, labels: Tensor, crop_size: int, generator: Generator, as_published: bool = False
) -> Example:
    """Change colours, mirror half of the images, scale, and cut out a window.

    Args:
        image: uint8 RGB (3, H, W).
        labels: its classes, uint8 (H, W).
        crop_size: height and width of the window.
        generator: of the CPU; as many numbers are drawn for each image.
        as_published: enlarge what is smaller than the window until it fills it, which takes back
            Cityscapes' scale of 0.75; else what is missing is `IGNORED`.

    Returns:
        The window, uint8 (3, crop_size, crop_size) and (crop_size, crop_size).
    """
    *colours, mirrored, scale, top, left = torch.rand(7, generator=generator).tolist()
    image = change_colours(image, *(1 + COLOUR_CHANGE * (2 * draw - 1) for draw in colours))
    if mirrored < 0.5:
        image, labels = image.flip(2), labels.flip(1)
    image, labels = scaled(image, labels, SCALES[int(scale * len(SCALES))])
    if as_published:
        image, labels = _enlarged(image, labels, crop_size)
    return window(image, labels, crop_size, top, left)


def change_colours(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Multiply brightness, then contrast, then saturation of uint8 (3, H, W) by these factors."""
    image = functional.adjust_brightness(image, brightness)
    image = functional.adjust_contrast(image, contrast)
    return functional.adjust_saturation(image, saturation)


def scaled(image: Tensor, labels: Tensor, scale: float) -> Example:
    """Image and label map with sides `scale` times as long, rounded down."""
    return _resized(image, labels, [max(1, int(side * scale)) for side in labels.shape])


def _enlarged(image: Tensor, labels: Tensor, crop_size: int) -> Example:
    height, width = labels.shape
    if min(height, width) >= crop_size:
        return image, labels
    scale = crop_size / min(height, width)
    return _resized(image, labels, [int(side * scale + 1) for side in (height, width)])


def _resized(image: Tensor, labels: Tensor, size: list[int]) -> Example:
    if list(labels.shape) == size:
        return image, labels
    # As Pillow has them.
    image = functional.resize(image, size, InterpolationMode.BILINEAR, antialias=True)
    return image, functional.resize(labels[None], size, InterpolationMode.NEAREST_EXACT)[0]


def window(image: Tensor, labels: Tensor, size: int, top: float, left: float) -> Example:
    """A square of `size` pixels, surrounded by `MEAN_COLOUR` and `IGNORED` where they are missing.

    Args:
        top, left: how far along the possible places it lies, from 0 up to and without 1.
    """
    missing = [max(0, size - side) for side in labels.shape]
    if any(missing):
        above, before = int(top * (missing[0] + 1)), int(left * (missing[1] + 1))
        padding = [before, above, missing[1] - before, missing[0] - above]
        image = functional.pad(image, padding, fill=MEAN_COLOUR)
        labels = functional.pad(labels[None], padding, fill=IGNORED)[0]
    y, x = (
        int(place * (side - size + 1))
        for place, side in zip((top, left), labels.shape, strict=True)
    )
    return image[:, y : y + size, x : x + size], labels[y : y + size, x : x + size]
