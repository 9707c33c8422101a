"""A made set for detection: handwritten digits of random sizes at random places of a canvas."""

import torch
import torch.nn.functional as F
from torch import Generator
from torchvision import tv_tensors

from dataset.image_set import ImageSet, load_image_set
from transfer.detection.data import Sample
from utils import derive_seed

CANVAS = 160
"""Height and width of the images, in pixels."""

SMALLEST, LARGEST = 46, 80
"""Height and width that digits get, in pixels."""

MOST_DIGITS = 4
"""A digit at most is in each quarter of a canvas, and one at least is on it."""

IMAGES = {"train": 800, "val": 100}
"""Number of images in each split."""

CLASS_NAMES = ["digit"]
"""Of the labels from 1. Which digit it is would take more than minutes to learn."""


class MadeDigits:
    """A split of the made set (see `DetectionSet`), the same images whenever they are read.

    Args:
        split: in `IMAGES`. Their digits are those of the digits' own two splits.
    """

    has_objects = True

    def __init__(self, split: str) -> None:
        self.split = split
        self.class_names = CLASS_NAMES
        self.category_ids = [0, 1]
        self.digits = load_image_set("digits", "", {"train": "train", "val": "test"}[split])

    def __len__(self) -> int:
        return IMAGES[self.split]

    def image_id(self, index: int) -> int:
        return index

    def read(self, index: int, training: bool) -> Sample:
        return made_sample(self.digits, list(IMAGES).index(self.split), index)

    def files(self) -> list[tuple[str, int]]:
        return [(f"{index:06}", 0) for index in range(len(self))]


def made_sample(digits: ImageSet, *place: int) -> Sample:
    """A canvas with digits and where they are, a fixed function of `digits` and `place`.

    Args:
        digits: the embedded digits of a split.
        place: whole numbers from 0, such as a seed and the image's number.

    Returns:
        As from `read_sample`: the image is uint8 (3, CANVAS, CANVAS).
    """
    generator = Generator().manual_seed(derive_seed(*place))
    canvas = torch.zeros(3, CANVAS, CANVAS)
    boxes = []
    count = _random_number(1, MOST_DIGITS, generator)
    for quarter in torch.randperm(4, generator=generator)[:count].tolist():
        index = _random_number(0, len(digits) - 1, generator)
        size = _random_number(SMALLEST, LARGEST, generator)
        left, top = (
            half * CANVAS // 2 + _random_number(0, CANVAS // 2 - size, generator)
            for half in divmod(quarter, 2)
        )
        digit = digits.images[index : index + 1].float()
        scaled = F.interpolate(digit, size=(size, size), mode="bilinear")
        canvas[:, top : top + size, left : left + size] = scaled[0]
        boxes.append([left, top, left + size, top + size])
    corners = torch.tensor(boxes, dtype=torch.float32)
    target = {
        "boxes": tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(CANVAS, CANVAS)),
        "labels": torch.ones(count, dtype=torch.int64),
        "ignored": torch.zeros(count, dtype=torch.bool),
        "area": (corners[:, 2:] - corners[:, :2]).prod(dim=1),
    }
    return tv_tensors.Image(canvas.round().to(torch.uint8)), target


def _random_number(smallest: int, largest: int, generator: Generator) -> int:
    return int(torch.randint(smallest, largest + 1, (), generator=generator))
