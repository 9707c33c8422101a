"""Augmentation of images and label maps, and batches of them, drawn alike however they are made."""

from dataclasses import dataclass

import pytest
import torch
from test_segmentation_data import NAMES, label_file, write_cityscapes
from torch import Generator

from dataset.batching import Batching
from dataset.pixel_statistics import PUBLISHED_STATISTICS
from runtime.errors import UserError
from transfer.segmentation import augmentation
from transfer.segmentation.augmentation import MEAN_COLOUR, augment, change_colours, scaled, window
from transfer.segmentation.batches import SegmentationBatches
from transfer.segmentation.data import Cityscapes
from transfer.segmentation.loss import IGNORED
from transfer.segmentation.made import MadeShapes

CPU = torch.device("cpu")


def squares(height, width, side=16):
    """An image whose red is ten times the class, in squares of `side` pixels."""
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    labels = ((rows.view(-1, 1) * 5 + columns) % 19).to(torch.uint8)
    return torch.stack([labels * 10, labels, labels]), labels


def seeded(seed):
    return Generator().manual_seed(seed)


@pytest.fixture
def true_colours(monkeypatch):
    """No change of colours, so that a pixel's colour tells its class."""
    monkeypatch.setattr(augmentation, "COLOUR_CHANGE", 0.0)


@pytest.mark.parametrize("as_published", [False, True])
def test_image_and_labels_are_changed_together(true_colours, as_published):
    image, labels = squares(64, 96)
    parts = set()
    for seed in range(40):
        crop, classes = augment(image, labels, 64, seeded(seed), as_published)
        assert crop.shape == (3, 64, 64) and classes.shape == (64, 64)
        outside = classes == IGNORED
        assert (crop[:, outside] == torch.tensor(MEAN_COLOUR).view(3, 1)).all()
        parts.add(1 - outside.float().mean().item())
        # Between squares of the enlarged image its colours are mixed.
        right = (crop[0].float() - 10 * classes.float()).abs() <= 1
        assert right[~outside].float().mean() > 0.6
    # At a scale of 0.75 an image is not as high as the window.
    assert parts == ({1.0} if as_published else {0.75, 1.0})


def test_half_of_the_images_are_mirrored(true_colours, monkeypatch):
    monkeypatch.setattr(augmentation, "SCALES", (1.0,))
    image, labels = squares(32, 32)
    found = [augment(image, labels, 32, seeded(seed))[1] for seed in range(60)]
    mirrored = sum(torch.equal(classes, labels.flip(1)) for classes in found)
    assert mirrored + sum(torch.equal(classes, labels) for classes in found) == 60
    assert 20 <= mirrored <= 40


def test_all_scales_are_drawn(monkeypatch):
    drawn = []

    def recorded(image, labels, scale):
        drawn.append(scale)
        return scaled(image, labels, scale)

    monkeypatch.setattr(augmentation, "scaled", recorded)
    image, labels = squares(8, 8)
    for seed in range(60):
        augment(image, labels, 4, seeded(seed))
    assert set(drawn) == {0.75, 1, 1.25, 1.5, 1.75, 2}


def test_colours_change_within_their_range(monkeypatch):
    drawn = []

    def recorded(image, *factors):
        drawn.append(factors)
        return change_colours(image, *factors)

    monkeypatch.setattr(augmentation, "change_colours", recorded)
    image, labels = squares(8, 8)
    for seed in range(100):
        augment(image, labels, 4, seeded(seed))
    factors = torch.tensor(drawn)
    assert (factors.amin(dim=0) - 0.5).abs().amax() < 0.05
    assert (factors.amax(dim=0) - 1.5).abs().amax() < 0.05
    assert torch.equal(change_colours(image, 1, 1, 1), image)


def test_colours_by_hand():
    image = torch.tensor([[[100, 20]], [[60, 20]], [[20, 20]]], dtype=torch.uint8)
    # Grey is 0.299 R + 0.587 G + 0.114 B, here 67 and 20; contrast goes half way to their mean.
    for factors, expected in [
        ((1.5, 1, 1), [[150, 30], [90, 30], [30, 30]]),
        ((1, 0.5, 1), [[72, 32], [52, 32], [32, 32]]),
        ((1, 1, 0.5), [[84, 20], [64, 20], [44, 20]]),
    ]:
        found = change_colours(image, *factors)[:, 0].int()
        # torchvision rounds down.
        assert (found - torch.tensor(expected)).abs().amax() <= 1


