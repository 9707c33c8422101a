"""Detection as a task to train for, and how well a detector finds the objects of a set."""

import math
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from report.records import PREDICTIONS_FILE
from report.run import Run
from runtime.atomic_file import write_whole_file
from runtime.errors import UserError
from runtime.processes import Processes
from training.task import LossSums
from transfer.detection.batches import Target
from transfer.detection.evaluation import (
    coco_average_precision,
    judge_detections,
    mean_average_precision,
)
from transfer.detection.network import DetectionNetwork, build_detector
from transfer.detection.pictures import draw_objects
from transfer.detection.sets import DetectionSet
from transfer.launch import begin_with_imagenet
from transfer.pictures import contact_sheet
from utils import autocast

COCO_NAMES = {"map": "ap", "ap50": "ap50", "ap75": "ap75"}
"""What histories call COCO's figures."""

IN_WORDS = {"map": "mAP", "ap50": "AP50", "ap75": "AP75"}


class Found(NamedTuple):
    """What was found in an image, on the CPU.

    Attributes:
        number: of the image in its set, from 0.
        detected: `boxes`, `labels` and `scores`, as a detector gives them.
        target: of the image, as from `read_sample`.
    """

    number: int
    detected: dict[str, Tensor]
    target: dict[str, Tensor]


class Detection:
    """SSD's loss; checkpoints are judged by the mean average precision (see `Task`).

    Args:
        args: the training script's.
        description: of the network, by `describe_detector`.
        validation_images: those that `evaluate` will see.
    """

    best_by = "map"

    def __init__(self, args: Namespace, description: dict, validation_images: DetectionSet) -> None:
        self.args = args
        self.description = description
        self.validation_images = validation_images
        self.found: list[Found] = []

    def build(self) -> DetectionNetwork:
        network = build_detector(self.description)
        begin_with_imagenet(network.backbone.body.network, self.args)
        return network

    def optimizer(self, network: nn.Module) -> torch.optim.SGD:
        args = self.args
        return torch.optim.SGD(
            network.parameters(), args.learning_rate, args.momentum, weight_decay=args.weight_decay
        )

    def learning_rate(self, epoch: int, step: int) -> float:
        done = epoch / self.args.epochs
        return self.args.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def begin_epoch(self, network: nn.Module, epoch: int) -> None:
        """Nothing changes."""

    def new_sums(self, device: torch.device) -> LossSums:
        return LossSums(device)

    def loss(
        self, network: nn.Module, images: Tensor, targets: list[Target], sums: LossSums
    ) -> Tensor:
        losses = network(images, targets)
        loss = losses["classification"] + losses["bbox_regression"]
        sums.update(loss.detach(), len(images))
        return loss

    def evaluate(
        self,
        network: nn.Module,
        batches: Iterable[tuple[list[Tensor], list[Target]]],
        processes: Processes,
        precision: torch.dtype,
    ) -> dict[str, float]:
        self.found = find_objects(network, batches, processes, precision)
        return figures(self.found, self.args.set, len(self.validation_images.class_names) + 1)

    def in_words(self, result: dict[str, float]) -> str:
        if "loss" in result:
            return f"loss {result['loss']:.4f}"
        return ", ".join(
            f"{name} {result[key]:.2f} %" for key, name in IN_WORDS.items() if key in result
        )

    def keep_best(self, run: Run, epoch: int) -> None:
        """Draw the first validation images with what was just found in them."""
        path = run.path(PREDICTIONS_FILE)
        if path and self.args.pictures:
            found = self.found[: self.args.pictures]
            write_whole_file(path, found_sheet(found, self.validation_images))


def find_objects(
    network: nn.Module,
    batches: Iterable[tuple[list[Tensor], list[Target]]],
    processes: Processes,
    precision: torch.dtype,
) -> list[Found]:
    """What a detector finds in the images of all processes, in each of them, in the set's order.

    Args:
        batches: of `DetectionBatches.validation_batches`.

    Raises:
        Interrupted: a signal asked to stop; in all processes together.
    """
    network.eval()
    processes.share_buffers(network)
    own = []
    with torch.inference_mode():
        for images, targets in batches:
            with autocast(processes.device, precision):
                detections = network(images)
            # As arrays, for tensors are slow to hand over when there are many.
            own += [
                (int(target.pop("number")), _to_arrays(detected), _to_arrays(target))
                for detected, target in zip(detections, targets, strict=True)
            ]
            if processes.interruption.signal:
                break
    processes.check_interruption_now()
    found = [
        Found(number, _to_tensors(detected), _to_tensors(target))
        for part in processes.gather(own)
        for number, detected, target in part
    ]
    return sorted(found, key=lambda image: image.number)


def _to_arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def _to_tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def figures(found: Sequence[Found], set_name: str, num_classes: int) -> dict[str, float]:
    """How good it is what was found, in percent: VOC's measure, but for --set coco COCO's.

    Args:
        num_classes: the background, which is class 0, included.

    Returns:
        `map`, for COCO also `ap50` and `ap75`; and `count`, the images.

    Raises:
        UserError: there are no objects to find.
    """
    if set_name == "coco":
        pairs = [(image.detected, image.target) for image in found]
        parts = coco_average_precision(*zip(*pairs, strict=True), num_classes)
        result = {name: 100 * parts[theirs] for name, theirs in COCO_NAMES.items()}
        if result["map"] < 0:
            raise UserError("the test images have no objects to find; give others to test on")
    else:
        outcomes = [judge_detections(image.detected, image.target) for image in found]
        result = {"map": 100 * mean_average_precision(outcomes, num_classes)}
    return {**result, "count": len(found)}


def found_sheet(found: Sequence[Found], images: DetectionSet) -> bytes:
    """A picture of images with what was found in them, as a PNG file's content."""
    return contact_sheet(
        [
            draw_objects(
                images.read(image.number, training=False)[0], image.detected, images.class_names
            )
            for image in found
        ]
    )
