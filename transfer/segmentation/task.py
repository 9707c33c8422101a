"""Segmentation as a task of the training loop, and what its test shares with that."""

from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from report.records import PREDICTIONS_FILE
from report.run import Run
from runtime.atomic_file import write_whole_file
from runtime.errors import UserError
from runtime.processes import Processes
from training.task import LossSums
from transfer.launch import MADE, begin_with_imagenet
from transfer.pictures import contact_sheet, shrunk
from transfer.segmentation.checkpoints import build_segmentation_network
from transfer.segmentation.data import Cityscapes, LabelledImages
from transfer.segmentation.evaluation import (
    Windows,
    class_scores,
    count_pixels,
    new_counts,
    pixel_metrics,
)
from transfer.segmentation.loss import IGNORED, learning_rate, parameter_groups, segmentation_loss
from transfer.segmentation.made import MadeShapes
from transfer.segmentation.network import BiSeNet, share_batch_norms
from transfer.segmentation.pictures import LARGEST_SIDE, comparison
from utils import autocast

SETS = ("cityscapes", MADE)

Found = TypeVar("Found")


def open_set(args: Namespace, split: str, crop_size: int) -> LabelledImages:
    """The images of a split, "train" or "val", of `--set`; made ones are as large as the crops.

    Raises:
        UserError: as `Cityscapes`, or those to validate on have no pixel of any class.
    """
    if args.set == MADE:
        return MadeShapes(split, crop_size)
    images = Cityscapes(Path(args.data), split)
    if split == "val":
        label_maps = (images.read(number)[1] for number in range(len(images)))
        if not any((labels != IGNORED).any() for labels in label_maps):
            raise UserError(
                f"the {len(images)} validation images have no pixel of any class, so there is "
                "nothing to measure; give them label maps that have some"
            )
    return images


def class_names(images: LabelledImages) -> list[str]:
    """The names of the classes in the order of their numbers."""
    return [pixel_class.name for pixel_class in images.classes]


class Segmentation:
    """Cross-entropy of hard pixels, summed up over the three outputs (see `Task`).

    Args:
        args: the training script's.
        processes: those that train together.
        description: of the network, by `describe_segmentation_network`, and the classes' names.
        images: to validate on.
        steps: of training in an epoch.
    """

    best_by = "miou"

    def __init__(
        self,
        args: Namespace,
        processes: Processes,
        description: dict,
        images: LabelledImages,
        steps: int,
    ) -> None:
        self.args = args
        self.processes = processes
        self.description = description
        self.images = images
        self.steps = steps
        self.pictures: list[Image.Image] = []

    def build(self) -> BiSeNet:
        network = build_segmentation_network(self.description)
        begin_with_imagenet(network.backbone.network, self.args)
        # PyTorch has no shared batch norms on the CPU; there each process has its own.
        if self.processes.device.type == "cuda" and self.processes.size > 1:
            share_batch_norms(network, self.args.as_published)
        return network

    def optimizer(self, network: BiSeNet) -> torch.optim.SGD:
        args = self.args
        groups = parameter_groups(network, args.weight_decay, args.as_published)
        trained = {id(parameter) for group in groups for parameter in group["params"]}
        for parameter in network.parameters():
            # Else gradients that no optimizer sets to zero would add up from step to step.
            parameter.requires_grad_(id(parameter) in trained)
        return torch.optim.SGD(groups, args.learning_rate, args.momentum)

    def learning_rate(self, epoch: int, step: int) -> float:
        args = self.args
        done, total = epoch * self.steps + step - 1, args.epochs * self.steps
        return learning_rate(done, total, args.learning_rate, args.warmup_steps)

    def begin_epoch(self, network: nn.Module, epoch: int) -> None:
        """Nothing changes from epoch to epoch."""

    def new_sums(self, device: torch.device) -> LossSums:
        return LossSums(device)

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor, sums: LossSums) -> Tensor:
        """The loss of the three outputs together, which is the one that is counted."""
        loss = segmentation_loss(network(images), labels)
        sums.update(loss.detach(), len(images))
        return loss

    def evaluate(
        self,
        network: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        processes: Processes,
        precision: torch.dtype,
    ) -> dict[str, float]:
        drawn = {}

        def draw(number: int, predicted: Tensor) -> None:
            if number < self.args.pictures:
                drawn[number] = picture(self.images, number, predicted)

        windows = Windows(self.args.crop_size)
        counts = evaluate(network, batches, self.images, processes, precision, windows, draw)
        self.pictures = in_order(processes, drawn)
        return pixel_metrics(counts) | {"count": len(self.images)}

    def in_words(self, result: dict[str, float]) -> str:
        if "miou" in result:
            return f"mIoU {result['miou']:.2f} %, pixel accuracy {result['pixel_accuracy']:.2f} %"
        return f"loss {result['loss']:.4f}"

    def keep_best(self, run: Run, epoch: int) -> None:
        """Write the pictures, for the report."""
        path = run.path(PREDICTIONS_FILE)
        if path and self.pictures:
            write_whole_file(path, contact_sheet(self.pictures, LARGEST_SIDE))


def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    images: LabelledImages,
    processes: Processes,
    precision: torch.dtype,
    windows: Windows,
    keep: Callable[[int, Tensor], None],
) -> Tensor:
    """Count what pixels of images are taken for, over the images of all processes.

    Args:
        batches: this process's part, by `evaluation_batches`.
        images: all of them.
        keep: is given each image's number, and the classes that were found in it, int64 (H, W).

    Returns:
        The counts of `count_pixels`, the same in all processes.

    Raises:
        Interrupted: a signal asked to stop; in all processes together.
    """
    network.eval()
    processes.share_buffers(network)
    counts = new_counts(len(images.classes), processes.device)
    own = range(processes.rank, len(images), processes.size)
    with torch.inference_mode():
        for number, (image, labels) in zip(own, batches, strict=True):
            with autocast(image.device, precision):
                predicted = class_scores(network, image, windows).argmax(dim=1)
            count_pixels(counts, predicted, labels)
            keep(number, predicted[0])
            if processes.interruption.signal:
                break
    processes.check_interruption_now()
    processes.sum(counts)
    return counts


def picture(images: LabelledImages, number: int, predicted: Tensor) -> Image.Image:
    """An image beside its true classes and the `predicted` ones, (H, W), made small."""
    return shrunk(comparison(*images.read(number), predicted, images.classes), LARGEST_SIDE)


def in_order(processes: Processes, own: dict[int, Found]) -> list[Found]:
    """What all processes have found, in the order of the images.

    Args:
        own: what this one has, by the images' numbers.
    """
    found = {number: value for share in processes.gather(own) for number, value in share.items()}
    return [found[number] for number in sorted(found)]
