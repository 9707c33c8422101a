"""One picture of several: test images with what was found in them."""

import io
import math
from collections.abc import Sequence

from PIL import Image

GAP = 4
"""Pixels of white between pictures."""

LARGEST_SIDE = 320
"""Pixels; usually larger pictures are made smaller."""


def shrunk(picture: Image.Image, largest_side: int) -> Image.Image:
    """A copy of a picture, made smaller if a side has more pixels."""
    picture = picture.copy()
    picture.thumbnail((largest_side, largest_side))
    return picture


def contact_sheet(pictures: Sequence[Image.Image], largest_side: int = LARGEST_SIDE) -> bytes:
    """Pictures in RGB, in rows of about as many as there are rows, as a PNG file's content.

    Args:
        largest_side: pixels; larger pictures are made smaller.
    """
    pictures = [shrunk(picture, largest_side) for picture in pictures]
    columns = math.ceil(math.sqrt(len(pictures)))
    width = GAP + max(picture.width for picture in pictures)
    height = GAP + max(picture.height for picture in pictures)
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * width - GAP, rows * height - GAP), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        sheet.paste(picture, (column * width, row * height))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
