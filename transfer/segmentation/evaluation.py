"""Classes of all pixels of an image of any size, and how often they are right."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from transfer.segmentation.loss import IGNORED

Network = Callable[[Tensor], Tensor]
"""Maps images (N, 3, H, W) to logits (N, classes, H, W)."""


@dataclass(frozen=True)
class Windows:
    """The square windows in which an image is looked at, and how often.

    Attributes:
        size: height and width of a window, in pixels.
        stride: pixels from one window to the next; the last ones are moved back into the image.
            None: five sixths of the size, as published.
        scales: what the image's sides are multiplied by; it is looked at once for each.
        flip: whether each window is looked at mirrored left to right, too.
    """

    size: int = 1024
    stride: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def places(self, side: int) -> list[int]:
        """Where windows begin along a side of so many pixels, at least `size`."""
        stride = self.stride or math.ceil(self.size * 5 / 6)
        count = math.ceil((side - self.size) / stride) + 1
        return [min(number * stride, side - self.size) for number in range(count)]


def class_scores(network: Network, images: Tensor, windows: Windows) -> Tensor:
    """How much speaks for each class at each pixel; the largest score is the pixel's class.

    As published, what is added up over windows, where they overlap, and scales is not the
    probability of a class but e to the power of it; a window's two probabilities, of which one is
    mirrored, are added up before.

    Args:
        network: in eval mode.
        images: normalised, float (N, 3, H, W).

    Returns:
        Scores, float32 (N, classes, H, W).
    """
    height, width = images.shape[2:]
    total = 0
    for scale in windows.scales:
        # Not to nothing, however small.
        size = [max(1, int(height * scale)), max(1, int(width * scale))]
        scores = _scores_of_windows(network, _resize(images, size), windows)
        total = total + _resize(scores, [height, width])
    return total


def _scores_of_windows(network: Network, images: Tensor, windows: Windows) -> Tensor:
    height, width = images.shape[2:]
    missing = [max(0, windows.size - side) for side in (height, width)]
    top, left = missing[0] // 2, missing[1] // 2
    # Zeros are the mean colour.
    padded = F.pad(images, (left, missing[1] - left, top, missing[0] - top))
    total: Tensor | None = None
    for y in windows.places(padded.shape[2]):
        for x in windows.places(padded.shape[3]):
            window = padded[:, :, y : y + windows.size, x : x + windows.size]
            probabilities = network(window).float().softmax(dim=1)
            if windows.flip:
                mirrored = network(window.flip(3)).float().softmax(dim=1)
                probabilities = probabilities + mirrored.flip(3)
            if total is None:
                shape = (len(images), probabilities.shape[1], *padded.shape[2:])
                total = probabilities.new_zeros(shape)
            total[:, :, y : y + windows.size, x : x + windows.size] += probabilities.exp()
    return total[:, :, top : top + height, left : left + width]


def _resize(x: Tensor, size: list[int]) -> Tensor:
    if list(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def new_counts(num_classes: int, device: torch.device) -> Tensor:
    """A matrix of zeros for `count_pixels` to count in, int64 (num_classes, num_classes)."""
    return torch.zeros((num_classes, num_classes), dtype=torch.int64, device=device)


def count_pixels(counts: Tensor, predicted: Tensor, labels: Tensor) -> None:
    """Count how many pixels of each true class (row) are taken for each class (column), in place.

    Counts are whole numbers, so those of several processes add up to the counts of one.

    Args:
        predicted: classes, integers of any shape.
        labels: of that shape, a class or `IGNORED`.
    """
    classes = len(counts)
    counted = labels != IGNORED
    places = labels[counted].long() * classes + predicted[counted].long()
    counts += torch.bincount(places, minlength=classes * classes).view(classes, classes)


def intersection_over_union(counts: Tensor) -> Tensor:
    """Each class's pixels that were found, over those that are its or were taken for its.

    Args:
        counts: of `count_pixels`.

    Returns:
        float64 (classes,); NaN for a class that is not there and was not found.
    """
    found = counts.diagonal().double()
    return found / (counts.sum(dim=0) + counts.sum(dim=1) - found)


def pixel_metrics(counts: Tensor) -> dict[str, float]:
    """In percent: `miou`, the mean of the classes' IoU, and `pixel_accuracy`.

    Classes that are not there and were not found are no part of the mean. Both are NaN without
    any pixels of a class.
    """
    found, total = int(counts.diagonal().sum()), int(counts.sum())
    return {
        "miou": 100 * intersection_over_union(counts).nanmean().item(),
        "pixel_accuracy": 100 * found / total if total else math.nan,
    }