def test_scaled_sides_are_rounded_down_and_labels_never_mixed():
    image, labels = squares(30, 50)
    small, classes = scaled(image, labels, 0.75)
    assert small.shape == (3, 22, 37) and classes.shape == (22, 37)
    assert set(classes.unique().tolist()) <= set(labels.unique().tolist())


def test_a_window_reaches_all_places():
    image, labels = squares(3, 5, side=1)
    assert torch.equal(window(image, labels, 3, 0.0, 0.0)[1], labels[:, :3])
    assert torch.equal(window(image, labels, 3, 0.999, 0.999)[1], labels[:, 2:])
    for place, rows in ((0.0, slice(0, 3)), (0.999, slice(2, 5))):
        classes = window(image, labels, 5, place, 0.0)[1]
        assert torch.equal(classes[rows], labels)
        assert (classes == IGNORED).sum() == 2 * 5


def batches(images, batch_size=4, rank=0, processes=1, **options):
    batching = Batching(batch_size, CPU, rank, processes)
    return SegmentationBatches(images, MadeShapes("val", 16), 16, batching, **options)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@dataclass(frozen=True)
class Few(MadeShapes):
    """The first made images, small ones."""

    split: str = "train"
    size: int = 16
    count: int = 8

    def __len__(self):
        return self.count


def test_batches_are_normalised_and_augmented():
    found = list(batches(Few(count=10)).training_batches(seed=3))
    assert [len(images) for images, _ in found] == [4, 4, 2]
    for images, labels in found:
        assert images.dtype == torch.float32 and images.shape[1:] == (3, 16, 16)
        assert labels.dtype == torch.int64 and labels.shape == (len(images), 16, 16)
        # What is missing is close to ImageNet's mean.
        outside = images.movedim(1, 0)[:, labels == IGNORED]
        assert not outside.numel() or outside.abs().amax() < 0.02
    again = list(batches(Few(count=10)).training_batches(seed=3))
    assert_same(again, found)
    other = list(batches(Few(count=10)).training_batches(seed=4))
    assert not torch.equal(other[0][0], found[0][0])


def test_batches_are_the_same_from_any_step_worker_or_process():
    whole = list(batches(Few()).training_batches(seed=3))
    assert_same(list(batches(Few()).training_batches(3, first_step=1)), whole[1:])
    assert_same(list(batches(Few(), workers=1).training_batches(3)), whole)
    for rank in range(2):
        part = list(batches(Few(), 4, rank, 2).training_batches(3))
        assert_same(part, [(images[rank::2], labels[rank::2]) for images, labels in whole])


def test_validation_images_come_whole_and_once_over_all_processes():
    one = list(batches(Few()).validation_batches())
    assert len(one) == 64
    assert all(images.shape == (1, 3, 16, 16) for images, _ in one)
    parts = [list(batches(Few(), 4, rank, 3).validation_batches()) for rank in range(3)]
    assert [len(part) for part in parts] == [22, 21, 21]
    for rank, part in enumerate(parts):
        assert_same(part, one[rank::3])
    pixels, labels = MadeShapes("val", 16).read(5)
    mean, std = PUBLISHED_STATISTICS["imagenet"].tensors(CPU)
    expected = (pixels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(one[5][0][0], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(one[5][1][0], labels.long())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_ends_the_pass_with_its_name(tmp_path, workers):
    write_cityscapes(tmp_path)
    label_file(tmp_path, NAMES[0]).write_text("no image")
    broken = batches(Cityscapes(tmp_path, "train"), 3, workers=workers)
    with pytest.raises(UserError, match=f"{NAMES[0]}_gtFine_labelIds.png: not an image"):
        list(broken.training_batches(seed=0))


def test_cityscapes_is_trained_on(tmp_path):
    write_cityscapes(tmp_path)
    ((images, labels),) = batches(Cityscapes(tmp_path, "train"), 3).training_batches(seed=0)
    assert images.shape == (3, 3, 16, 16)
    assert set(labels.unique().tolist()) <= {*range(19), IGNORED}
