"""Augmentation, and the made set."""

import numpy as np
import pytest
import torch

from dataset.image_set import load_image_set
from transfer.detection import data
from transfer.detection.data import augment
from transfer.detection.made import CANVAS, CLASS_NAMES, LARGEST, SMALLEST, made_sample
from transfer.detection.network import new_detector


def sample(objects=3, width=60, height=40):
    """An image that is black but for bright objects, so that boxes can be seen."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    boxes = [[4, 4, 16, 16], [24, 6, 44, 20], [6, 22, 30, 38]][:objects]
    for x1, y1, x2, y2 in boxes:
        image[:, y1:y2, x1:x2] = 200
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    target = {
        "boxes": data._bounding_boxes(corners, height, width),
        "labels": torch.arange(1, objects + 1),
        "ignored": torch.zeros(objects, dtype=torch.bool),
        "area": torch.ones(objects),
    }
    return data.tv_tensors.Image(image), target


def test_augmentation_is_a_function_of_its_seed():
    before = torch.random.get_rng_state()
    first, again, other = (augment(*sample(), 64, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first[0], again[0]) and torch.equal(first[1]["boxes"], again[1]["boxes"])
    assert not torch.equal(first[0], other[0])


def test_augmented_boxes_stay_around_their_objects():
    counts, sizes, colours, grey, mirrored = set(), [], [], [], []
    for seed in range(200):
        image, target = augment(*sample(), 64, seed)
        assert image.shape == (3, 64, 64) and image.dtype == torch.uint8
        boxes = target["boxes"]
        assert (boxes >= 0).all() and (boxes <= 64).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(boxes) == len(target["labels"]) >= 1
        assert sorted(target) == ["boxes", "labels"]
        counts.add(len(boxes))
        sizes.append((boxes[:, 2] - boxes[:, 0]).max().item())
        colours.append(image.float().mean().item())
        grey.append((image == 127).all(dim=0).float().mean().item())
        lefts = dict(zip(target["labels"].tolist(), boxes[:, 0].tolist(), strict=True))
        if {1, 2} <= lefts.keys():
            mirrored.append(lefts[1] > lefts[2])
        for box in boxes.round().int().tolist():
            inside = image[:, box[1] : box[3], box[0] : box[2]].float()
            if inside.numel() > 3 * 100:
                # Bright in at least one channel, whatever happened to the colours.
                assert inside.mean(dim=(1, 2)).max() > 60
    assert counts == {1, 2, 3}
    assert min(sizes) < 8 and max(sizes) > 50  # zoomed out, and cropped
    assert np.std(colours) > 20
    assert 0.15 < np.mean(np.array(grey) > 0.2) < 0.6  # around what was zoomed out
    assert 0.3 < np.mean(mirrored) < 0.7


def test_boxes_that_shrink_away_are_left_out():
    for seed in range(30):
        image, target = sample(1)
        target["boxes"][0, 2:] = target["boxes"][0, :2] + 2
        _, target = augment(image, target, 16, seed)
        boxes = target["boxes"]
        assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
        assert len(boxes) == len(target["labels"])


def test_a_shrunken_image_is_not_smoothed():
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, :, ::4] = 255  # between the pixels that are looked at, mirrored or not
    shrunken, _ = data._after_crop(8)(data.tv_tensors.Image(image), {})
    assert shrunken.shape == (3, 8, 8) and shrunken.max() == 0


@pytest.mark.parametrize(("objects", "width"), [(0, 60), (0, 1), (1, 3)])
def test_images_without_objects_and_tiny_ones_are_augmented(objects, width):
    for seed in range(30):
        image, target = augment(*sample(objects, width, 40), 32, seed)
        assert image.shape == (3, 32, 32) and target["boxes"].shape[1] == 4


def test_brightness_is_added(monkeypatch):
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    found = set()
    torch.manual_seed(0)
    for _ in range(300):
        changed, _ = data.RandomBrightness()(data.tv_tensors.Image(image), {})
        (value,) = changed.unique().tolist()
        found.add(value)
    assert min(found) < 75 and max(found) > 125
    assert min(found) >= 68 and max(found) <= 132
    white = data.tv_tensors.Image(torch.full((3, 4, 4), 250, dtype=torch.uint8))
    assert max(int(data.RandomBrightness()(white, {})[0].max()) for _ in range(50)) == 255


def test_a_batch_trains_and_tests_the_network():
    network = new_detector(init_channels=2, layers=2, num_classes=2, image_size=64)
    digits = load_image_set("digits", "", "train")
    samples = [augment(*made_sample(digits, 0, index), 64, index) for index in range(4)]
    images = [image.float() / 255 for image, _ in samples]
    targets = [target for _, target in samples]
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(12):
        loss = sum(network(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert [sorted(found) for found in network.eval()(images)] == [
        ["boxes", "labels", "scores"]
    ] * 4


def test_made_digits_are_inside_their_boxes_and_the_same_each_time():
    digits = load_image_set("digits", "", "test")
    labels, counts = set(), set()
    for index in range(40):
        image, target = made_sample(digits, 3, index)
        again, target_again = made_sample(digits, 3, index)
        assert torch.equal(image, again)
        assert torch.equal(target["boxes"], target_again["boxes"])
        assert image.shape == (3, CANVAS, CANVAS) and image.dtype == torch.uint8
        outside = image.clone()
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            assert 0 <= x1 < x2 <= CANVAS and 0 <= y1 < y2 <= CANVAS
            assert x2 - x1 == y2 - y1 and SMALLEST <= x2 - x1 <= LARGEST
            assert image[:, y1:y2, x1:x2].max() > 100
            outside[:, y1:y2, x1:x2] = 0
        assert outside.max() == 0
        labels |= set(target["labels"].tolist())
        counts.add(len(target["labels"]))
    assert labels == set(range(1, len(CLASS_NAMES) + 1)) and counts == {1, 2, 3, 4}
    assert not torch.equal(image, made_sample(digits, 4, index)[0])
