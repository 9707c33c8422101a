"""Crops, targets, loss and decoding of keypoints against the original's."""

import gzip
import json

import numpy as np
import pytest
import torch
from helpers import FIXTURES
from torch import nn

from transfer.keypoints.targets import (
    JOINT_NAMES,
    MIRRORED,
    JointSums,
    average_with_mirrored,
    boxes_to_crops,
    count_found,
    crop_map,
    decode_heatmaps,
    find_maxima,
    heatmap_loss,
    heatmap_targets,
    inverse_map,
    map_places,
    predict_heatmaps,
)

with gzip.open(FIXTURES / "transfer" / "keypoints_parts.json.gz", "rt") as file:
    REFERENCE = json.load(file)

SIZE = (48, 64)


def crops():
    boxes = [entry["box_xywh"] for entry in REFERENCE["box_to_center_scale"]]
    return boxes_to_crops(torch.tensor(boxes, dtype=torch.float64), 192 / 256)


def targets():
    entry = REFERENCE["target"]
    joints = torch.tensor([entry["joints"]], dtype=torch.float64)
    return heatmap_targets(joints, torch.tensor([entry["visible"]]) > 0, SIZE)


def network_output():
    values = np.random.RandomState(5).randn(3, 17, 64, 48) * 0.3
    return torch.tensor(values, dtype=torch.float32)


def assert_values(tensor, expected, tolerance=2e-6):
    assert list(tensor.shape) == expected["shape"]
    values = tensor.flatten()[expected["positions"]].tolist()
    assert values == pytest.approx(expected["values"], abs=tolerance)
    assert tensor.double().sum().item() == pytest.approx(expected["sum"], rel=1e-5)


def test_crops_are_the_originals():
    centres, sizes = crops()
    for index, entry in enumerate(REFERENCE["box_to_center_scale"]):
        assert centres[index].tolist() == pytest.approx(entry["center"])
        # In the original a scale of 1 is 200 pixels.
        assert (sizes[index] / 200).tolist() == pytest.approx(entry["scale"], abs=1e-6)


