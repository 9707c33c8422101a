"""Decoding a part of an encoded image straight to the size that the network takes."""

import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_IMAGE_PIXELS = 89_478_485
"""Larger images are refused: this many pixels take 256 MiB in RGB. Pillow's own limit."""

UNREADABLE = (
    OSError, ValueError, SyntaxError, NotImplementedError, Image.DecompressionBombError
)  # fmt: skip
"""What Pillow raises for a file that is not an image, or a damaged one."""

PILLOW_MODULES = re.compile(r"PIL\.")

UNSIGNED_16_BITS = ("PNG", "TIFF", "JPEG2000", "PPM")
"""Formats whose grey pixels of 16 bits, in one of Pillow's modes I;16, go from 0 to 65535."""

UNSIGNED_16_BITS_IN_I = ("PNG", "PPM")
"""Formats whose pixels in Pillow's mode I do."""

BITS_PER_SAMPLE, PHOTOMETRIC_INTERPRETATION = 258, 262
"""Tags of TIFF files."""

WHITE_IS_ZERO = 0
"""A photometric interpretation."""

CROP_RATIO = (3 / 4, 4 / 3)
"""Smallest and largest width over height of a random crop."""

CROP_ATTEMPTS = 10
"""So many crops are tried before the largest one in the middle is taken."""


@contextmanager
def decoding_pool(threads: int | None) -> Iterator[ThreadPoolExecutor]:
    """Threads to decode in; when the block is left early, what still waits is not begun."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class Box(NamedTuple):
    """A rectangle in an image's pixels; parts of pixels are allowed."""

    left: float
    top: float
    width: float
    height: float


Crop = Callable[[int, int], Box]
"""What to cut out of an image, given its width and height."""


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Open an image file without decoding it.

    Raises:
        UNREADABLE: it is none that Pillow reads, or larger than `MAX_IMAGE_PIXELS`.
    """
    _silence_pillow()
    try:
        image = Image.open(source)
    except UnidentifiedImageError:  # its text has the source's address in memory
        raise UnidentifiedImageError("no image format that is known") from None
    try:
        check_image_size(*image.size)
        if image.format == "EPS":  # it would be given to Ghostscript, which runs it
            raise ValueError("EPS files are programs, which are not run")
    except ValueError:
        image.close()
        raise
    return image


def _silence_pillow() -> None:
    """Let Pillow not warn: what is wrong with pixels is raised here, and EXIF data is not used.

    Its warnings name no file. They are not caught around each image, for that is no matter of one
    thread alone.
    """
    if not any(item[0] == "ignore" and item[3] == PILLOW_MODULES for item in warnings.filters):
        warnings.filterwarnings("ignore", module=PILLOW_MODULES.pattern)
        logging.getLogger("PIL").setLevel(logging.CRITICAL)


def check_image_size(width: int, height: int) -> None:
    """Refuse an image without pixels, or with more than `MAX_IMAGE_PIXELS`.

    Raises:
        ValueError: it is one.
    """
    if not 1 <= width * height <= MAX_IMAGE_PIXELS:
        raise ValueError(f"{width}×{height} pixels; from 1 to {MAX_IMAGE_PIXELS:,} can be read")


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, 8 bits a channel.

    Raises:
        UNREADABLE: as `grey_or_rgb`.
    """
    return grey_or_rgb(image).convert("RGB")


