"""Test a network for segmentation on Cityscapes' validation images, or on made shapes."""

import io
import math
import sys
import time
from argparse import BooleanOptionalAction, Namespace
from pathlib import Path

if __name__ == "__main__":  # run as transfer/test_segmentation.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import torch
from PIL import Image
from torch import Tensor

from dataset.batching import Batching
from dataset.workers import worker_count
from genotypes import resolve_genotype
from report.records import PREDICTIONS_FILE
from runtime.arguments import ArgumentParser, non_negative_float, positive_int
from runtime.errors import UserError, run_script
from runtime.processes import Processes
from training.launch import run_test
from training.trained_network import print_size
from transfer.launch import add_test_arguments, check_output, output_folder
from transfer.pictures import contact_sheet
from transfer.segmentation.batches import evaluation_batches
from transfer.segmentation.checkpoints import load_segmentation_network
from transfer.segmentation.data import LabelledImages, label_map
from transfer.segmentation.evaluation import Windows, intersection_over_union, pixel_metrics
from transfer.segmentation.pictures import LARGEST_SIDE
from transfer.segmentation.task import SETS, class_names, evaluate, in_order, open_set, picture
from utils import choose_precision

LABEL_MAPS = "label_maps"
"""The folder of label maps in `--output`."""


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line. What our own checkpoints say of themselves need not be given."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add_test_arguments(parser, SETS, batch_size=None)
    add(
        "--crop_size",
        type=positive_int,
        help="height and width of the windows, and of made images (default: as in training, else "
        "1024)",
    )
    add(
        "--scales",
        type=non_negative_float,
        nargs="+",
        default=[1.0],
        help="what the images' sides are multiplied by; their scores are added up",
    )
    add(
        "--flip",
        action=BooleanOptionalAction,
        default=False,
        help="look at each window mirrored, too",
    )
    args = parser.parse_args(argv)
    if min(args.scales) == 0:
        raise UserError("--scales 0: must be above 0")
    check_output(args)
    return args


class Predictions:
    """What is kept of what was found in images: label maps of all, pictures of the first ones.

    Args:
        args: the command line; without `--output` nothing is kept.

    Attributes:
        label_maps: PNG files' contents, by the images' numbers.
        pictures: by the images' numbers.
    """

    def __init__(self, args: Namespace, images: LabelledImages) -> None:
        self.args = args
        self.images = images
        self.label_maps: dict[int, bytes] = {}
        self.pictures: dict[int, Image.Image] = {}

    def keep(self, number: int, predicted: Tensor) -> None:
        """Keep what was found in an image: classes, integers (H, W)."""
        if self.args.output is None:
            return
        file = io.BytesIO()
        label_map(predicted, self.images.classes).save(file, "PNG")
        self.label_maps[number] = file.getvalue()
        if number < self.args.pictures:
            self.pictures[number] = picture(self.images, number, predicted)

    def write(self, processes: Processes) -> None:
        """Write what all processes have kept into `--output`; they call it together.

        Raises:
            UserError: that cannot be done; says why.
        """
        label_maps = in_order(processes, self.label_maps)
        pictures = in_order(processes, self.pictures)
        if self.args.output is None or not processes.is_main:
            return
        with output_folder(self.args) as output:
            (output / LABEL_MAPS).mkdir()
            for number, content in enumerate(label_maps):
                name = f"{self.images.name(number)}.png"
                (output / LABEL_MAPS / name).write_bytes(content)
            if pictures:
                sheet = contact_sheet(pictures, LARGEST_SIDE)
                (output / PREDICTIONS_FILE).write_bytes(sheet)


def test(args: Namespace, processes: Processes) -> None:
    """Print mean and each class's IoU, the size of the network and the speed."""
    genotype = resolve_genotype(args.arch) if args.arch else None
    network, description = load_segmentation_network(
        args.model_path, genotype, args.init_channels, args.layers
    )
    crop_size = args.crop_size or description["crop_size"]
    images = open_set(args, "val", crop_size)
    check_classes(args, description, class_names(images))
    network.to(processes.device, memory_format=torch.channels_last)
    batching = Batching(1, processes.device, processes.rank, processes.size)
    predictions = Predictions(args, images)
    started = time.monotonic()
    counts = evaluate(
        network,
        evaluation_batches(images, batching, worker_count(args.workers)),
        images,
        processes,
        choose_precision(args.precision, processes.device),
        Windows(crop_size, scales=tuple(args.scales), flip=args.flip),
        predictions.keep,
    )
    seconds = time.monotonic() - started
    predictions.write(processes)
    if not processes.is_main:
        return
    print(f"test images     {len(images)} of {args.set}")
    print_accuracies(images, counts)
    print_size(network, crop_size)
    print(f"speed           {len(images) / seconds:.1f} images/s, loading included")


def check_classes(args: Namespace, description: dict, names: list[str]) -> None:
    """Refuse images of other classes than the network's.

    Raises:
        UserError: they are; says which.
    """
    own, number = description.get("class_names", names), description["num_classes"]
    if number == len(names) and own == names:
        return
    listed = f" ({', '.join(own)})" if len(own) == number else ""
    raise UserError(
        f"--model_path {args.model_path}: has {number} classes{listed}, but --set {args.set} has "
        f"{len(names)} ({', '.join(names)}); give the --set that it was trained on"
    )


def print_accuracies(images: LabelledImages, counts: Tensor) -> None:
    """Print mIoU, pixel accuracy and a table of the classes' IoU, - for one that is not there."""
    metrics = pixel_metrics(counts)
    print(f"mIoU            {metrics['miou']:.2f} %")
    for name, value in zip(
        class_names(images), intersection_over_union(counts).tolist(), strict=True
    ):
        print(f"  {name:14}{'-' if math.isnan(value) else f'{100 * value:.2f} %'}")
    print(f"pixel accuracy  {metrics['pixel_accuracy']:.2f} %")


def main() -> None:
    run_test(
        parse_arguments(),
        test,
        "lower --crop_size, --scales or --workers, or use --precision bf16 or more --gpus",
    )


if __name__ == "__main__":
    run_script(main)
