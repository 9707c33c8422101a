"""Pictures of images with the classes of their pixels."""

import numpy as np
from PIL import Image
from torch import Tensor

from transfer.segmentation.data import PixelClass
from transfer.segmentation.loss import IGNORED

GAP = 4
"""Pixels of white between the parts of a picture."""

LARGEST_SIDE = 960
"""Pixels of a picture among others; larger ones are made smaller. Three times a usual one's."""


def comparison(
    image: Tensor, labels: Tensor, predicted: Tensor, classes: tuple[PixelClass, ...]
) -> Image.Image:
    """An image, its true classes and those that were found, side by side in RGB.

    Args:
        image: uint8 RGB (3, H, W).
        labels: integers (H, W), a class or `IGNORED`, which stays as the image is.
        predicted: integers (H, W), a class.
    """
    pixels = image.permute(1, 2, 0).cpu().numpy()
    gap = np.full((len(pixels), GAP, 3), 255, dtype=np.uint8)
    parts = [pixels, gap, coloured(pixels, labels, classes), gap]
    return Image.fromarray(np.hstack([*parts, coloured(pixels, predicted, classes)]))


def coloured(pixels: np.ndarray, labels: Tensor, classes: tuple[PixelClass, ...]) -> np.ndarray:
    """Pixels, uint8 (H, W, 3), half way to the colours of their classes."""
    numbers = labels.cpu().numpy()
    known = numbers != IGNORED
    colours = np.array([pixel_class.colour for pixel_class in classes])
    result = pixels.copy()
    result[known] = (pixels[known].astype(int) + colours[numbers[known]]) // 2
    return result