def test_affine_maps_are_the_originals():
    for entry in REFERENCE["affine"]:
        centre, size = np.array(entry["center"]), 200 * np.array(entry["scale"])
        to_image = crop_map(centre, size, (192, 256), entry["rotation"])
        np.testing.assert_allclose(to_image, entry["to_image"], rtol=1e-5, atol=1e-4)
        back = inverse_map(crop_map(centre, size, SIZE))
        np.testing.assert_allclose(back, entry["heatmap_to_original"], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(map_places(back, np.array([24.0, 32.0])), centre)


def test_a_crop_is_turned_counter_clockwise():
    turned = crop_map(np.array([10.0, 10]), np.array([20.0, 20]), (20, 20), 90)
    # What is to the right of the centre is above it then.
    np.testing.assert_allclose(map_places(turned, np.array([[15.0, 10]])), [[10.0, 5]])


def test_targets_are_the_originals():
    heatmaps, weights = targets()
    expected = REFERENCE["target"]
    assert weights[0].tolist() == expected["weights"]
    assert heatmaps[0].sum((1, 2)).tolist() == pytest.approx(expected["sums"], rel=1e-5)
    assert heatmaps[0].flatten(1).argmax(1).tolist() == expected["argmax"]
    assert heatmaps.dtype == weights.dtype == torch.float32
    assert_values(heatmaps[0], expected["values"])


def test_targets_of_joints_at_the_edge():
    places = [-30.0, -26, -2, 0, 191, 213, 215]
    joints = torch.tensor([[[x, 100.0] for x in places]])
    heatmaps, weights = heatmap_targets(joints, torch.ones(1, len(places)) > 0, SIZE)
    assert weights[0].tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert heatmaps[0, :, 25].argmax(1).tolist() == [0, 0, 0, 0, 47, 47, 0]
    assert (heatmaps[0, 1:6].sum((1, 2)) > 0).all() and not heatmaps[0, [0, 6]].any()


def test_the_loss_is_the_originals():
    target, weights = targets()
    weights = torch.stack([weights[0], torch.zeros(17), torch.ones(17)])
    loss = heatmap_loss(network_output(), target.expand(3, -1, -1, -1), weights)
    assert loss.item() == pytest.approx(REFERENCE["loss"]["value"], rel=1e-5)


@pytest.mark.parametrize("quarter_offset", [True, False])
def test_decoding_is_the_originals(quarter_offset):
    output = network_output() + 2 * targets()[0]
    output[0, 3] = -1
    places, scores = decode_heatmaps(output, *crops(), quarter_offset)
    expected = REFERENCE["decoding"]
    names = {True: "keypoints", False: "without_quarter_offset"}
    np.testing.assert_allclose(places, expected[names[quarter_offset]], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scores, expected["scores"], rtol=1e-5)


def test_joints_are_found_where_the_targets_have_them():
    centres, sizes = crops()
    random = np.random.default_rng(0)
    inside = [[100.0, 100], [40, 200], [180, 30]]
    for index in range(3):
        to_image = crop_map(centres[index].numpy(), sizes[index].numpy(), (192, 256))
        joints = map_places(inverse_map(to_image), np.array(inside) + random.random((3, 2)))
        cropped = torch.tensor(map_places(to_image, joints)).unsqueeze(0)
        heatmaps, _ = heatmap_targets(cropped, torch.ones(1, 3) > 0, SIZE)
        places, scores = decode_heatmaps(
            heatmaps, centres[index : index + 1], sizes[index : index + 1], False
        )
        assert scores.tolist() == [[1, 1, 1]]
        # Rounded to pixels of the heatmap.
        assert np.abs(places[0].numpy() - joints).max() <= sizes[index][0] / 48 / 2


def test_the_average_with_the_mirrored_is_the_originals():
    output = network_output()
    assert_values(average_with_mirrored(output, output), REFERENCE["flip"]["average"])


def test_left_and_right_change_places():
    mirrored = [JOINT_NAMES[index] for index in MIRRORED]
    swap = {"left": "right", "right": "left"}
    for name, other in zip(JOINT_NAMES, mirrored, strict=True):
        assert " ".join(swap.get(word, word) for word in name.split()) == other


class Corner(nn.Module):
    """Its heatmap of joint 1 has its maximum in the image's bright spot."""

    def forward(self, images):
        heatmaps = torch.zeros(len(images), 17, images.shape[2] // 4, images.shape[3] // 4)
        heatmaps[:, 1] = images[:, 0, ::4, ::4]
        return heatmaps


def test_mirrored_images_are_asked_too():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8, 12] = 1
    plain = predict_heatmaps(Corner(), images, flip=False)
    assert find_maxima(plain)[0][0, 1].tolist() == [3, 2]
    # A mirrored image has the spot in column 19, which it does not look at.
    assert torch.equal(predict_heatmaps(Corner(), images), plain / 2)
    images[:, :, 8, 15] = 1
    averaged = predict_heatmaps(Corner(), images)
    # Column 16 of the mirrored image, and it is the other eye.
    assert averaged[0, 1, 2, 3] == averaged[0, 2, 2, 4] == 0.5


def test_joints_found_are_counted_as_in_the_original():
    target = targets()[0].expand(3, -1, -1, -1)
    found, known = count_found(network_output() * 0.05 + target, target)
    counted = known > 0
    expected = REFERENCE["accuracy"]
    assert counted.sum() == expected["joints"]
    assert (found[counted] / known[counted]).mean().item() == pytest.approx(expected["average"])


def test_sums_are_those_of_all_joints():
    targets = torch.zeros(2, 2, 64, 48)
    targets[:, :, 20, 30] = 1
    targets[1, 1] = 0  # not known
    heatmaps = targets.roll(4, dims=2) / 2  # 4 of 64 rows: too far off
    heatmaps[0, 0] = targets[0, 0].roll(3, dims=0) / 2
    sums = JointSums(torch.device("cpu"))
    sums.update(torch.tensor(0.5), heatmaps, targets)
    sums.update(torch.tensor(0.2), targets[:1], targets[:1])
    expected = {"loss": (2 * 0.5 + 0.2) / 3, "found": 100 * (1 + 2) / (3 + 2), "count": 3}
    assert sums.result() == pytest.approx(expected)
