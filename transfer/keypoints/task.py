"""Keypoints as a task of the training loop, and what a network finds evaluated."""

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from report.records import PREDICTIONS_FILE
from report.run import Run
from runtime.atomic_file import write_whole_file
from runtime.errors import UserError
from runtime.processes import Processes
from training.task import result_of_all
from transfer.keypoints.annotations import Annotations, People
from transfer.keypoints.data import CroppedPeople, people_found
from transfer.keypoints.evaluation import average_precision, coco_results
from transfer.keypoints.network import KeypointNetwork, build_keypoint_network
from transfer.keypoints.pictures import draw_results
from transfer.keypoints.targets import (
    JointSums,
    decode_heatmaps,
    heatmap_loss,
    heatmap_targets,
    predict_heatmaps,
)
from transfer.launch import begin_with_imagenet
from utils import autocast

MEASURED = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
"""COCO's names of figures in a training's history, by theirs in `report.records.METRICS`."""


@dataclass(frozen=True)
class Evaluation:
    """What a network finds in people's boxes.

    Attributes:
        figures: COCO's, in percent, by the names in `evaluation.FIGURES`.
        joints: `loss`, joints `found` in percent and `count`, as `JointSums` has them; for detected
            boxes, whose joints are not known, `count` alone means something.
        results: the people found, in COCO's form, in the order of the set's boxes.
    """

    figures: dict[str, float]
    joints: dict[str, float]
    results: list[dict]


class Keypoints:
    """Heatmaps of people's joints (see `Task`).

    Args:
        args: the training script's.
        description: of the network, by `describe_keypoint_network`, and its mean and deviation.
        annotations, people: of validation.
    """

    best_by = "ap"

    def __init__(
        self, args: Namespace, description: dict, annotations: Annotations, people: People
    ) -> None:
        self.args = args
        self.description = description
        self.annotations = annotations
        self.people = people
        self._results: list[dict] = []

    def build(self) -> KeypointNetwork:
        network = build_keypoint_network(self.description)
        begin_with_imagenet(network.backbone.network, self.args)
        return network

    def optimizer(self, network: nn.Module) -> torch.optim.Adam:
        args = self.args
        return torch.optim.Adam(
            network.parameters(), args.learning_rate, weight_decay=args.weight_decay
        )

    def learning_rate(self, epoch: int, step: int) -> float:
        args = self.args
        if args.as_published:
            return args.learning_rate  # its schedule is set up and never asked
        passed = sum(epoch >= milestone for milestone in args.milestones)
        return args.learning_rate * args.learning_rate_factor**passed

    def begin_epoch(self, network: nn.Module, epoch: int) -> None:
        """Nothing changes."""

    def new_sums(self, device: torch.device) -> JointSums:
        return JointSums(device)

    def loss(
        self, network: nn.Module, images: Tensor, people: CroppedPeople, sums: JointSums
    ) -> Tensor:
        return _counted_loss(network(images).float(), people, sums)

    def evaluate(
        self,
        network: nn.Module,
        batches: Iterable[tuple[Tensor, CroppedPeople]],
        processes: Processes,
        precision: torch.dtype,
    ) -> dict[str, float]:
        evaluation = evaluate(network, batches, self.people, self.annotations, processes, precision)
        self._results = evaluation.results
        figures = {name: evaluation.figures[theirs] for name, theirs in MEASURED.items()}
        return figures | evaluation.joints

    def in_words(self, result: dict[str, float]) -> str:
        words = f"loss {result['loss']:.6f}, joints found {result['found']:.2f} %"
        return f"{words}, AP {result['ap']:.2f} %" if "ap" in result else words

    def keep_best(self, run: Run, epoch: int) -> None:
        """Draw the first validation images with the people found in them, if that is asked for."""
        path = run.path(PREDICTIONS_FILE)
        if path and self.args.pictures:
            write_whole_file(path, draw_results(self.people, self._results, self.args.pictures))


def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, CroppedPeople]],
    people: People,
    annotations: Annotations,
    processes: Processes,
    precision: torch.dtype,
    flip: bool = True,
) -> Evaluation:
    """Find the joints of `people`, and compare them with the annotations.

    Args:
        batches: this process's part of `people`, each of whom is in one process's.
        flip: average heatmaps with those of the mirrored images.

    Raises:
        UserError: nobody in the annotations has labelled joints, or pycocotools is missing.
        Interrupted: a signal asked to stop; in all processes together.
    """
    network.eval()
    processes.share_buffers(network)
    sums = JointSums(processes.device)
    found: list[tuple[Tensor, ...]] = []
    with torch.inference_mode():
        for images, cropped in batches:
            with autocast(images.device, precision):
                heatmaps = predict_heatmaps(network, images, flip).float()
            _counted_loss(heatmaps, cropped, sums)
            decoded = decode_heatmaps(heatmaps, cropped.centres, cropped.sizes)
            found.append((cropped.indices, cropped.sizes, *decoded))
            if processes.interruption.signal:
                break
    processes.check_interruption_now()
    on_cpu = [tuple(tensor.cpu() for tensor in batch) for batch in found]
    parts = [batch for part in processes.gather(on_cpu) for batch in part]
    arrays = (torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))
    results = coco_results(people_found(people, *arrays))
    figures = average_precision(annotations.coco_images, annotations.people, results)
    if "AP" not in figures:
        raise UserError(
            f"{annotations.path}: nobody in it has labelled joints, so that there is no average "
            "precision; use another file"
        )
    percent = {name: 100 * value for name, value in figures.items()}
    return Evaluation(percent, result_of_all(sums, processes), results)


def _counted_loss(heatmaps: Tensor, people: CroppedPeople, sums: JointSums) -> Tensor:
    """The loss of a batch's heatmaps, a scalar; counts the batch in `sums`."""
    height, width = heatmaps.shape[2:]
    targets, weights = heatmap_targets(people.joints, people.visible, (width, height))
    loss = heatmap_loss(heatmaps, targets, weights)
    sums.update(loss.detach(), heatmaps.detach(), targets)
    return loss
