"""Batched augmentation against plain per-image code that draws the same random numbers."""

import pytest
import torch

from dataset.augmentation import (
    Augmentation,
    augment,
    color_jitter,
    cutout,
    normalize,
    random_crop,
    random_flip,
)


def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def images():
    return torch.randint(256, (64, 3, 10, 12), dtype=torch.uint8, generator=generator())


def test_crop_equals_cropping_each_padded_image(images):
    top, left = torch.randint(9, (2, 64), generator=generator()).tolist()
    cropped = random_crop(images, 4, generator())
    assert {*top} == {*left} == set(range(9))
    for index in range(64):
        padded = torch.zeros(3, 18, 20, dtype=torch.uint8)
        padded[:, 4:14, 4:16] = images[index]
        window = padded[:, top[index] : top[index] + 10, left[index] : left[index] + 12]
        assert torch.equal(cropped[index], window)


def test_flip_equals_flipping_each_image(images):
    draws = torch.rand(64, generator=generator()).tolist()
    flipped = random_flip(images, generator())
    assert any(draw < 0.5 for draw in draws) and any(draw >= 0.5 for draw in draws)
    for index in range(64):
        expected = images[index].flip(2) if draws[index] < 0.5 else images[index]
        assert torch.equal(flipped[index], expected)


@pytest.mark.parametrize("length", [1, 4, 5, 16])
def test_cutout_equals_a_square_cut_out_of_each_image(images, length):
    draws = generator()
    rows = torch.randint(10, (64,), generator=draws).tolist()
    columns = torch.randint(12, (64,), generator=draws).tolist()
    pixels = images.float() + 1
    cut = cutout(pixels, length, generator())
    half = length // 2
    for index in range(64):
        expected = pixels[index].clone()
        y, x = rows[index], columns[index]
        expected[:, max(0, y - half) : max(0, y + half), max(0, x - half) : max(0, x + half)] = 0
        assert torch.equal(cut[index], expected)


def test_normalization_is_torchvisions(images):
    from torchvision.transforms import functional

    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    expected = functional.normalize(images.float() / 255, mean, std)
    torch.testing.assert_close(normalize(images, mean, std), expected)


def test_nothing_asked_for_is_normalization_alone(images):
    mean, std = torch.full((3,), 0.5), torch.full((3,), 0.25)
    plain = augment(images, Augmentation(0, False, 0), mean, std, generator())
    assert torch.equal(plain, normalize(images, mean, std))


def test_the_same_seed_gives_the_same_batch(images):
    mean, std = torch.full((3,), 0.5), torch.full((3,), 0.25)
    everything = Augmentation(4, True, 6)
    first = augment(images, everything, mean, std, generator())
    assert torch.equal(first, augment(images, everything, mean, std, generator()))
    other = torch.Generator().manual_seed(4)
    assert not torch.equal(first, augment(images, everything, mean, std, other))


def test_batches_are_laid_out_channels_last(images):
    mean, std = torch.full((3,), 0.5), torch.full((3,), 0.25)
    batch = augment(images, Augmentation(4, True, 6), mean, std, generator())
    assert batch.is_contiguous(memory_format=torch.channels_last)


IDENTITY = (1.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("step", "name", "amounts"),
    [
        (0, "adjust_brightness", (0.6, 1.0, 1.4)),
        (1, "adjust_contrast", (0.6, 1.0, 1.4)),
        (2, "adjust_saturation", (0.6, 1.0, 1.4)),
        (3, "adjust_hue", (-0.2, 0.0, 0.2)),
    ],
)
def test_each_change_of_colour_is_torchvisions(step, name, amounts, images):
    from torchvision.transforms import functional

    changes = torch.tensor(IDENTITY).repeat(64, 1)
    changes[:, step] = torch.tensor(amounts)[torch.arange(64) % 3]
    images[0] = 77  # grey has no hue
    changed = color_jitter(images.float(), changes, (0, 1, 2, 3))
    for index in range(64):
        expected = getattr(functional, name)(images[index] / 255, amounts[index % 3])
        torch.testing.assert_close(changed[index] / 255, expected, atol=2e-3, rtol=0)


def test_changes_of_colour_go_in_their_order(images):
    changes = torch.tensor([1.4, 0.6, 1.0, 0.0]).repeat(64, 1)
    first, second = (color_jitter(images.float(), changes, order) for order in (
        (0, 1, 2, 3), (1, 0, 2, 3)
    ))  # fmt: skip
    assert not torch.allclose(first, second, atol=1)
    unchanged = color_jitter(images.float(), torch.tensor(IDENTITY).repeat(64, 1), (3, 2, 1, 0))
    torch.testing.assert_close(unchanged, images.float(), atol=0.01, rtol=0)
