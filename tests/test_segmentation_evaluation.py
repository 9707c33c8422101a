"""Sliding windows and IoU against the original's evaluation, and by hand."""

import json
import math

import numpy as np
import pytest
import torch
from helpers import FIXTURES

from transfer.segmentation.evaluation import (
    Windows,
    class_scores,
    count_pixels,
    intersection_over_union,
    new_counts,
    pixel_metrics,
)
from transfer.segmentation.loss import IGNORED

REFERENCE = json.loads((FIXTURES / "transfer" / "segmentation_parts.json").read_text())[
    "evaluation"
]


def reference_network(images):
    weights = torch.from_numpy(np.random.RandomState(6).randn(4, 3)).float()
    columns = torch.arange(images.shape[3]) / 40
    return torch.einsum("kc,nchw->nkhw", weights, images) + columns


@pytest.mark.parametrize("run", REFERENCE["runs"], ids=["one scale", "six scales, flipped"])
def test_scores_and_iou_are_the_originals(run):
    images = torch.from_numpy(np.random.RandomState(9).rand(1, 3, 30, 50)).float()
    labels = torch.from_numpy(np.random.RandomState(10).randint(0, 5, (1, 30, 50)))
    labels[labels == 4] = IGNORED
    windows = Windows(run["crop"], None, tuple(run["scales"]), run["flip"])
    assert windows.places(44) == [0, run["stride"]]
    scores = class_scores(reference_network, images, windows)
    assert list(scores.shape) == run["prob"]["shape"]
    assert scores.sum().item() == pytest.approx(run["prob"]["sum"], rel=1e-5)
    values = torch.tensor(run["prob"]["values"])
    # They have 6 digits.
    found = scores.flatten()[run["prob"]["positions"]]
    torch.testing.assert_close(found, values, rtol=1e-5, atol=0)
    counts = new_counts(4, scores.device)
    count_pixels(counts, scores.argmax(dim=1), labels)
    # The original's rows are predictions.
    assert counts.T.tolist() == run["histogram"]
    assert intersection_over_union(counts).tolist() == pytest.approx(run["iou"], rel=1e-5)
    assert pixel_metrics(counts)["miou"] == pytest.approx(100 * run["miou"], rel=1e-5)


def test_windows_cover_a_side_and_stay_in_it():
    # Cityscapes' images.
    assert Windows().places(2048) == [0, 854, 1024]
    assert Windows().places(1024) == [0]
    assert Windows(4, 1).places(6) == [0, 1, 2]
    assert Windows(4, 4).places(9) == [0, 4, 5]


def test_an_image_smaller_than_a_window_lies_in_its_middle():
    seen = []

    def network(window):
        seen.append(window)
        return window

    images = torch.arange(1.0, 19).view(1, 3, 2, 3)
    scores = class_scores(network, images, Windows(5))
    (window,) = seen
    assert torch.equal(window[:, :, 1:3, 1:4], images)
    assert window.count_nonzero() == images.numel()
    torch.testing.assert_close(scores, images.softmax(dim=1).exp())


def test_mirrored_windows_are_mirrored_back():
    def left_half(window):
        logits = torch.zeros(1, 2, *window.shape[2:])
        logits[:, 1, :, : window.shape[3] // 2] = 2
        return logits

    plain = class_scores(left_half, torch.zeros(1, 3, 4, 4), Windows(4))
    flipped = class_scores(left_half, torch.zeros(1, 3, 4, 4), Windows(4, flip=True))
    assert not torch.equal(plain, plain.flip(3))
    assert torch.equal(flipped, flipped.flip(3))


def test_a_scale_of_almost_nothing():
    images = torch.rand(1, 3, 3, 5)
    assert class_scores(reference_network, images, Windows(4, scales=(0.1,))).shape == (1, 4, 3, 5)


def test_iou_by_hand():
    labels = torch.tensor([[0, 0, 0, 1], [1, 1, IGNORED, 3]], dtype=torch.uint8)
    predicted = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 1]], dtype=torch.uint8)
    counts = new_counts(4, labels.device)
    count_pixels(counts, predicted, labels)
    assert counts.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    found = intersection_over_union(counts).tolist()
    assert found[:2] == [2 / 4, 2 / 5] and math.isnan(found[2]) and found[3] == 0
    metrics = pixel_metrics(counts)
    assert metrics == pytest.approx({"miou": 100 * (0.5 + 0.4 + 0) / 3, "pixel_accuracy": 400 / 7})


def test_a_perfect_network_and_no_pixels_at_all():
    labels = torch.randint(0, 19, (2, 32, 32))
    counts = new_counts(19, labels.device)
    assert all(map(math.isnan, pixel_metrics(counts).values()))
    count_pixels(counts, labels, labels)
    assert pixel_metrics(counts) == {"miou": 100, "pixel_accuracy": 100}


def test_counts_of_parts_add_up_to_those_of_all():
    generator = torch.Generator().manual_seed(0)
    labels, predicted = torch.randint(0, 5, (2, 7, 9, 11), generator=generator)
    labels[labels == 4] = IGNORED
    whole = new_counts(5, labels.device)
    count_pixels(whole, predicted, labels)
    parts = [new_counts(5, labels.device) for _ in range(3)]
    for rank, part in enumerate(parts):
        for index in range(rank, len(labels), len(parts)):
            count_pixels(part, predicted[index], labels[index])
    assert torch.equal(sum(parts), whole)


def test_a_label_beyond_the_classes_is_never_counted_as_another():
    counts = new_counts(3, torch.device("cpu"))
    with pytest.raises(RuntimeError):
        count_pixels(counts, torch.tensor([0]), torch.tensor([3]))
    assert not counts.any()
