"""Priors, matching, loss, decoding and non-maximum suppression against the authors' code."""

import numpy as np
import pytest
import torch
from detection_reference import TINY, assert_like_reference, read_reference
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert, box_iou, nms

from transfer.detection.network import PRIOR_SIZES, PRIOR_STEPS, new_detector
from transfer.detection.targets import select_detections

REFERENCE = read_reference("detection_parts")

SIDES = (20, 10, 5, 3, 2, 1)


@pytest.fixture(scope="module")
def network():
    return new_detector(init_channels=2, layers=2)


@pytest.fixture(scope="module")
def priors(network):
    """The boxes of the published network's priors, in pixels."""
    maps = [torch.zeros(1, 1, side, side) for side in SIDES]
    images = ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)])
    return network.anchor_generator(images, maps)[0]


def matched(network, priors, boxes):
    return network.proposal_matcher(box_iou(320 * boxes, priors))


def test_maps_have_the_sides_of_the_priors(network):
    with torch.no_grad():
        maps = network.eval().backbone(torch.zeros(1, 3, 320, 320))
    assert tuple(map_.shape[2] for map_ in maps.values()) == SIDES


def test_priors_are_the_originals(priors):
    specs = REFERENCE["config"]["specs"]
    assert [spec["step"] for spec in specs] == list(PRIOR_STEPS)
    assert [spec["min"] for spec in specs] == list(PRIOR_SIZES[:-1])
    expected = REFERENCE["priors"]
    centred = box_convert(priors, "xyxy", "cxcywh") / 320
    assert list(centred.shape) == expected["shape"]
    rows = centred[list(map(int, expected["rows"]))]
    torch.testing.assert_close(
        rows, torch.tensor(list(expected["rows"].values())), rtol=0, atol=1e-6
    )
    sums = torch.tensor(expected["sum_by_column"])
    torch.testing.assert_close(centred.sum(dim=0), sums, rtol=1e-5, atol=0)


def test_priors_are_matched_as_in_the_original(network, priors):
    expected = REFERENCE["matching"]
    boxes, labels = torch.tensor(expected["boxes"]), torch.tensor(expected["labels"])
    matches = matched(network, priors, boxes)
    positive = torch.where(matches >= 0)[0]
    assert positive.tolist() == expected["positive_priors"]
    assert labels[matches[positive]].tolist() == expected["their_labels"]
    offsets = network.box_coder.encode_single(320 * boxes[matches[positive]], priors[positive])
    torch.testing.assert_close(
        offsets, torch.tensor(expected["their_locations"]), rtol=1e-4, atol=1e-4
    )
    # The original has offsets to the nearest object for the other priors, too.
    nearest = torch.where(matches >= 0, matches, box_iou(320 * boxes, priors).argmax(dim=0))
    everywhere = network.box_coder.encode_single(320 * boxes[nearest], priors)
    sums = torch.tensor(expected["sum_of_all_locations_by_column"])
    torch.testing.assert_close(everywhere.sum(dim=0), sums, rtol=1e-4, atol=1e-2)


def reference_loss(network, priors, counts):
    """The losses of the reference's outputs, images having the first so many of its boxes."""
    random = np.random.RandomState(7)
    logits = torch.from_numpy(random.randn(2, len(priors), 21) * 2).float()
    offsets = torch.from_numpy(random.randn(2, len(priors), 4)).float()
    truth = REFERENCE["matching"]
    boxes, labels = torch.tensor(truth["boxes"]), torch.tensor(truth["labels"])
    nothing = torch.full((len(priors),), -1)
    matches = [matched(network, priors, boxes[:count]) if count else nothing for count in counts]
    targets = [{"boxes": 320 * boxes[:count], "labels": labels[:count]} for count in counts]
    outputs = {"cls_logits": logits.requires_grad_(), "bbox_regression": offsets.requires_grad_()}
    return network.compute_loss(targets, outputs, [priors] * 2, matches), outputs, matches


def test_the_loss_is_the_originals(network, priors):
    expected = REFERENCE["loss"]
    losses, _, matches = reference_loss(network, priors, (4, 2))
    assert [int((match >= 0).sum()) for match in matches] == expected["positives"]
    assert losses["bbox_regression"].item() == pytest.approx(expected["regression"], rel=1e-5)
    assert losses["classification"].item() == pytest.approx(expected["classification"], rel=1e-5)


def test_each_image_has_three_negatives_for_a_positive(network, priors):
    losses, outputs, matches = reference_loss(network, priors, (4, 0))
    losses["classification"].backward()
    learning = outputs["cls_logits"].grad.abs().sum(dim=2) > 0
    positives = int((matches[0] >= 0).sum())
    assert learning.sum(dim=1).tolist() == [4 * positives, 0]


def test_a_batch_without_objects_has_a_finite_loss():
    network = new_detector(**TINY).train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = network([torch.rand(3, 64, 64)] * 2, [empty] * 2)
    loss = sum(losses.values())
    assert loss.item() == 0
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


def test_detections_are_the_originals(network, priors):
    expected = REFERENCE["prediction"]
    random = np.random.RandomState(8)
    logits = torch.from_numpy(random.randn(1, len(priors), 21) * 2).float()
    offsets = torch.from_numpy(random.randn(1, len(priors), 4)).float()
    outputs = {"cls_logits": logits, "bbox_regression": offsets}
    (found,) = network.postprocess_detections(outputs, [priors], [(320, 320)])
    counts = {str(label): int((found["labels"] == label).sum()) for label in range(1, 21)}
    assert counts == expected["by_class"]
    # The original goes class by class.
    order = torch.argsort(found["labels"], stable=True)
    assert_like_reference(found["scores"][order], expected["scores"], 0)
    boxes = found["boxes"][order] / 320 * torch.tensor([500.0, 375.0] * 2)
    assert_like_reference(boxes, expected["boxes"], 0)


def test_boxes_of_different_classes_never_remove_each_other():
    # Moved apart by their largest coordinate alone, as torchvision does, these would overlap.
    boxes = torch.tensor([[-60.0, -60.0, 20.0, 20.0], [-39.0, -39.0, 41.0, 41.0]])
    probabilities = torch.tensor([[0.0, 0.1, 0.9], [0.0, 0.8, 0.2]])
    found = select_detections(boxes, probabilities, 0.5, 0.3, 200)
    assert found["labels"].tolist() == [2, 1]
    assert torch.equal(found["boxes"], boxes)


def test_a_better_box_removes_those_that_overlap_it_and_scores_are_a_threshold():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 1.0, 10.0, 11.0], [50.0, 0.0, 60.0, 10.0]])
    scores = torch.tensor([0.6, 0.7, 0.01])
    probabilities = torch.stack([1 - scores, scores], dim=1)
    found = select_detections(boxes, probabilities, 0.01, 0.45, 200)
    assert torch.equal(found["boxes"], boxes[1:2])
    assert found["scores"].tolist() == pytest.approx([0.7])
    assert nms(boxes[:2], scores[:2], 0.9).tolist() == [1, 0]  # IoU 0.82
    assert len(select_detections(boxes, probabilities, 0.001, 0.9, 200)["boxes"]) == 3
    assert len(select_detections(boxes, probabilities, 0.001, 0.9, 2)["boxes"]) == 2
    nothing = select_detections(boxes, probabilities, 0.9, 0.9, 2)
    assert [len(nothing[name]) for name in ("boxes", "labels", "scores")] == [0, 0, 0]
