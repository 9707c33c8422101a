"""The decode path's pixels against plain Pillow and torchvision."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from dataset.decoding import (
    CROP_ATTEMPTS,
    UNREADABLE,
    Box,
    center_crop_box,
    decode_crop,
    random_crop_box,
)

SIZE = 32


def scene(width, height, mode="RGB"):
    """A picture with slow and quick changes, as photographs have."""
    y, x = np.mgrid[0:height, 0:width] / SIZE
    waves = [128 + 60 * np.sin(3 * x + k) * np.cos(2 * y - k) + 20 * np.sin(5 * (x + y)) for k in
             range(3)]  # fmt: skip
    pixels = np.stack(waves, axis=-1) + np.random.default_rng(0).normal(0, 4, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def encode(image, kind="JPEG"):
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


def plain(encoded, box):
    """Decode everything, crop, resize, as torchvision's transforms do with Pillow images."""
    left, top, width, height = box
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    cropped = image.crop((left, top, left + width, top + height))
    return np.asarray(cropped.resize((SIZE, SIZE), Image.Resampling.BILINEAR)).astype(int)


def crops(width, height, count=30):
    draws = np.random.default_rng(4).random((count, CROP_ATTEMPTS, 4))
    return [random_crop_box(width, height, draw, (0.08, 1.0)) for draw in draws]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(500, 375), (333, 500), (97, 61), (20, 15)])
def test_decoding_in_full_is_plain_cropping_and_resizing(size, mode):
    encoded = encode(scene(*size, mode))
    for box in crops(*size):
        pixels = decode_crop(encoded, lambda *_, box=box: box, SIZE, reduced=False)
        assert pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8
        # Plain Pillow's but for rounding. Only at the crop's border the filter reaches a little
        # beyond it here, where plain cropping has left nothing to reach.
        border = 1 + math.ceil(SIZE / min(box[2:]))
        inner = (slice(border, -border),) * 2
        assert abs(pixels - plain(encoded, box))[inner].max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_decoding_at_reduced_scale_is_close_to_plain(mode):
    encoded = encode(scene(600, 450, mode))
    reduced_at_all = 0
    for box in crops(600, 450):
        pixels = decode_crop(encoded, lambda *_, box=box: box, SIZE, reduced=True)
        reduced_at_all += min(box[2:]) >= 2 * SIZE
        difference = abs(pixels - plain(encoded, box))
        assert difference.mean() < 2
        assert np.quantile(difference, 0.99) <= 8
    assert reduced_at_all > 25


def test_a_small_crop_is_decoded_in_full():
    encoded = encode(scene(100, 100))
    box = Box(10, 20, 2 * SIZE - 1, 70)
    in_full, reduced = (
        decode_crop(encoded, lambda *_: box, SIZE, reduced=reduced) for reduced in (False, True)
    )
    assert np.array_equal(in_full, reduced)
    larger = Box(10, 20, 2 * SIZE, 70)
    in_full, reduced = (
        decode_crop(encoded, lambda *_: larger, SIZE, reduced=reduced) for reduced in (False, True)
    )
    assert not np.array_equal(in_full, reduced)


@pytest.mark.parametrize(
    "damage",
    [
        lambda jpeg: jpeg[: len(jpeg) // 2],
        lambda jpeg: jpeg[:300],
        lambda _: b"",
        lambda _: b"hello",
    ],
)
@pytest.mark.parametrize("reduced", [False, True])
def test_a_damaged_image_is_refused(damage, reduced):
    damaged = damage(encode(scene(100, 100)))
    with pytest.raises(UNREADABLE):
        decode_crop(damaged, lambda w, h: Box(0, 0, w, h), SIZE, reduced)


def test_other_files_than_jpegs_are_decoded_in_full():
    encoded = encode(scene(200, 200), "PNG")
    box = Box(0, 0, 200, 200)
    pixels = decode_crop(encoded, lambda *_: box, SIZE, reduced=True)
    assert abs(pixels - plain(encoded, box)).max() <= 1


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (301, 301), (40, 90), (255, 1000)])
def test_the_middle_is_torchvisions(size):
    from torchvision import transforms

    encoded = encode(scene(*size))
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    expected = transforms.Compose([transforms.Resize(37), transforms.CenterCrop(SIZE)])(image)
    pixels = decode_crop(encoded, lambda w, h: center_crop_box(w, h, SIZE, 37), SIZE, reduced=False)
    difference = abs(pixels.astype(int) - np.asarray(expected).astype(int))
    assert difference.max() <= 1


def test_random_crops_have_the_recipes_area_and_shape():
    boxes = crops(500, 375, 2000)
    areas = np.array([box.width * box.height for box in boxes]) / (500 * 375)
    ratios = np.array([box.width / box.height for box in boxes])
    assert 0.079 < areas.min() < 0.1 and 0.9 < areas.max() <= 1
    assert 0.74 < ratios.min() < 0.78 and 1.28 < ratios.max() < 1.35
    assert abs(np.median(np.log([box.width / box.height for box in crops(400, 400, 2000)]))) < 0.05
    for box in boxes:
        assert box.left >= 0 and box.left + box.width <= 500
        assert box.top >= 0 and box.top + box.height <= 375
        assert all(side == int(side) for side in box)


@pytest.mark.parametrize(
    ("size", "expected"), [((1000, 30), Box(480, 0, 40, 30)), ((30, 1000), Box(0, 480, 30, 40))]
)
def test_images_too_long_for_any_crop_give_their_middle(size, expected):
    draws = np.full((CROP_ATTEMPTS, 4), 0.999)
    assert random_crop_box(*size, draws, (0.9, 1.0)) == expected


def test_crop_of_known_draws():
    draws = np.array([[1.0, 0.5, 0.0, 0.0]] + [[0.0] * 4] * (CROP_ATTEMPTS - 1))
    # All of the area and a square do not fit in; the second attempt is a quarter, upright.
    box = random_crop_box(200, 100, draws, (0.25, 1.0))
    area = 0.25 * 200 * 100
    assert box == Box(0, 0, round(math.sqrt(area * 3 / 4)), round(math.sqrt(area * 4 / 3)))
