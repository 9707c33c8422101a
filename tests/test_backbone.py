"""Feature maps of the ImageNet network, under torchvision's detectors and segmentation models."""

import math

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.segmentation import FCN, DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from genotypes import DARTS_V2
from model import Backbone, NetworkImageNet


def build(layers=5, auxiliary=True):
    torch.manual_seed(0)
    # Unlike RelativeNAS's, its reduction cells use both of their inputs.
    return NetworkImageNet(4, 10, layers, auxiliary, DARTS_V2)


def test_the_maps_are_the_last_ones_at_each_stride():
    network = build(layers=14).eval()
    outputs = []
    for module in (network.stem0, network.stem1, *network.cells):
        module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    images = torch.randn(1, 3, 40, 40)
    features = network.forward_features(images)
    # Cells 4 and 9 of 14 halve the size.
    assert list(features) == [4, 8, 16, 32]
    for stride, index in ((4, 0), (8, 2 + 3), (16, 2 + 8), (32, 2 + 13)):
        assert features[stride] is outputs[index]
    logits, _ = network(images)
    assert torch.equal(network.classifier(features[32].mean((2, 3))), logits)


@pytest.mark.parametrize("size", [(32, 64), (75, 97), (33, 1)])
def test_maps_of_any_image_size(size):
    network = build(layers=3)
    features = network.forward_features(torch.randn(2, 3, *size))
    assert list(features) == [4, 8, 16, 32]
    for stride, features_there in features.items():
        sizes = [math.ceil(side / stride) for side in size]
        assert features_there.shape == (2, network.feature_channels[stride], *sizes)


def test_a_network_with_fewer_cells_has_fewer_maps():
    assert build(layers=1).feature_channels == {4: 4, 8: 4, 16: 32}
    assert build(layers=2).feature_channels == {4: 4, 8: 4, 16: 32, 32: 64}
    with pytest.raises(ValueError, match=r"strides \[32\].*\[4, 8, 16\]"):
        Backbone(build(layers=1), {32: "out"})


def test_a_backbone_runs_what_its_maps_need():
    network = build(layers=14)
    names = set(network.state_dict())
    backbone = Backbone(network, {16: "1", 8: "0"})
    assert set(network.state_dict()) == names
    assert backbone.out_channels == [4 * 4, 4 * 8]
    assert len(backbone.network.cells) == 9
    features = backbone(torch.randn(2, 3, 64, 64))
    assert list(features) == ["0", "1"]
    sum(map(torch.sum, features.values())).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_faster_rcnn_on_a_feature_pyramid():
    body = Backbone(build())
    features = nn.Sequential(body, FeaturePyramidNetwork(body.out_channels, 16, LastLevelMaxPool()))
    features.out_channels = 16
    detector = FasterRCNN(features, num_classes=3, min_size=64, max_size=96)
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
    sum(detector([torch.rand(3, 70, 90)], [target]).values()).backward()
    assert body.network.stem0[0].weight.grad.abs().sum() > 0
    (detected,) = detector.eval()([torch.rand(3, 70, 90)])
    assert detected["boxes"].shape[1] == 4


@pytest.mark.parametrize(("model", "head"), [(FCN, FCNHead), (DeepLabV3, DeepLabHead)])
def test_segmentation(model, head):
    backbone = Backbone(build(), {16: "aux", 32: "out"})
    middle, coarse = backbone.out_channels
    segmenter = model(backbone, head(coarse, 5), FCNHead(middle, 5))
    outputs = segmenter(torch.randn(2, 3, 75, 97))
    assert outputs["out"].shape == outputs["aux"].shape == (2, 5, 75, 97)
    labels = torch.randint(5, (2, 75, 97))
    sum(nn.functional.cross_entropy(output, labels) for output in outputs.values()).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
