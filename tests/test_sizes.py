"""Sizes without building: equal to those of built networks, whatever the genotype and target."""

import numpy as np
import pytest
import torch

from genotypes import NAMED_GENOTYPES, NASNet, RelativeNAS
from model import NetworkCIFAR, NetworkImageNet
from report import sizes
from report.sizes import TARGETS, Target, target_of
from slow_fast_learning import decode, search_bounds
from training.trained_network import print_size
from utils import multiply_adds, parameter_count


def random_genotypes(count, seed):
    random = np.random.default_rng(seed)
    return [decode(random.uniform(*search_bounds())) for _ in range(count)]


def built(target, genotype, auxiliary):
    return target.network(target.channels, target.num_classes, target.layers, auxiliary, genotype)


def assert_equals_built(target, genotype):
    with torch.device("meta"):
        network = built(target, genotype, auxiliary=True)
    size = parameter_count(network), multiply_adds(network, target.image_size)
    assert target.size(genotype) == size, (target, genotype)


@pytest.mark.parametrize(
    "target",
    [
        Target(NetworkCIFAR, 3, 4, 15, 10), Target(NetworkCIFAR, 2, 3, 32, 2),
        Target(NetworkImageNet, 5, 2, 41, 7), Target(NetworkImageNet, 4, 3, 64, 10),
    ],
)  # fmt: skip
def test_of_200_random_genotypes(target):
    seed = target.channels
    for genotype in random_genotypes(50, seed):
        assert_equals_built(target, genotype)


@pytest.mark.parametrize("name", NAMED_GENOTYPES)
def test_of_the_named_genotypes(name):
    for network in (NetworkCIFAR, NetworkImageNet):
        assert_equals_built(Target(network, 5, 4, 33, 3), NAMED_GENOTYPES[name])


@pytest.mark.parametrize("kind", TARGETS)
def test_of_the_published_networks(kind):
    assert_equals_built(TARGETS[kind], NASNet)
    assert round(TARGETS["cifar"].size(RelativeNAS).parameters / 1e6, 2) == 3.93
    assert round(TARGETS["imagenet"].size(RelativeNAS).parameters / 1e6, 2) == 5.05


def test_they_are_what_is_printed_of_a_tested_network(capsys):
    target = Target(NetworkCIFAR, 4, 3, 15, 10)
    print_size(built(target, RelativeNAS, auxiliary=True).eval(), 15)
    size = target.size(RelativeNAS)
    assert capsys.readouterr().out.split() == [
        "parameters", f"{size.parameters / 1e6:.2f}", "M",
        "multiply-adds", f"{size.multiply_adds / 1e6:.1f}", "M", "at", "15×15",
    ]  # fmt: skip
    assert str(size) == "0.01 M parameters, 0.5 M multiply-adds"


def test_nothing_is_built_for_further_genotypes(monkeypatch):
    target = TARGETS["cifar"]
    for genotype in random_genotypes(100, 0):  # every operation, in every place
        target.size(genotype)
    monkeypatch.setattr(sizes, "_measure", None)
    assert len({target.size(genotype) for genotype in random_genotypes(150, 1)}) > 100


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (NetworkCIFAR, 36, 20, 32, 10)),
        ({"set": "cifar100", "target": "cifar"}, (NetworkCIFAR, 36, 20, 32, 100)),
        ({"set": "cifar100", "target": "imagenet"}, (NetworkImageNet, 46, 14, 224, 1000)),
        ({"target_channels": 8, "target_layers": 5, "target_image_size": 16},
         (NetworkCIFAR, 8, 5, 16, 10)),
        ({"target": "imagenet", "target_layers": None, "target_image_size": 128},
         (NetworkImageNet, 46, 14, 128, 1000)),
    ],
)  # fmt: skip
def test_the_target_of_a_searchs_settings(settings, expected):
    assert target_of(settings) == Target(*expected)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"target": "mnist"}, "target"), ({"target": ["cifar"]}, "target"),
        ({"target_layers": 0}, "target_layers"), ({"target_layers": 1001}, "target_layers"),
        ({"target_channels": "8"}, "target_channels"), ({"target_channels": True}, "channels"),
        ({"target": "imagenet", "target_channels": 1}, "target_channels"),
        ({"target_image_size": 10**5}, "target_image_size"),
    ],
)  # fmt: skip
def test_settings_that_no_network_has(settings, named):
    with pytest.raises(ValueError, match=named):
        target_of(settings)
