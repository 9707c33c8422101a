"""The transfer tasks' networks as export.py writes them."""

from argparse import Namespace
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from dataset.pixel_statistics import PUBLISHED_STATISTICS, Statistics, statistics_from_dict
from genotypes import resolve_genotype
from runtime.checkpoint import load_checkpoint, published_state_dict
from runtime.errors import UserError
from training.exported import ExportedNetwork
from transfer.detection.network import PIXEL_MEAN, PIXEL_STD, DetectionNetwork, load_detector
from transfer.keypoints.network import COARSEST_STRIDE, load_keypoint_network
from transfer.segmentation.checkpoints import load_segmentation_network


class ExportedDetector(ExportedNetwork):
    """Gives `scores`, (N, priors, classes), the probabilities of the classes, 0 the background, and
    `boxes`, (N, priors, 4) as x1, y1, x2, y2 in pixels.

    What is left to do is to choose: see `transfer.detection.targets.select_detections`.
    """

    outputs = ("scores", "boxes")

    def __init__(self, network: DetectionNetwork, description: dict) -> None:
        side = description["image_size"]
        statistics = Statistics((PIXEL_MEAN,) * 3, (PIXEL_STD,) * 3)
        super().__init__(network, description, (side, side), statistics)
        image = torch.zeros(1, 3, side, side)
        with torch.inference_mode(False), torch.no_grad():
            maps = list(network.backbone(image).values())
            (priors,) = network.anchor_generator(ImageList(image, [(side, side)]), maps)
        self.register_buffer("priors", priors)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, offsets = self.network.raw_outputs(self.normalized(images))
        priors = self.priors.expand(images.shape[0], -1, -1)  # a length would be a constant
        boxes = self.network.box_coder.decode_single(offsets.flatten(0, 1), priors.flatten(0, 1))
        return logits.softmax(dim=2), boxes.view_as(offsets)


class ExportedSegmentation(ExportedNetwork):
    """Gives `logits`, (N, classes, H, W)."""

    outputs = ("logits",)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.normalized(images))


class ExportedKeypoints(ExportedNetwork):
    """Gives `heatmaps`, (N, joints, H / 4, W / 4), for images in RGB whatever it was trained on."""

    outputs = ("heatmaps",)

    def forward(self, images: Tensor) -> Tensor:
        if self.description["bgr"]:
            images = images.flip(1)
        return self.network(self.normalized(images))


def _detector(args: Namespace, given: tuple) -> ExportedDetector:
    return ExportedDetector(*load_detector(args.model_path, *given, args.image_size))


def _segmentation(args: Namespace, given: tuple) -> ExportedSegmentation:
    network, description = load_segmentation_network(args.model_path, *given)
    side = args.image_size or description["crop_size"]
    return ExportedSegmentation(network, description, (side, side), _statistics(description))


def _keypoints(args: Namespace, given: tuple) -> ExportedKeypoints:
    network, description = load_keypoint_network(args.model_path, *given)
    height, width = (args.image_size,) * 2 if args.image_size else description["image_size"]
    if height % COARSEST_STRIDE or width % COARSEST_STRIDE:
        raise UserError(f"--image_size {args.image_size}: must be a multiple of {COARSEST_STRIDE}")
    return ExportedKeypoints(network, description, (height, width), _statistics(description))


def _statistics(description: dict) -> Statistics:
    if "mean" in description:
        return statistics_from_dict(description)
    return PUBLISHED_STATISTICS["imagenet"]


LOADERS: dict[tuple[str, ...], Callable[[Namespace, tuple], ExportedNetwork]] = {
    ("head.classification.", "classification_headers."): _detector,
    ("output.1.", "cp."): _segmentation,
    ("heatmaps.", "deconv_layers."): _keypoints,
}
"""By what names in a task's state dicts begin with, in ours and in the original's repository."""


def load_exported(args: Namespace) -> ExportedNetwork | None:
    """The network of a transfer task in the checkpoint `args.model_path`; None if it is of none.

    Args:
        args: export.py's.

    Raises:
        UserError: the checkpoint cannot be used, or a flag is given that no such network reads.
    """
    state = published_state_dict(load_checkpoint(args.model_path), args.model_path)
    for beginnings, load in LOADERS.items():
        if any(name.startswith(beginnings) for name in state):
            for name in ("set", "auxiliary"):
                if getattr(args, name) is not None:
                    raise UserError(f"--{name}: is for networks that classify; leave it out")
            genotype = resolve_genotype(args.arch) if args.arch else None
            return load(args, (genotype, args.init_channels, args.layers))
    return None
