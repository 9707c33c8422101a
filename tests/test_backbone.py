"""Feature maps of the ImageNet network, under torchvision's detectors and segmentation models."""

import math
import re
import runpy
import sys

import pytest
import torch
from helpers import ROOT
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.segmentation import FCN, DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from dataset.image_set import load_image_set
from docs import detect_digits
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


def test_the_example_learns_to_detect_digits(monkeypatch, capsys):
    arguments = ["--init_channels", "4", "--layers", "3", "--steps", "30", "--batch_size", "4"]
    monkeypatch.setattr(sys, "argv", ["detect_digits.py", *arguments, "--test_images", "3"])
    monkeypatch.setattr(sys, "path", ["docs", *sys.path])
    runpy.run_path(str(ROOT / "docs" / "detect_digits.py"), run_name="__main__")
    output = capsys.readouterr().out
    losses = re.findall(r"step \d+/30: losses (\d+\.\d+) \(class\), (\d+\.\d+) \(box\)", output)
    assert len(losses) == 11
    first, last = (sum(map(float, losses[index])) for index in (0, -1))
    assert last < 0.95 * first
    assert re.search(r"recall +\d+\.\d %.*\nprecision +\d+\.\d %.*\nmean IoU +\d\.\d\d\n", output)


def test_a_canvas_has_its_digits_inside_their_boxes():
    generator = torch.Generator().manual_seed(0)
    digits = load_image_set("digits", "", "test")
    for _ in range(20):
        image, target = detect_digits.digit_canvas(digits, generator)
        assert len(target["boxes"]) == detect_digits.DIGITS
        assert target["labels"].tolist() == [1] * detect_digits.DIGITS
        for left, top, right, bottom in target["boxes"].int().tolist():
            inside = image[:, top:bottom, left:right]
            assert inside.amax() > 0.5
            inside.zero_()
        assert not image.any()


class FixedDetector(nn.Module):
    """Gives detections that are known beforehand, whatever the image."""

    def __init__(self, detections):
        super().__init__()
        self.detections = iter(detections)

    def forward(self, images):
        return [next(self.detections)]


def test_recall_precision_and_iou_are_those_of_a_hand_count(monkeypatch):
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    monkeypatch.setattr(detect_digits, "digit_canvas", lambda *_: (None, {"boxes": boxes}))
    half = torch.tensor([[20.0, 20, 40, 30]])  # IoU 1/2 with the second box
    third = torch.tensor([[0.0, 0, 5, 20 / 3]])  # IoU 1/3 with the first box
    detections = [
        (torch.cat([boxes, half]), [0.9, 0.8, 0.7]),  # both found, one of them twice
        (boxes, [0.9, 0.4]),  # one not sure enough
        (boxes[:0], []),
        (torch.cat([half, third]), [0.9, 0.9]),  # one too far off
    ]
    detector = FixedDetector(
        {"boxes": found, "scores": torch.tensor(scores)} for found, scores in detections
    )
    result = detect_digits.evaluate(detector, None, len(detections), seed=0)
    iou = (1 + 1 + 1 + 0 + 0 + 0 + 1 / 2 + 1 / 3) / 8
    assert result == pytest.approx({"recall": 4 / 8, "precision": 5 / 6, "iou": iou})
