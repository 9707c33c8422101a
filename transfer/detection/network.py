"""The detector: SSDLite (Sandler et al., 2018, arXiv:1801.04381) on a RelativeNAS backbone.

The layers are those of the authors' repository for their transfer tasks, whose state dicts load.
Matching and the loss are torchvision's `SSD` (Liu et al., 2016, arXiv:1512.02325).
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.models.mobilenetv2 import InvertedResidual

from genotypes import Genotype, RelativeNAS
from model import Backbone, NetworkImageNet
from runtime.checkpoint import load_checkpoint, published_state_dict
from runtime.errors import UserError
from transfer.checkpoints import (
    build_backbone,
    check_description,
    described_by,
    given_fields,
    network_with_weights,
)
from transfer.detection.targets import select_detections

PUBLISHED_SIZES = {"init_channels": 46, "layers": 14, "num_classes": 21, "image_size": 320}
"""Of the published detector; PASCAL VOC's 20 classes and the background."""

PIXEL_MEAN, PIXEL_STD = 127 / 255, 128 / 255
"""What pixels in [0, 1] are normalised by, the same in all channels."""

EXTRA_LAYERS = ((512, 0.2), (256, 0.25), (256, 0.5), (64, 0.25))
"""Channels of the maps behind the backbone's, and their layers' hidden channels over incoming."""

PRIOR_SIZES = (60, 105, 150, 195, 240, 285, 330)
"""Sides of the squares that the maps look for, in pixels of an image of 320, and one more."""

PRIOR_STEPS = (16, 32, 64, 100, 150, 300)
"""Pixels from prior to prior at 320, by map.

The last three are those of an image of 300, so that these priors lie off the middle; the published
network was trained with them.
"""

PRIOR_RATIOS = (2, 3)
"""Width over height of the priors, or height over width, beside two squares."""

PRIORS_AT_A_PLACE = 2 + 2 * len(PRIOR_RATIOS)

SCORE_THRESHOLD, NMS_IOU, CANDIDATES = 0.01, 0.45, 200
"""Least score; least IoU with a better box that removes one; most boxes of a class before that."""

ORIGINAL_NAMES = {
    "base_net.": "backbone.body.network.",
    "extras.": "backbone.extras.",
    "classification_headers.": "head.classification.",
    "regression_headers.": "head.regression.",
}
"""What names in the state dicts of the authors' repository begin with, and ours."""

SIZES = {
    "init_channels": (2, 1 << 16),
    "layers": (2, 1000),
    "num_classes": (2, 1 << 16),
    "image_size": (32, 1 << 13),
}
"""What a network may have at least and at most.

With fewer cells there is no map at stride 32.
"""


class DetectionFeatures(nn.Module):
    """The backbone's maps at strides 16 and 32, and those of four inverted residuals behind them.

    Maps images (N, 3, H, W) to six maps, each half as large as the one before, rounded up;
    `out_channels` has their channels.
    """

    def __init__(self, network: NetworkImageNet) -> None:
        super().__init__()
        self.body = Backbone(network, {16: "0", 32: "1"})
        self.out_channels = list(self.body.out_channels)
        self.extras = nn.ModuleList()
        for channels, hidden in EXTRA_LAYERS:
            layer = InvertedResidual(self.out_channels[-1], channels, 2, hidden)
            self.extras.append(layer)
            self.out_channels.append(channels)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        features = self.body(x)
        for layer in self.extras:
            features[str(len(features))] = layer(next(reversed(features.values())))
        return features


