"""The networks against the published state dicts and the original's logits."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import FIXTURES, ROOT, formula_weights

from genotypes import DARTS_V2, NAMED_GENOTYPES, RelativeNAS
from model import NetworkCIFAR, NetworkImageNet
from utils import multiply_adds, parameter_count

NETWORKS = {"NetworkCIFAR": NetworkCIFAR, "NetworkImageNet": NetworkImageNet}


def read_fixture(name):
    with gzip.open(FIXTURES / name, "rt") as file:
        return json.load(file)


def build(entry):
    return NETWORKS[entry["network"]](
        entry["C"],
        entry["num_classes"],
        entry["layers"],
        entry["auxiliary"],
        NAMED_GENOTYPES[entry["arch"]],
    )


@pytest.mark.parametrize(
    ("name", "millions"), [("cifar10", 3.93), ("cifar100", 3.98), ("imagenet", 5.05)]
)
def test_state_dict_is_the_published_one(name, millions):
    entry = read_fixture("state_dicts.json.gz")[name]
    with torch.device("meta"):
        network = build(entry)
    shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert shapes == entry["state_dict"]
    assert parameter_count(network) == entry["params_without_auxiliary"]
    assert round(parameter_count(network) / 1e6, 2) == millions


@pytest.mark.parametrize("index", range(3))
def test_logits_are_the_originals(index):
    entry = read_fixture("logits.json.gz")[index]
    network = build(entry)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    network.load_state_dict(formula_weights(shapes, entry["seed"]))
    size = entry["input_hw"]
    images = np.random.RandomState(entry["seed"]).randn(2, 3, size, size)
    images = torch.from_numpy(images).float()
    with torch.no_grad():
        logits, logits_aux = network.eval()(images)
        torch.testing.assert_close(logits, torch.tensor(entry["logits"]), rtol=1e-4, atol=1e-4)
        assert logits_aux is None
        _, logits_aux = network.train()(images)
    if entry["auxiliary"]:
        expected = torch.tensor(entry["logits_aux"])
        torch.testing.assert_close(logits_aux, expected, rtol=1e-4, atol=1e-4)
    else:
        assert logits_aux is None


@pytest.mark.parametrize("arch", NAMED_GENOTYPES)
@pytest.mark.parametrize(("network_class", "size"), [(NetworkCIFAR, 15), (NetworkImageNet, 65)])
def test_every_named_genotype_trains_at_an_odd_size(arch, network_class, size):
    network = network_class(4, 3, 3, True, NAMED_GENOTYPES[arch])
    network.drop_path_prob = 0.5
    logits, logits_aux = network(torch.randn(2, 3, size, size))
    assert logits.shape == logits_aux.shape == (2, 3)
    (logits.sum() + logits_aux.sum()).backward()


def test_drop_path_is_off_in_eval_mode_and_by_default():
    torch.manual_seed(0)
    network = NetworkCIFAR(4, 3, 3, False, RelativeNAS)
    images = torch.randn(4, 3, 16, 16)
    assert network.drop_path_prob == 0
    trained, _ = network.train()(images)
    network.drop_path_prob = 0.9
    dropped, _ = network(images)
    assert not torch.allclose(trained, dropped)
    first, _ = network.eval()(images)
    second, _ = network(images)
    assert torch.equal(first, second)


def test_multiply_adds_are_those_of_a_hand_count():
    network = NetworkCIFAR(2, 5, 1, False, DARTS_V2)
    stem = 16 * 16 * 6 * 3 * 9
    # One cell, which is a reduction cell: two preprocessing convolutions, pools, and a
    # FactorizedReduce for each skip connection from input 0 or 1 (there are none in this one).
    preprocess = 2 * 16 * 16 * 6 * 4
    classifier = 4 * 4 * 5
    assert multiply_adds(network, 16) == stem + preprocess + classifier


def test_reductions_survive_few_channels_on_two_threads():
    # 1×1 convolutions with a stride and these shapes end the process in their backward pass.
    code = (
        "import torch; from operations import FactorizedReduce\n"
        "reduce = FactorizedReduce(4, 4).to(memory_format=torch.channels_last)\n"
        "for _ in range(30):\n"
        "    x = torch.randn(29, 4, 16, 16, requires_grad=True)\n"
        "    reduce(x.contiguous(memory_format=torch.channels_last)).sum().backward()\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
