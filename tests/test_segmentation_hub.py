"""torch.hub's entry for segmentation, from another folder, next to modules of the same names."""

import json
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from genotypes import DARTS_V2
from transfer.segmentation.checkpoints import (
    IN_PLACE_EPSILON,
    ORIGINAL_NAMES,
    build_segmentation_network,
    describe_segmentation_network,
)

PROGRAM = """
import copy, json, sys
import torch
import transfer  # the caller's own

def load(**options):
    return torch.hub.load(
        sys.argv[1], "relativenas_segmentation", source="local", trust_repo=True, **options
    )

def failure(**options):
    try:
        load(**options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

images = torch.ones(2, 3, 64, 32)
new = load(init_channels=2, layers=2)
own = load(pretrained="own.pt", num_classes=5)
sizes = {"arch": "DARTS_V2", "init_channels": 2, "layers": 3, "num_classes": 5}
original = load(pretrained="original.pt", **sizes)
with torch.no_grad():
    result = {
        "own_module": transfer.mine,
        "training": [new.training, own.training],
        "new": [list(logits.shape) for logits in new(images)],
        "own": copy.deepcopy(own)(images).tolist(),
        "original": original(images).tolist(),
        "statistics": [new.mean, original.mean, own.mean, own.std],
        "failures": [
            failure(pretrained=True),
            failure(layers=1),
            failure(num_classes=0),
            failure(pretrained="none.pt"),
            failure(pretrained="own.pt"),
            failure(pretrained="original.pt", num_classes=5),
            failure(pretrained="other.pt"),
            failure(pretrained="hostile.pt"),
            failure(arch="DARTS_V3"),
        ],
    }
print(json.dumps(result))
"""


def original_state_dict(network):
    """What the original's repository would have saved of `network`: names, norms, a wrapper."""
    state = {}
    for name, tensor in network.state_dict().items():
        ((theirs, ours),) = ((t, o) for t, o in ORIGINAL_NAMES.items() if name.startswith(o))
        rest = name.removeprefix(ours)
        if theirs == "cp.net.":
            state[f"module.{theirs}{rest}"] = tensor
            continue
        index, _, last = rest.rpartition(".")
        is_norm = index == "1" or "bn" in theirs
        if last == "weight" and is_norm:
            tensor = -(tensor - IN_PLACE_EPSILON)
        if last != "num_batches_tracked":
            between = {"": "", "0": "conv.", "1": "bn."}[index]
            state[f"module.{theirs}{between}{last}"] = tensor
    return state


@pytest.fixture(scope="module")
def network_and_result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "transfer.py").write_text("mine = True\n")
    torch.manual_seed(0)
    description = describe_segmentation_network(DARTS_V2, 2, 3, 5)
    network = build_segmentation_network(description).eval()
    content = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "state_dict": network.state_dict()}
    torch.save(description | content, folder / "own.pt")
    torch.save(original_state_dict(network), folder / "original.pt")
    torch.save(network.backbone.network.state_dict(), folder / "other.pt")
    torch.save(description | content | {"init_channels": 1 << 20}, folder / "hostile.pt")
    words = [sys.executable, "program.py", ROOT]
    process = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return network, json.loads(process.stdout)


def test_the_networks_are_those_asked_for(network_and_result):
    network, result = network_and_result
    assert result["own_module"]
    assert result["training"] == [True, False]
    assert result["new"] == [[2, 19, 64, 32]] * 3
    with torch.no_grad():
        logits = network(torch.ones(2, 3, 64, 32))
    torch.testing.assert_close(torch.tensor(result["own"]), logits)
    torch.testing.assert_close(torch.tensor(result["original"]), logits, rtol=1e-4, atol=1e-5)
    imagenet = [0.485, 0.456, 0.406]
    assert result["statistics"] == [imagenet, imagenet, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]


def test_mistakes_are_one_line(network_and_result):
    expected = [
        "give a checkpoint's file",
        "'layers' must be a whole number from 2",
        "'num_classes' must be a whole number from 1",
        "No such file",
        "has 5 classes, not 19; if that is meant, give num_classes=5",
        "is of another architecture",
        "holds no network for segmentation",
        "'init_channels' must be a whole number",
        "RelativeNAS",
    ]
    failures = network_and_result[1]["failures"]
    assert len(failures) == len(expected)
    for failure, text in zip(failures, expected, strict=True):
        assert failure.startswith("UserError: ") and "\n" not in failure
        assert text in failure
