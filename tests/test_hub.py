"""torch.hub.load from another folder, next to modules of the same names."""

import json
import runpy
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from genotypes import DARTS_V2, RelativeNAS, save_genotype
from model import NetworkCIFAR, NetworkImageNet
from training.trained_network import build_network, describe_network

PROGRAM = """
import copy, io, json, os, sys
import torch
import utils  # the caller's own

root = sys.argv[1]

def load(name, *arguments, **options):
    return torch.hub.load(root, name, *arguments, source="local", trust_repo=True, **options)

def failure(*arguments, **options):
    try:
        load(*arguments, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

os.environ["HOME"] = os.getcwd()
images = torch.ones(2, 3, 32, 32)
new = load("relativenas_cifar100", init_channels=4, layers=3, auxiliary=True)
published = load("relativenas_cifar10", pretrained="published.pt", init_channels=4, layers=3)
imagenet = load("relativenas_imagenet", pretrained="~/own.pt", num_classes=7)
digits = load("digits")
small = load("cifar10_small")
import model  # the caller's own, too

pickled = io.BytesIO()
torch.save(new, pickled)
pickled.seek(0)
with torch.no_grad():
    result = {
        "own_modules": [utils.mine, model.mine, sorted(m for m in sys.modules if m == "genotypes")],
        "new": [tuple(x.shape) for x in new(images)],
        "published": published(images)[0].tolist(),
        "imagenet": imagenet(images)[0].tolist(),
        "features": list(imagenet.forward_features(images)),
        "statistics": [
            published.mean, published.std, imagenet.mean, imagenet.std, small.mean, small.std
        ],
        "digits": tuple(digits(torch.ones(1, 3, 16, 16))[0].shape),
        "small": small(images)[0].tolist(),
        "training": [new.training, published.training],
        "genotype": load("genotype", "~/genotype.json"),
        "copy": copy.deepcopy(published)(images)[0].tolist(),
        "pickled": str(torch.load(pickled, weights_only=False)) == str(new),
        "compiled": torch.compile(published, backend="eager")(images)[0].tolist(),
        "failures": [
            failure("relativenas_cifar10", pretrained=True),
            failure("relativenas_cifar10", layers=0),
            failure("relativenas_cifar10", pretrained="none.pt"),
            failure("relativenas_imagenet", pretrained="own.pt"),
            failure("relativenas_imagenet", pretrained="published.pt"),
            failure("relativenas_cifar10", arch="DARTS_V3"),
            failure("genotype", "none.json"),
        ],
    }
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: a program, its own modules, and checkpoints."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "program.py").write_text(PROGRAM)
    for name in ("utils", "model", "test", "errors"):
        (folder / f"{name}.py").write_text("mine = True\n")
    save_genotype(DARTS_V2, folder / "genotype.json")
    torch.manual_seed(0)
    networks = {
        "published": NetworkCIFAR(4, 10, 3, True, RelativeNAS),
        "own": NetworkImageNet(4, 7, 3, False, DARTS_V2),
    }
    torch.save(networks["published"].state_dict(), folder / "published.pt")
    own = describe_network("imagenet", DARTS_V2, 4, 3, False, 7)
    own |= {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    torch.save(own | {"state_dict": networks["own"].state_dict()}, folder / "own.pt")
    return folder, networks


@pytest.fixture(scope="module")
def result(folder):
    process = subprocess.run(
        [sys.executable, "program.py", ROOT], cwd=folder[0], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def assert_logits(found, network):
    with torch.no_grad():
        logits, _ = network.eval()(torch.ones(2, 3, 32, 32))
    torch.testing.assert_close(torch.tensor(found), logits)


def test_the_networks_are_those_of_the_checkpoints(folder, result):
    networks = folder[1]
    assert_logits(result["published"], networks["published"])
    assert_logits(result["imagenet"], networks["own"])
    assert result["features"] == [4, 8, 16, 32]
    assert result["new"] == [[2, 100], [2, 100]]
    assert result["digits"] == [1, 10]
    small = torch.load(ROOT / "trained_model" / "cifar10_small_model.pt")
    network = build_network(small)
    network.load_state_dict(small["state_dict"])
    assert_logits(result["small"], network)
    assert result["training"] == [True, False]
    assert result["statistics"] == [
        [0.49139968, 0.48215827, 0.44653124],
        [0.24703233, 0.24348505, 0.26158768],
        [0.1, 0.2, 0.3],
        [0.4, 0.5, 0.6],
        list(small["mean"]),
        list(small["std"]),
    ]


def test_a_genotype_is_read(result):
    assert result["genotype"] == json.loads(json.dumps(DARTS_V2))


def test_torch_hub_lists_nothing_but_the_entries():
    names = runpy.run_path(str(ROOT / "hubconf.py"))
    listed = [name for name in names if callable(names[name]) and not name.startswith("_")]
    assert sorted(listed) == [
        "cifar10_small", "digits", "genotype", "relativenas_cifar10", "relativenas_cifar100",
        "relativenas_detection", "relativenas_imagenet", "relativenas_keypoints",
        "relativenas_segmentation",
    ]  # fmt: skip


def test_modules_of_the_same_names_stay_the_callers(result):
    assert result["own_modules"] == [True, True, []]


def test_a_network_is_copied_pickled_and_compiled(folder, result):
    assert result["pickled"]
    for way in ("copy", "compiled"):
        assert_logits(result[way], folder[1]["published"])


def test_mistakes_are_one_line(result):
    expected = [
        ["pretrained=True", "give a checkpoint's file"],
        ["UserError", "'layers' must be a whole number from 1"],
        ["none.pt", "No such file"],
        ["own.pt", "7 classes, not 1000", "num_classes=7"],
        ["published.pt", "a network for cifar, not for imagenet"],
        ["DARTS_V3", "RelativeNAS"],
        ["none.json", "neither a file"],
    ]
    assert len(result["failures"]) == len(expected)
    for failure, texts in zip(result["failures"], expected, strict=True):
        assert failure.startswith("UserError: ") and "\n" not in failure
        assert all(text in failure for text in texts), failure
