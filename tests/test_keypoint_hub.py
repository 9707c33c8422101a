"""torch.hub's entry for keypoints, from another folder, next to modules of the same names."""

import json
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from genotypes import DARTS_V2
from transfer.keypoints.network import build_keypoint_network, describe_keypoint_network

PROGRAM = """
import copy, json, sys
import torch
import transfer  # the caller's own

def load(**options):
    return torch.hub.load(
        sys.argv[1], "relativenas_keypoints", source="local", trust_repo=True, **options
    )

def failure(**options):
    try:
        load(**options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

images = torch.ones(1, 3, 64, 32)
new = load(init_channels=2, layers=2)
own = load(pretrained="own.pt", joints=5)
with torch.no_grad():
    result = {
        "own_module": transfer.mine,
        "new": [new.training, *new(images).shape],
        "own": copy.deepcopy(own)(images).tolist(),
        "statistics": [new.mean, own.mean, own.std],
        "bgr": [new.bgr, own.bgr],
        "failures": [
            failure(pretrained=True),
            failure(layers=1),
            failure(pretrained="none.pt"),
            failure(pretrained="own.pt"),
            failure(arch="DARTS_V3"),
        ],
    }
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def network_and_result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "transfer.py").write_text("mine = True\n")
    torch.manual_seed(0)
    description = describe_keypoint_network(DARTS_V2, 2, 3, 5, 8, bgr=True)
    network = build_keypoint_network(description).eval()
    content = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "state_dict": network.state_dict()}
    torch.save(description | content, folder / "own.pt")
    words = [sys.executable, "program.py", ROOT]
    process = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return network, json.loads(process.stdout)


def test_the_networks_are_those_asked_for(network_and_result):
    network, result = network_and_result
    assert result["own_module"]
    assert result["new"] == [True, 1, 17, 16, 8]
    with torch.no_grad():
        heatmaps = network(torch.ones(1, 3, 64, 32))
    torch.testing.assert_close(torch.tensor(result["own"]), heatmaps)
    assert result["bgr"] == [False, True]
    assert result["statistics"] == [[0.485, 0.456, 0.406], [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]


def test_mistakes_are_one_line(network_and_result):
    expected = [
        "give a checkpoint's file",
        "'layers' must be a whole number from 2",
        "No such file",
        "has 5 joints, not 17; if that is meant, give joints=5",
        "RelativeNAS",
    ]
    for failure, text in zip(network_and_result[1]["failures"], expected, strict=True):
        assert failure.startswith("UserError: ") and "\n" not in failure
        assert text in failure
