"""torch.hub.load of the detector from another folder."""

import json
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from genotypes import DARTS_V2
from transfer.detection.network import build_detector, describe_detector, new_detector

PROGRAM = """
import io, json, os, sys
import torch
import utils  # the caller's own

root = sys.argv[1]

def load(*arguments, **options):
    return torch.hub.load(
        root, "relativenas_detection", *arguments, source="local", trust_repo=True, **options
    )

def failure(*arguments, **options):
    try:
        load(*arguments, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

os.environ["HOME"] = os.getcwd()
sizes = {"init_channels": 2, "layers": 2, "image_size": 64}
new = load(**sizes)
own = load("~/own.pt", num_classes=3)
images = [torch.ones(3, 40, 50), torch.ones(3, 64, 30)]
targets = [{"boxes": torch.tensor([[2.0, 3.0, 30.0, 20.0]]), "labels": torch.tensor([1])}] * 2
pickled = io.BytesIO()
torch.save(own, pickled)
pickled.seek(0)
with torch.no_grad():
    result = {
        "own_modules": [utils.mine, sorted(m for m in sys.modules if m.startswith("transfer"))],
        "new": [tuple(x.shape) for x in new.raw_outputs(torch.ones(2, 3, 64, 64))],
        "losses": sorted(new(images, targets)),
        "detections": [sorted(found) for found in own(images)],
        "own": [x.tolist() for x in own.raw_outputs(torch.ones(1, 3, 64, 64))],
        "pickled": str(torch.load(pickled, weights_only=False)) == str(own),
        "training": [new.training, own.training],
        "failures": [
            failure(pretrained=True),
            failure(layers=1),
            failure(pretrained="none.pt"),
            failure(pretrained="own.pt"),
            failure(pretrained="own.pt", num_classes=3, layers=3),
            failure(arch="DARTS_V3"),
        ],
    }
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_detector(describe_detector(DARTS_V2, 2, 2, 3, 64)).eval()


@pytest.fixture(scope="module")
def result(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "utils.py").write_text("mine = True\n")
    description = describe_detector(DARTS_V2, 2, 2, 3, 64)
    torch.save(description | {"state_dict": network.state_dict()}, folder / "own.pt")
    process = subprocess.run(
        [sys.executable, "program.py", ROOT], cwd=folder, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_the_network_is_that_of_the_checkpoint(result, network):
    with torch.no_grad():
        expected = network.raw_outputs(torch.ones(1, 3, 64, 64))
    for found, output in zip(result["own"], expected, strict=True):
        torch.testing.assert_close(torch.tensor(found), output)
    assert result["training"] == [True, False]
    assert result["pickled"] and result["own_modules"] == [True, []]


def test_it_gives_what_torchvisions_detectors_give(result):
    assert result["new"] == [[2, 144, 21], [2, 144, 4]]
    assert result["losses"] == ["bbox_regression", "classification"]
    assert result["detections"] == [["boxes", "labels", "scores"]] * 2


def test_mistakes_are_one_line(result):
    expected = [
        ["pretrained=True", "give a checkpoint's file"],
        ["'layers' must be a whole number from 2"],
        ["none.pt", "No such file"],
        ["own.pt", "3 classes with the background, not 21", "num_classes=3"],
        ["own.pt", "another architecture"],
        ["DARTS_V3", "RelativeNAS"],
    ]
    assert len(result["failures"]) == len(expected)
    for failure, texts in zip(result["failures"], expected, strict=True):
        assert failure.startswith("UserError: ") and "\n" not in failure
        assert all(text in failure for text in texts), failure


def test_without_a_file_it_is_the_published_one():
    with torch.device("meta"):
        network = new_detector()
    assert network.num_classes == 21 and network.image_size == 320
    assert len(network.backbone.body.network.cells) == 14
    assert network.backbone.out_channels[:2] == [368, 736]
