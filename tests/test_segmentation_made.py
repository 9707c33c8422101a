"""The made set, whose shapes have the classes of their outlines, and pictures of classes."""

import math

import numpy as np
import torch

from transfer.segmentation.data import CITYSCAPES_CLASSES
from transfer.segmentation.loss import IGNORED
from transfer.segmentation.made import IMAGES, SHAPE_CLASSES, MadeShapes, polygon
from transfer.segmentation.pictures import GAP, comparison


def area(corners, radius):
    """Of a regular polygon with its corners on a circle."""
    if math.isinf(corners):
        return math.pi * radius**2
    return corners / 2 * radius**2 * math.sin(math.tau / corners)


def test_shapes_have_the_areas_of_their_outlines():
    for corners in (3, 4, math.inf):
        for rotation in (0.0, 0.4, 2.0):
            inside = polygon(200, 90.0, 110.0, 80.0, corners, rotation)
            assert abs(inside.sum().item() / area(corners, 80.0) - 1) < 0.02
            rows, columns = inside.nonzero().float().T + 0.5
            assert abs(rows.mean() - 90) < 1 and abs(columns.mean() - 110) < 1


def test_a_square_and_a_triangle_by_hand():
    # Sides of 6, and middles of sides to the right, below, to the left, above.
    square = polygon(10, 5.0, 5.0, 3 * math.sqrt(2), 4, 0.0)
    expected = torch.zeros(10, 10, dtype=torch.bool)
    expected[2:8, 2:8] = True
    assert torch.equal(square, expected)
    # A side below, a corner above.
    triangle = polygon(40, 20.0, 20.0, 16.0, 3, math.pi / 2)
    widths = triangle.sum(dim=1).tolist()
    assert widths == sorted(widths[:28]) + [0] * 12
    assert widths[4] <= 2 and widths[27] >= 26


def test_images_hold_three_shapes_each_in_a_quarter_of_its_own():
    shapes = MadeShapes("train", 64)
    seen = set()
    for index in range(60):
        image, labels = shapes.read(index)
        assert image.dtype == labels.dtype == torch.uint8
        assert image.shape == (3, 64, 64) and labels.shape == (64, 64)
        quarters = labels.view(2, 32, 2, 32).movedim(2, 1).reshape(4, -1)
        classes = [set(quarter.unique().tolist()) - {0} for quarter in quarters]
        assert sorted(map(len, classes)) == [0, 1, 1, 1]
        seen |= set.union(*classes)
        for label in labels.unique().tolist():
            pixels = image[:, labels == label].float()
            # But for the noise.
            colour = pixels.mean(dim=1)
            assert (colour > 127).all() if label else (colour < 85).all()
            assert label in (0, 1 + colour.argmax())
    assert seen == {1, 2, 3} and len(SHAPE_CLASSES) == 4


def test_images_are_the_same_whenever_they_are_read_and_differ():
    train, val = MadeShapes("train", 32), MadeShapes("val", 32)
    assert torch.equal(train.read(3)[0], MadeShapes("train", 32).read(3)[0])
    assert not torch.equal(train.read(3)[0], train.read(4)[0])
    assert not torch.equal(train.read(3)[0], val.read(3)[0])
    assert [len(train), len(val)] == list(IMAGES.values())
    assert train.name(3) == "shapes_train_0003"


def test_a_comparison_shows_image_truth_and_what_was_found():
    image = torch.full((3, 2, 3), 100, dtype=torch.uint8)
    image[0, 1, 2] = 20
    labels = torch.tensor([[0, 0, 0], [0, 0, IGNORED]], dtype=torch.uint8)
    predicted = torch.full((2, 3), 13)
    pixels = np.asarray(comparison(image, labels, predicted, CITYSCAPES_CLASSES))
    assert pixels.shape == (2, 3 * 3 + 2 * GAP, 3)
    assert (pixels[:, :3] == image.permute(1, 2, 0).numpy()).all()
    assert (pixels[:, 3 : 3 + GAP] == 255).all()
    truth, found = pixels[:, 3 + GAP : 6 + GAP], pixels[:, 6 + 2 * GAP :]
    # Road is (128, 64, 128), a car (0, 0, 142).
    assert truth[0, 0].tolist() == [114, 82, 114]
    assert truth[1, 2].tolist() == [20, 100, 100]
    assert found[0, 0].tolist() == [50, 50, 121]
    assert found[1, 2].tolist() == [10, 50, 121]