def grey_or_rgb(image: Image.Image) -> Image.Image:
    """The image, decoded, in 8 bits: in L if it is that or grey of up to 16 bits, else in RGB.

    A palette with transparency goes by way of RGBA, as Pillow advises.

    Raises:
        UNREADABLE: it is damaged, or its values have no known range (32 bits, signed numbers,
            floats).
    """
    image.load()
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey_in_8_bits(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _grey_in_8_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion cuts all values off at 255. It gives 16 bits in mode I where it once
    # had no other mode, and only for formats that cannot hold more.
    known = UNSIGNED_16_BITS if image.mode.startswith("I;16") else UNSIGNED_16_BITS_IN_I
    if image.format not in known:
        raise ValueError(
            f"its pixels ({image.format}, mode {image.mode}) have no known range; save it with 8 "
            "or 16 bits a pixel"
        )
    largest = 0xFFFF
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if BITS_PER_SAMPLE in tags:
        largest = (1 << tags[BITS_PER_SAMPLE][0]) - 1
    values = np.asarray(image).astype(np.uint32)
    pixels = ((values * 255 + largest // 2) // largest).clip(max=255).astype(np.uint8)
    if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        pixels = 255 - pixels
    return Image.fromarray(pixels)


def decode_crop(encoded: bytes, crop: Crop, image_size: int, reduced: bool) -> np.ndarray:
    """Decode an image and resize a part of it, bilinear and antialiased.

    Args:
        encoded: a JPEG, or any other file that Pillow reads.
        crop: gives the part of the image to take.
        image_size: height and width of the result.
        reduced: whether a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, where `crop` still
            has `image_size` pixels on each side. Faster; pixels of photographs differ by 1.5 of
            255 on average.

    Returns:
        uint8 RGB (image_size, image_size, 3).

    Raises:
        UNREADABLE: Pillow cannot read it.
    """
    with open_image(io.BytesIO(encoded)) as image:
        return resize_part(*decode_part(image, crop, image_size, reduced), image_size)


def decode_part(
    image: Image.Image, crop: Crop, image_size: int, reduced: bool
) -> tuple[Image.Image, Box]:
    """The first half of `decode_crop`: the decoded image, and the part of it to take."""
    box = crop(*image.size)
    divisor = 1
    while reduced and divisor < 8 and min(box[2:]) >= 2 * divisor * image_size:
        divisor *= 2
    if divisor > 1:
        before = image.size
        image.draft(None, (image.width // divisor, image.height // divisor))
        if image.size == before:  # not a JPEG
            divisor = 1
    image.load()
    # Grey images stay grey until they are small.
    return grey_or_rgb(image), Box(*(side / divisor for side in box))


def resize_part(image: Image.Image, box: Box, image_size: int) -> np.ndarray:
    """The second half of `decode_crop`."""
    left, top, width, height = box
    resized = image.resize(
        (image_size, image_size),
        Image.Resampling.BILINEAR,
        # Rounding must not lead out of the image.
        (left, top, min(left + width, image.width), min(top + height, image.height)),
    )
    return np.asarray(to_rgb(resized))


def random_crop_box(width: int, height: int, draws: np.ndarray, scale: tuple[float, float]) -> Box:
    """A part of random area and shape (Szegedy et al., 2015, arXiv:1409.4842, section 6).

    Args:
        draws: uniform in [0, 1), (CROP_ATTEMPTS, 4): for each attempt area, shape, left, top.
        scale: smallest and largest area, as a part of the image's.
    """
    smallest, largest = (math.log(ratio) for ratio in CROP_RATIO)
    for area_draw, ratio_draw, left_draw, top_draw in draws.tolist():
        area = width * height * (scale[0] + (scale[1] - scale[0]) * area_draw)
        ratio = math.exp(smallest + (largest - smallest) * ratio_draw)
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(left_draw * (width - crop_width + 1))
            top = int(top_draw * (height - crop_height + 1))
            return Box(left, top, crop_width, crop_height)
    crop_width = min(width, round(height * CROP_RATIO[1]))
    crop_height = min(height, round(width / CROP_RATIO[0]))
    return Box((width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height)


def center_crop_box(width: int, height: int, image_size: int, resize: int) -> Box:
    """The middle square of `image_size` pixels after the shorter side is resized to `resize`."""
    short = min(width, height)
    new_width, new_height = (int(resize * side / short) for side in (width, height))
    left, top = (round((side - image_size) / 2) for side in (new_width, new_height))
    across, down = width / new_width, height / new_height
    return Box(left * across, top * down, image_size * across, image_size * down)
