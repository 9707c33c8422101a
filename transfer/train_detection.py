"""Train SSDLite on a RelativeNAS backbone to detect objects: on PASCAL VOC, or on other images."""

import sys
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # run as transfer/train_detection.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

from dataset.batching import Batching
from dataset.manifest import MANIFEST_FILE, keep_manifest
from dataset.workers import worker_count
from report.run import Run
from runtime.arguments import ArgumentParser, positive_int
from runtime.errors import UserError, run_script
from training.launch import add_momentum_argument, run_genotype, run_training
from training.loop import fit
from transfer.detection.batches import DetectionBatches
from transfer.detection.network import PUBLISHED_SIZES, SIZES, describe_detector
from transfer.detection.sets import SETS, VOC_YEARS, detection_manifest, open_both
from transfer.detection.task import Detection
from transfer.launch import add_transfer_arguments, parse_transfer_arguments


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line; the defaults are the published recipe."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--years",
        nargs="+",
        choices=[str(year) for year in range(2007, 2013)],
        default=list(VOC_YEARS),
        help="of PASCAL VOC: their trainval lists are trained on",
    )
    parser.add_argument(
        "--image_size",
        type=positive_int,
        default=PUBLISHED_SIZES["image_size"],
        help="height and width that images get",
    )
    add_momentum_argument(parser)
    add_transfer_arguments(
        parser, SETS, epochs=200, batch_size=32, learning_rate=0.01, weight_decay=5e-4
    )
    args = parse_transfer_arguments(parser, argv)
    for name in ("init_channels", "layers", "image_size"):
        smallest, largest = SIZES[name]
        if not smallest <= getattr(args, name) <= largest:
            raise UserError(f"--{name} {getattr(args, name)}: must be from {smallest} to {largest}")
    return args


def train(args: Namespace, run: Run) -> None:
    """Open the images, describe the network, and train it."""
    processes = run.processes
    train_images, validation_images = open_both(args)
    keep_manifest(
        run.path(MANIFEST_FILE), lambda: detection_manifest(train_images, validation_images)
    )
    description = describe_detector(
        run_genotype(args),
        args.init_channels,
        args.layers,
        len(train_images.class_names) + 1,
        args.image_size,
        train_images.class_names,
    )
    batches = DetectionBatches(
        train_images,
        validation_images,
        args.image_size,
        Batching(args.batch_size, processes.device, processes.rank, processes.size),
        worker_count(args.workers),
        args.as_published,
    )
    fit(args, run, Detection(args, description, validation_images), batches)


def main() -> None:
    run_training(
        parse_arguments(),
        train,
        "lower --batch_size, --init_channels, --image_size or --workers, or use --precision bf16 "
        "or more --gpus",
    )


if __name__ == "__main__":
    run_script(main)
