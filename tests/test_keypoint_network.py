"""The network for keypoints against the original's state dict and outputs."""

import gzip
import json

import numpy as np
import pytest
import torch
from helpers import FIXTURES, formula_weights
from torch.utils.flop_counter import FlopCounterMode

from genotypes import DARTS_V2, RelativeNAS
from model import NetworkImageNet
from runtime.errors import UserError
from transfer.keypoints.network import (
    KeypointNetwork,
    build_keypoint_network,
    check_keypoint_description,
    describe_keypoint_network,
    load_keypoint_network,
    rename_original,
)
from utils import parameter_count

with gzip.open(FIXTURES / "transfer" / "keypoints_network.json.gz", "rt") as file:
    REFERENCE = json.load(file)


def published_network():
    return build_keypoint_network(describe_keypoint_network(RelativeNAS, 46, 14))


def test_names_shapes_and_sizes_are_the_originals():
    with torch.device("meta"):
        network = published_network()
    theirs = {name: torch.empty(shape) for name, shape in REFERENCE["state_dict"].items()}
    expected = {name: tensor.shape for name, tensor in rename_original(theirs).items()}
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == expected
    assert parameter_count(network) == REFERENCE["parameters"] == 9_430_742
    parts = (network.backbone, network.upsampling, network.heatmaps)
    assert list(map(parameter_count, parts)) == list(REFERENCE["parameters_by_part"].values())


def test_multiply_adds_are_the_originals():
    with torch.device("meta"):
        network = published_network().eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 256, 192))
    expected = REFERENCE["multiply_adds"]
    upsampling = sum(counter.get_flop_counts()["KeypointNetwork.upsampling"].values()) // 2
    assert upsampling == expected["transposed_convolutions"]
    assert counter.get_total_flops() // 2 - upsampling == expected["convolutions"]


@pytest.mark.parametrize("index", [1, 2])
def test_outputs_are_the_originals(index):
    # The first entry is the second's again, with numbers up to 1e6.
    entry = REFERENCE["outputs"][index]
    network = published_network()
    state = formula_weights(REFERENCE["state_dict"], entry["seed"], entry.get("weight_factor", 1))
    network.load_state_dict(rename_original(state))
    network.train(entry["mode"] == "train")
    random = np.random.RandomState(entry["seed"])
    images = random.randn(entry.get("batch", 1), 3, *entry["input_hw"])
    with torch.no_grad():
        heatmaps = network(torch.tensor(images, dtype=torch.float32))
    expected = entry["tensors"][-1]
    assert list(heatmaps.shape) == expected["shape"]
    values = heatmaps.flatten()[expected["positions"]].double()
    differences = values - torch.tensor(expected["values"], dtype=torch.float64)
    # Their numbers have six digits.
    tolerance = entry["float32_against_float64"] + 1e-6
    assert differences.abs().max() < 4 * tolerance * values.abs().max()
    absolute = heatmaps.double().abs().sum().item()
    assert absolute == pytest.approx(expected["sum_of_absolute_values"], rel=4 * tolerance)


def tiny_description(joints=5):
    return describe_keypoint_network(DARTS_V2, 2, 3, joints, 8)


@pytest.mark.parametrize("size", [(64, 96), (60, 70)])
def test_heatmaps_of_any_image_size(size):
    heatmaps = build_keypoint_network(tiny_description())(torch.randn(2, 3, *size))
    assert heatmaps.shape == (2, 5, 16, 24)


def test_every_weight_is_trained():
    network = build_keypoint_network(tiny_description())
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_too_few_cells_have_no_map():
    with pytest.raises(ValueError, match="strides"):
        KeypointNetwork(NetworkImageNet(2, 1, 1, False, RelativeNAS))


def saved(tmp_path, content):
    torch.save(content, tmp_path / "network.pt")
    return tmp_path / "network.pt"


def originals_names(state):
    names = {"backbone.network.": "backbone.", "upsampling.": "deconv_layers."}
    names["heatmaps."] = "final_layer."
    renamed = {}
    for name, tensor in state.items():
        (ours,) = (start for start in names if name.startswith(start))
        renamed["module." + names[ours] + name.removeprefix(ours)] = tensor
    return renamed


def test_a_checkpoint_is_loaded_in_either_form(tmp_path):
    torch.manual_seed(0)
    description = tiny_description()
    network = build_keypoint_network(description).eval()
    images = torch.randn(1, 3, 32, 32)
    path = saved(tmp_path, description | {"state_dict": network.state_dict()})
    own, found = load_keypoint_network(path)
    assert found == description and not own.training
    path = saved(tmp_path, originals_names(network.state_dict()))
    original, found = load_keypoint_network(path, DARTS_V2, 2, 3)
    assert found == description | {"bgr": True}
    _, found = load_keypoint_network(saved(tmp_path, network.state_dict()), DARTS_V2, 2, 3)
    assert found == description
    with torch.no_grad():
        for loaded in (own, original):
            assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"layers": 1}, "'layers' must be a whole number from 2"),
        ({"joints": "many"}, "'joints' must be"),
        ({"joints": 6}, "another architecture"),
        ({"init_channels": 4}, "another architecture"),
        ({"upsampled_channels": 16}, "another architecture"),
        ({"task": "detection"}, "'task' must be 'keypoints'"),
        ({"genotype": {}}, "does not describe"),
        ({"image_size": [64]}, "'image_size' must be height and width"),
        ({"image_size": [64, 33]}, "'image_size' must be height and width"),
        ({"image_size": [0, 32]}, "'image_size' must be height and width"),
        ({"image_size": [32, 1 << 14]}, "'image_size' must be height and width"),
        ({"image_size": 64}, "'image_size' must be height and width"),
        ({"bgr": 1}, "'bgr' must be true or false"),
        ({"state_dict": {}}, "holds no network for keypoints"),
        ({"state_dict": {"heatmaps.weight": torch.ones(3)}}, "holds no network for keypoints"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(tmp_path, change, expected):
    description = tiny_description()
    content = description | {"state_dict": build_keypoint_network(description).state_dict()}
    path = saved(tmp_path, content | change)
    with pytest.raises(UserError, match=expected) as failure:
        load_keypoint_network(path)
    assert str(path) in str(failure.value) and "\n" not in str(failure.value)


def test_a_description_is_checked():
    check_keypoint_description(tiny_description())
    with pytest.raises(ValueError, match="'init_channels'"):
        check_keypoint_description(tiny_description() | {"init_channels": 1})
