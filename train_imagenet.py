"""Train a genotype from scratch on ImageNet, or on other images in an LMDB or folders."""

import os
import sys
from argparse import Namespace
from dataclasses import asdict

if __name__ == "__main__" and sys.flags.safe_path:  # python -I or -P: the root is not on the path
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from dataset.class_names import names_by_label
from dataset.encoded_batches import EncodedBatches
from dataset.encoded_images import check_same_labels, open_images
from dataset.encoded_manifest import encoded_manifest
from dataset.image_set import Statistics
from dataset.imagenet_data import IMAGENET, add_data_arguments, check_data_path, plan_loading
from dataset.manifest import MANIFEST_FILE, keep_manifest
from report.run import Run
from runtime.arguments import ArgumentParser, non_negative_float, non_negative_int, probability
from runtime.errors import UserError, run_script
from training.classification import Classification
from training.launch import (
    add_classification_arguments,
    add_training_arguments,
    parse_training_arguments,
    run_genotype,
    run_training,
)
from training.loop import fit
from training.trained_network import describe_network


def learning_rate(
    epoch: int, epochs: int, highest: float, warmup_epochs: int, final_epochs: int
) -> float:
    """A linear rise to `highest`, a linear fall, and a slower one in the last epochs.

    Args:
        epoch: from 0 to epochs − 1.
        epochs: of the whole training, more than `final_epochs`.
        warmup_epochs: of the rise; the last of them has `highest`.
        final_epochs: of the slower fall.
    """
    main_epochs = epochs - final_epochs
    if epoch < warmup_epochs:
        return highest * (epoch + 1) / warmup_epochs
    if epoch < main_epochs:
        return highest * (main_epochs - epoch) / main_epochs
    return highest * (epochs - epoch) / (main_epochs * final_epochs)


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line; the defaults are the published recipe (section IV-C)."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add_data_arguments(parser)
    rgb = ("R", "G", "B")
    add("--mean", type=non_negative_float, nargs=3, metavar=rgb, help="of the pixels, by channel")
    add(
        "--std",
        type=non_negative_float,
        nargs=3,
        metavar=rgb,
        help="standard deviation of the pixels",
    )
    add(
        "--crop_scale",
        type=non_negative_float,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="area of random crops",
    )
    add(
        "--color_jitter",
        type=non_negative_float,
        nargs=4,
        metavar=("BRIGHTNESS", "CONTRAST", "SATURATION", "HUE"),
        help="largest random changes; 0 0 0 0: none",
    )
    add("--label_smoothing", type=probability, default=0.1, help="of both heads' losses")
    add(
        "--warmup_epochs",
        type=non_negative_int,
        default=5,
        help="epochs of the learning rate's rise",
    )
    add(
        "--final_epochs",
        type=non_negative_int,
        default=5,
        help="epochs of its slower fall at the end",
    )
    add_classification_arguments(parser)
    add_training_arguments(
        parser,
        image_size=224,
        mean=list(IMAGENET.mean),
        std=list(IMAGENET.std),
        crop_scale=[0.08, 1.0],
        color_jitter=[0.4, 0.4, 0.4, 0.2],
        init_channels=46,
        layers=14,
        drop_path_prob=0.0,
        epochs=250,
        batch_size=1024,
        learning_rate=0.5,
        weight_decay=3e-5,
    )
    args = parse_training_arguments(parser, argv)
    check_data_path(args)
    check_arguments(args)
    return args


def check_arguments(args: Namespace) -> None:
    """Refuse numbers that do not go together, or that no flag's type can judge alone.

    Raises:
        UserError: names the flag and what is asked of it.
    """
    if args.init_channels < 2:
        raise UserError(f"--init_channels {args.init_channels}: the stem needs at least 2")
    smallest, largest = args.crop_scale
    checks = {
        "final_epochs": (
            args.final_epochs < args.epochs, f"must be less than --epochs {args.epochs}"
        ),
        "crop_scale": (0 < smallest <= largest <= 1, "must be two rising parts of 1"),
        "color_jitter": (args.color_jitter[3] <= 0.5, "the last, of the hue, is at most 0.5"),
        "std": (min(args.std) > 0, "must be above 0"),
    }  # fmt: skip
    for name, (holds, demand) in checks.items():
        if not holds:
            raise UserError(f"--{name} {getattr(args, name)}: {demand}")


def train(args: Namespace, run: Run) -> None:
    """Open the images, describe the network, and train it."""
    train_images = open_images(args.data_path, "train", args.num_classes)
    validation_images = open_images(args.data_path, "val", train_images.num_classes)
    class_names = names_by_label(check_same_labels(train_images, validation_images))
    splits = {"train": train_images, "val": validation_images}
    keep_manifest(run.path(MANIFEST_FILE), lambda: encoded_manifest(splits, class_names))
    statistics = Statistics(tuple(args.mean), tuple(args.std))
    loading = plan_loading(
        args,
        run.processes,
        args.image_size,
        args.validation_resize,
        statistics,
        crop_scale=tuple(args.crop_scale),
        jitter=tuple(args.color_jitter),
    )
    network = describe_network(
        "imagenet",
        run_genotype(args),
        args.init_channels,
        args.layers,
        args.auxiliary,
        train_images.num_classes,
    )
    sizes = {"image_size": args.image_size, "validation_resize": loading.validation_resize}
    task = Classification(
        args,
        network | sizes | asdict(statistics) | {"class_names": class_names},
        lambda epoch: learning_rate(
            epoch, args.epochs, args.learning_rate, args.warmup_epochs, args.final_epochs
        ),
        args.label_smoothing,
    )
    fit(args, run, task, EncodedBatches(train_images, validation_images, loading))


def main() -> None:
    run_training(
        parse_arguments(),
        train,
        "lower --batch_size, --init_channels, --image_size or --workers, or use --precision bf16 "
        "or more --gpus",
    )


if __name__ == "__main__":
    run_script(main)
