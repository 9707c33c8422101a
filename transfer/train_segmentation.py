"""Train BiSeNet, with a network for ImageNet as its backbone, on Cityscapes or on made shapes."""

import sys
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # run as transfer/train_segmentation.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

from dataset.batching import Batching
from dataset.manifest import MANIFEST_FILE, Manifest, by_class, keep_manifest
from dataset.workers import worker_count
from report.run import Run
from runtime.arguments import ArgumentParser, non_negative_int, positive_int
from runtime.errors import UserError, run_script
from training.launch import add_momentum_argument, run_genotype, run_training
from training.loop import fit
from transfer.launch import add_transfer_arguments, parse_transfer_arguments
from transfer.segmentation.batches import SegmentationBatches
from transfer.segmentation.checkpoints import (
    CROP_SIZE,
    check_segmentation_description,
    describe_segmentation_network,
)
from transfer.segmentation.data import LabelledImages
from transfer.segmentation.task import SETS, Segmentation, class_names, open_set


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line; the defaults are the published recipe (80,000 steps on Cityscapes)."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add_transfer_arguments(
        parser, SETS, epochs=430, batch_size=16, learning_rate=0.01, weight_decay=5e-4
    )
    add_momentum_argument(parser)
    add(
        "--crop_size",
        type=positive_int,
        default=CROP_SIZE,
        help="height and width of training images, of the windows in validation, and of made "
        "images",
    )
    add(
        "--warmup_steps",
        type=non_negative_int,
        default=1000,
        help="steps of the learning rate's exponential rise",
    )
    return parse_transfer_arguments(parser, argv)


def train(args: Namespace, run: Run) -> None:
    """Open the images, describe the network, and train it."""
    splits = {split: open_set(args, split, args.crop_size) for split in ("train", "val")}
    keep_manifest(run.path(MANIFEST_FILE), lambda: manifest(splits))
    processes = run.processes
    batching = Batching(args.batch_size, processes.device, processes.rank, processes.size)
    data = SegmentationBatches(
        splits["train"],
        splits["val"],
        args.crop_size,
        batching,
        worker_count(args.workers),
        args.as_published,
    )
    check_warm_up(args, data.steps)
    description = describe(args, splits["val"])
    fit(args, run, Segmentation(args, processes, description, splits["val"], data.steps), data)


def describe(args: Namespace, images: LabelledImages) -> dict:
    """All that checkpoints say of the network, which is to tell the classes of `images`.

    Raises:
        UserError: there can be no such network; names what is wrong.
    """
    names = class_names(images)
    description = describe_segmentation_network(
        run_genotype(args), args.init_channels, args.layers, len(names), args.crop_size
    ) | {"class_names": names}
    try:
        check_segmentation_description(description)
    except ValueError as error:
        raise UserError(f"network for segmentation: {error}") from None
    return description


def check_warm_up(args: Namespace, steps: int) -> None:
    """Refuse a training that ends before its learning rate falls.

    Args:
        steps: of an epoch; 0, which `fit` refuses, has no say in it.

    Raises:
        UserError: names the flag.
    """
    total = args.epochs * steps
    if steps and args.warmup_steps >= total:
        raise UserError(
            f"--warmup_steps {args.warmup_steps}: must be less than the steps of the training, of "
            f"which there are {total} (--epochs {args.epochs} of {steps})"
        )


def manifest(splits: dict[str, LabelledImages]) -> Manifest:
    """The manifest of images, by what their names begin with: Cityscapes' by their cities."""
    return {
        "class_names": class_names(splits["train"]),
        "splits": {
            split: by_class(
                # Only names: label maps and images have sizes of their own.
                (name.partition("_")[0], name, 0)
                for name in map(images.name, range(len(images)))
            )
            for split, images in splits.items()
        },
    }


def main() -> None:
    run_training(
        parse_arguments(),
        train,
        "lower --batch_size, --crop_size, --init_channels or --workers, or use --precision bf16 "
        "or more --gpus",
    )


if __name__ == "__main__":
    run_script(main)