def _predictor(channels: int, outputs: int) -> nn.Sequential:
    """A depthwise separable convolution, from a map to `outputs` numbers at each place."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
        nn.Conv2d(channels, outputs, 1),
    )


def _predictors(channels: list[int], columns: int) -> nn.ModuleList:
    """One for each map; the last map is a single place, for which a 1×1 convolution is enough."""
    outputs = PRIORS_AT_A_PLACE * columns
    layers = [_predictor(count, outputs) for count in channels[:-1]]
    return nn.ModuleList([*layers, nn.Conv2d(channels[-1], outputs, 1)])


class DetectionHead(nn.Module):
    """Class logits and box offsets of all priors, from a list of maps (N, channels, H, W)."""

    def __init__(self, channels: list[int], num_classes: int) -> None:
        super().__init__()
        self.classification = _predictors(channels, num_classes)
        self.regression = _predictors(channels, 4)

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Under the names that torchvision's `SSD` has for them, each (N, priors, columns)."""
        return {
            "cls_logits": _by_prior(self.classification, features),
            "bbox_regression": _by_prior(self.regression, features),
        }


def _by_prior(layers: nn.ModuleList, features: list[Tensor]) -> Tensor:
    """Map by map, in each row by row, at each place prior by prior: float32 (N, priors, columns).

    Coordinates and scores need more than bfloat16's 8 bits.
    """
    outputs = [
        layer(map_).permute(0, 2, 3, 1) for layer, map_ in zip(layers, features, strict=True)
    ]
    priors = [
        # Not by its length, which an exported network would take for a constant.
        output.reshape(output.shape[0], -1, output.shape[3] // PRIORS_AT_A_PLACE)
        for output in outputs
    ]
    return torch.cat(priors, dim=1).float()


class Priors(DefaultBoxGenerator):
    """The default boxes, always in float32: torchvision's have the maps' precision."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        return super().forward(image_list, [map_[:1, :1].float() for map_ in feature_maps])


class DetectionNetwork(SSD):
    """torchvision's detector with the published layers.

    Args:
        network: for ImageNet; its stem and cells are copied (see `Backbone`).
        num_classes: the background, which is class 0, included.
        image_size: height and width that images are resized to. At 320 the priors are the
            published ones; at other sizes they have the same parts of the image's size, and are
            in the middle of their places.

    `forward` takes a list of float images (3, H, W) in [0, 1] of any sizes, or one tensor of them.
    In training it also takes their targets, `boxes`, float32 (n, 4) as x1, y1, x2, y2 in pixels,
    and `labels`, int64 (n,), and gives the losses `classification` and `bbox_regression`, whose
    sum is the loss. In eval mode it gives for each image `boxes`, which may reach beyond the
    image, `labels` and `scores`, the highest score first.

    Raises:
        ValueError: the network has no map at stride 32.
    """

    def __init__(
        self,
        network: NetworkImageNet,
        num_classes: int,
        image_size: int = PUBLISHED_SIZES["image_size"],
    ) -> None:
        features = DetectionFeatures(network)
        published = PUBLISHED_SIZES["image_size"]
        priors = Priors(
            [list(PRIOR_RATIOS)] * len(features.out_channels),
            scales=[size / published for size in PRIOR_SIZES],
            steps=list(PRIOR_STEPS) if image_size == published else None,
            clip=True,
        )
        super().__init__(
            features,
            priors,
            (image_size, image_size),
            num_classes,
            image_mean=[PIXEL_MEAN] * 3,
            image_std=[PIXEL_STD] * 3,
            head=DetectionHead(features.out_channels, num_classes),
            score_thresh=SCORE_THRESHOLD,
            nms_thresh=NMS_IOU,
            topk_candidates=CANDIDATES,
        )
        self.num_classes = num_classes
        self.image_size = image_size
        for part in (self.backbone.extras, self.head):
            part.apply(_initialise)

    def raw_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the layers give, before boxes are made of it.

        Args:
            images: normalised, float (N, 3, H, W): pixels in [0, 1] less 127/255, over 128/255.

        Returns:
            Class logits, float32 (N, priors, num_classes), and box offsets, float32
            (N, priors, 4).
        """
        outputs = self.head(list(self.backbone(images).values()))
        return outputs["cls_logits"], outputs["bbox_regression"]

    def postprocess_detections(
        self,
        head_outputs: dict[str, Tensor],
        image_anchors: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """The detections in each image, as published: boxes are not clipped, and none is too many.

        torchvision's own clips boxes to the image before it removes those that overlap, and keeps
        200 of an image.
        """
        probabilities = head_outputs["cls_logits"].softmax(dim=2)
        offsets = head_outputs["bbox_regression"]
        return [
            select_detections(
                self.box_coder.decode_single(offsets[index], priors),
                probabilities[index],
                self.score_thresh,
                self.nms_thresh,
                self.topk_candidates,
            )
            for index, priors in enumerate(image_anchors)
        ]


def _initialise(layer: nn.Module) -> None:
    """New layers as in SSD (Liu et al., 2016, section 3)."""
    if isinstance(layer, nn.Conv2d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def describe_detector(
    genotype: Genotype,
    init_channels: int,
    layers: int,
    num_classes: int,
    image_size: int,
    class_names: Sequence[str] = (),
) -> dict:
    """All that `build_detector` needs, as plain data for a checkpoint.

    Args:
        class_names: without the background's; none if they are not known.
    """
    return {
        "task": "detection",
        "genotype": genotype._asdict(),
        "init_channels": init_channels,
        "layers": layers,
        "num_classes": num_classes,
        "image_size": image_size,
        "class_names": list(class_names),
    }


def check_detector_description(description: Mapping) -> None:
    """Check what `describe_detector` gave, or a checkpoint says.

    Raises:
        ValueError: a field is not what it should be; names it.
    """
    check_description(description, "detection", SIZES)
    names = description["class_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("field 'class_names' must be a list of names")
    if names and len(names) != description["num_classes"] - 1:
        raise ValueError("field 'class_names' must have a name for each class but the background")


def build_detector(description: Mapping) -> DetectionNetwork:
    """The network that `describe_detector` described, its weights new."""
    return DetectionNetwork(
        build_backbone(description), description["num_classes"], description["image_size"]
    )


def new_detector(
    genotype: Genotype | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
) -> DetectionNetwork:
    """A detector with new weights: the published one, as far as nothing else is given.

    Raises:
        UserError: it cannot be built; names what is wrong.
    """
    sizes = _given_sizes(num_classes=num_classes, image_size=image_size)
    description = describe_detector(RelativeNAS, **PUBLISHED_SIZES | sizes)
    description |= given_fields(genotype, init_channels, layers)
    try:
        check_detector_description(description)
    except ValueError as error:
        raise UserError(f"network for detection: {error}") from None
    return build_detector(description)


def load_detector(
    path: str | Path,
    genotype: Genotype | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
    image_size: int | None = None,
) -> tuple[DetectionNetwork, dict]:
    """The detector in a checkpoint, in eval mode, and its description.

    What is given goes before what the checkpoint says of itself. A state dict of the original's
    repository says nothing; the published network's cell and sizes are its defaults.

    Raises:
        UserError: the file cannot be read or holds another network; names what differs.
    """
    checkpoint = load_checkpoint(path)
    state = own_names(published_state_dict(checkpoint, path))
    last = state.get("head.classification.5.bias")
    if last is None or last.dim() != 1:
        raise UserError(
            f"checkpoint {path}: holds no detector (no head.classification.5.bias in it); give "
            "one of transfer/train_detection.py, or of the original's repository"
        )
    sizes = PUBLISHED_SIZES | {"num_classes": len(last) // PRIORS_AT_A_PLACE}
    given = given_fields(genotype, init_channels, layers) | _given_sizes(image_size=image_size)
    description = described_by(checkpoint, describe_detector(RelativeNAS, **sizes), given)
    try:
        check_detector_description(description)
    except ValueError as error:
        raise UserError(f"checkpoint {path}: does not describe a detector ({error})") from None
    return network_with_weights(build_detector, description, state, path), description


def _given_sizes(**sizes: int | None) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if size is not None}


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under our names, if it has those of the authors' repository."""
    return {_own_name(name): tensor for name, tensor in state.items()}


def _own_name(name: str) -> str:
    for theirs, ours in ORIGINAL_NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
