"""Mean and standard deviation of an image set's pixels, by which images are normalised."""

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.untrusted import is_number
from utils import to_device


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of pixels scaled to [0, 1], by channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation as float32 (3,) on `device`."""
        mean, std = to_device(torch.tensor([self.mean, self.std]), device)
        return mean, std


def statistics_from_dict(content: object) -> Statistics:
    """Statistics from a file's dictionary with `mean` and `std`.

    Raises:
        ValueError: they are not there, or not three numbers each.
    """
    fields = []
    for name in ("mean", "std"):
        numbers = content.get(name) if isinstance(content, dict) else None
        if (
            not isinstance(numbers, list | tuple)
            or len(numbers) != 3
            or not all(is_number(number) for number in numbers)
            or (name == "std" and min(numbers) <= 0)
        ):
            kind = "numbers" if name == "mean" else "numbers above 0"
            raise ValueError(f"field {name!r} must be three {kind}")
        fields.append(tuple(numbers))
    return Statistics(*fields)


PUBLISHED_STATISTICS = {
    "cifar10": Statistics(
        (0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)
    ),
    "cifar100": Statistics((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Those of the training images, as the paper uses them."""
