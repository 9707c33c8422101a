"""Segmentation as a task of the training loop: recipe, loss, shared norms, first weights."""

import math
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from helpers import assert_same_tensors
from torch import nn

from genotypes import RelativeNAS
from model import NetworkImageNet
from runtime.processes import Processes
from transfer import train_segmentation
from transfer.segmentation.made import MadeShapes
from transfer.segmentation.task import Segmentation

CPU = torch.device("cpu")


def segmentation(processes=None, steps=186, **flags):
    """The task with the recipe's numbers and a tiny network."""
    defaults = vars(train_segmentation.parse_arguments([]))
    args = Namespace(**defaults | {"layers": 2, "init_channels": 2} | flags)
    images = MadeShapes("val", 16)
    description = train_segmentation.describe(args, images)
    return Segmentation(args, processes or Processes(CPU), description, images, steps)


def test_the_recipe_is_the_published_one():
    args = train_segmentation.parse_arguments([])
    recipe = {"epochs": 430, "batch_size": 16, "crop_size": 1024, "warmup_steps": 1000,
              "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "grad_clip": 0.0,
              "init_channels": 46, "layers": 14, "as_published": False}  # fmt: skip
    assert {name: getattr(args, name) for name in recipe} == recipe
    published = segmentation()
    rate = published.learning_rate
    assert rate(0, 1) == 1e-5
    assert rate(5, 71) == 0.01  # 1,000 steps are done
    assert rate(4, 186) == pytest.approx(0.01 * 1000 ** (-71 / 1000))
    assert rate(429, 186) == pytest.approx(0.01 * (1 / (430 * 186 - 1000)) ** 0.9)
    optimizer = published.optimizer(published.build())
    groups = optimizer.param_groups
    assert [(group["rate"], group["weight_decay"]) for group in groups] == [
        (1.0, 5e-4), (1.0, 0.0), (10.0, 5e-4), (10.0, 0.0),
    ]  # fmt: skip
    assert {group["momentum"] for group in groups} == {0.9}


def norms(state):
    """The weights and biases of the backbone's batch norms."""
    affine = {name for name in state if name.startswith("backbone.")}
    norm = {name.rpartition(".")[0] for name in affine if name.endswith("running_mean")}
    return {name: state[name] for name in affine if name.rpartition(".")[0] in norm
            and name.endswith((".weight", ".bias"))}  # fmt: skip


@pytest.mark.parametrize("as_published", [False, True])
def test_norms_are_shared_by_gpus_and_what_is_not_trained_has_no_gradient(as_published):
    gpus = SimpleNamespace(device=torch.device("cuda"), size=2)
    network = segmentation(gpus, as_published=as_published).build()
    kinds = {
        part: {type(module) for module in getattr(network, part).modules()
               if isinstance(module, nn.modules.batchnorm._BatchNorm)}
        for part in ("context", "fusion", "backbone")
    }  # fmt: skip
    own = {nn.BatchNorm2d} if as_published else {nn.SyncBatchNorm}
    assert kinds == {"context": {nn.SyncBatchNorm}, "fusion": {nn.SyncBatchNorm}, "backbone": own}

    cpu = segmentation(as_published=as_published)
    network = cpu.build()
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in network.modules())
    optimizer = cpu.optimizer(network)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in network.parameters() if p.requires_grad}
    untrained = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert untrained == (norms(network.state_dict()).keys() if as_published else set())


def test_the_loss_of_all_outputs_is_counted_by_image():
    """Three outputs that know nothing have a loss of log 4 each."""
    logits = torch.zeros(2, 4, 8, 8, requires_grad=True)
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    own = segmentation()
    sums = own.new_sums(CPU)
    loss = own.loss(lambda images: (logits, logits, logits), torch.zeros(2, 3, 8, 8), labels, sums)
    assert loss.item() == pytest.approx(3 * math.log(4))
    sums.update(torch.tensor(1.0), 4)
    assert sums.result() == {"loss": pytest.approx(math.log(4) + 2 / 3), "count": 6}


def test_the_backbone_begins_with_the_weights_of_imagenet(tmp_path):
    torch.manual_seed(1)
    classifier = NetworkImageNet(2, 10, 2, True, RelativeNAS)
    torch.save(classifier.state_dict(), tmp_path / "imagenet.pt")
    network = segmentation(model_path=str(tmp_path / "imagenet.pt")).build()
    own = network.backbone.network.state_dict()
    assert_same_tensors(own, {name: classifier.state_dict()[name] for name in own})
