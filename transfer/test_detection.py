"""Test a detector on PASCAL VOC 2007, or on other images."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as transfer/test_detection.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import torch

from dataset.batching import Batching
from dataset.workers import worker_count
from genotypes import resolve_genotype
from report.records import PREDICTIONS_FILE
from runtime.arguments import ArgumentParser
from runtime.atomic_file import write_json, write_whole_file
from runtime.errors import UserError, run_script
from runtime.processes import Processes
from training.launch import run_test
from training.trained_network import print_size
from transfer.detection.batches import evaluation_batches
from transfer.detection.evaluation import coco_results
from transfer.detection.network import load_detector
from transfer.detection.sets import SETS, DetectionSet, open_set
from transfer.detection.task import IN_WORDS, Found, figures, find_objects, found_sheet
from transfer.launch import MADE, add_test_arguments, check_output, output_folder
from utils import choose_precision


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line. What our own checkpoints say of themselves need not be given."""
    parser = ArgumentParser(__doc__)
    add_test_arguments(parser, SETS, batch_size=32)
    args = parser.parse_args(argv)
    check_output(args)
    return args


def check_classes(args: Namespace, description: dict, images: DetectionSet) -> None:
    """Refuse a network for other classes than those of the images.

    Raises:
        UserError: names what differs.
    """
    known, names = description["class_names"], images.class_names
    if len(names) != description["num_classes"] - 1:
        raise UserError(
            f"--model_path {args.model_path}: finds {description['num_classes'] - 1} classes, but "
            f"--set {args.set} has {len(names)}; give the --set that it was trained on"
        )
    for own, theirs in zip(known, names, strict=bool(known)):
        if own != theirs:
            raise UserError(
                f"--model_path {args.model_path}: its class {own!r} is {theirs!r} in --set "
                f"{args.set}; give images with its classes, in its order"
            )


def write_found(args: Namespace, found: Sequence[Found], images: DetectionSet) -> None:
    """Write what was found into the folder of `--output`: in COCO's format, and drawn.

    Raises:
        UserError: it cannot be written.
    """
    results = [
        entry
        for image in found
        for entry in coco_results(
            image.detected, images.image_id(image.number), images.category_ids
        )
    ]
    with output_folder(args) as folder:
        write_json(folder / "predictions.json", results, indent=None)
        if args.pictures:
            write_whole_file(folder / PREDICTIONS_FILE, found_sheet(found[: args.pictures], images))


def test(args: Namespace, processes: Processes) -> None:
    """Print precision, the size of the network and the speed, and write what was found."""
    genotype = args.arch and resolve_genotype(args.arch)
    network, description = load_detector(args.model_path, genotype, args.init_channels, args.layers)
    network.to(processes.device, memory_format=torch.channels_last)
    images = open_set(args, "val")
    check_classes(args, description, images)
    batching = Batching(args.batch_size, processes.device, processes.rank, processes.size)
    precision = choose_precision(args.precision, processes.device)
    started = time.monotonic()
    batches = evaluation_batches(images, batching, worker_count(args.workers))
    found = find_objects(network, batches, processes, precision)
    seconds = time.monotonic() - started
    result = figures(found, args.set, description["num_classes"])
    if not processes.is_main:
        return
    place = f"--set {args.set}" if args.set == MADE else args.data
    print(f"test images     {result['count']} of {place}")
    for key, name in IN_WORDS.items():
        if key in result:
            print(f"{name:15} {result[key]:.2f} %")
    print_size(network, description["image_size"])
    print(f"speed           {result['count'] / seconds:.1f} images/s, loading included")
    if args.output:
        write_found(args, found, images)


def main() -> None:
    run_test(
        parse_arguments(),
        test,
        "lower --batch_size or --workers, or use --precision bf16 or more --gpus",
    )


if __name__ == "__main__":
    run_script(main)
