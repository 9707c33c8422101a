"""A set that is made and not downloaded: bright discs, squares and triangles on dark ground."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from transfer.segmentation.data import PixelClass
from utils import derive_seed

SHAPE_CLASSES = (
    PixelClass("background", 0, (70, 70, 70)),
    PixelClass("disc", 1, (220, 20, 60)),
    PixelClass("square", 2, (70, 130, 180)),
    PixelClass("triangle", 3, (220, 220, 0)),
)

CORNERS = {1: math.inf, 2: 4, 3: 3}
"""By class. A disc has infinitely many."""

IMAGES = {"train": 512, "val": 64}
"""Number of images in each split."""

SHAPES = 3
"""In an image, each in a quarter of its own."""

DARKEST_SHAPE, BRIGHTEST_BACKGROUND = 128, 80
"""Of 255, in each colour channel, but for the noise."""

COLOUR_RANGE = 64
"""By so much a shape's colour varies in each channel; what then remains up to 255 is added to the
channel of its class."""

NOISE = 12.0
"""Standard deviation of what is added to each pixel, of 255."""


@dataclass(frozen=True)
class MadeShapes:
    """A split of the made set (see `LabelledImages`), the same images whenever they are read.

    Shapes differ in colour, size, place and rotation. Discs have more red than other colours,
    squares more green and triangles more blue, which makes them quick to learn.

    Attributes:
        split: in `IMAGES`.
        size: height and width of the images, in pixels.
    """

    split: str
    size: int = 96
    classes = SHAPE_CLASSES

    def __len__(self) -> int:
        return IMAGES[self.split]

    def name(self, index: int) -> str:
        return f"shapes_{self.split}_{index:04}"

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        seed = derive_seed(list(IMAGES).index(self.split), index)
        return shapes_image(self.size, Generator().manual_seed(seed))


def shapes_image(size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """An image of shapes, uint8 (3, size, size), and its classes, uint8 (size, size)."""
    background = BRIGHTEST_BACKGROUND * torch.rand(3, 1, 1, generator=generator)
    image = background.expand(3, size, size).clone()
    labels = torch.zeros(size, size, dtype=torch.uint8)
    quarters = torch.randperm(4, generator=generator).tolist()
    for quarter in quarters[:SHAPES]:
        colour = DARKEST_SHAPE + COLOUR_RANGE * torch.rand(3, 1, generator=generator)
        radius_draw, rotation, x, y, kind = torch.rand(5, generator=generator).tolist()
        # At most so large that it fits into its quarter, whatever its rotation.
        side = size / 2
        radius = side / 2 * (0.7 + 0.3 * radius_draw)
        centre = [
            place * side + radius + (side - 2 * radius) * draw
            for place, draw in zip(divmod(quarter, 2), (y, x), strict=True)
        ]
        number = 1 + int(kind * len(CORNERS))
        colour[number - 1] += 255 - DARKEST_SHAPE - COLOUR_RANGE
        inside = polygon(size, centre[0], centre[1], radius, CORNERS[number], math.tau * rotation)
        image[:, inside] = colour
        labels[inside] = number
    image += NOISE * torch.randn(image.shape, generator=generator)
    return image.round().clamp(0, 255).to(torch.uint8), labels


def polygon(
    size: int, y: float, x: float, radius: float, corners: float, rotation: float
) -> Tensor:
    """Which pixels' centres lie in a regular polygon with its corners on a circle.

    Args:
        size: height and width of the image.
        y, x: the centre, in pixels from the upper left corner.
        corners: number of them; infinitely many: the whole disc.
        rotation: of the middle of a side, in radians.

    Returns:
        bool (size, size).
    """
    places = torch.arange(size) + 0.5
    down, right = (places - y).view(-1, 1), (places - x).view(1, -1)
    distance = torch.hypot(down, right)
    if math.isinf(corners):
        return distance <= radius
    # How far a side is away, in the direction of the middle of the side that is nearest.
    sector = math.tau / corners
    angle = torch.atan2(down, right) - rotation
    from_middle = (angle + sector / 2) % sector - sector / 2
    return distance * from_middle.cos() <= radius * math.cos(sector / 2)
