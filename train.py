"""Train a genotype from scratch on CIFAR-10, CIFAR-100, digits or a folder of images."""

import math
import os
import sys
from argparse import Namespace
from dataclasses import asdict

if __name__ == "__main__" and sys.flags.safe_path:  # python -I or -P: the root is not on the path
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import torch

from dataset.batching import Batching
from dataset.image_arguments import add_augmentation_arguments, add_set_arguments
from dataset.image_batches import ImageBatches
from dataset.image_set import STATISTICS_FILE, image_statistics, load_image_set, set_augmentation
from dataset.manifest import MANIFEST_FILE, image_set_manifest, keep_manifest
from report.run import Run
from runtime.arguments import ArgumentParser
from runtime.errors import run_script
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


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line; the defaults are the published recipe (section IV-B)."""
    parser = ArgumentParser(__doc__)
    add_set_arguments(parser)
    add_augmentation_arguments(parser)
    add_classification_arguments(parser)
    add_training_arguments(
        parser,
        init_channels=36,
        layers=20,
        drop_path_prob=0.3,
        epochs=600,
        batch_size=128,
        learning_rate=0.025,
        weight_decay=3e-4,
    )
    args = parse_training_arguments(parser, argv)
    args.data = os.path.abspath(args.data)
    return args


def train(args: Namespace, run: Run) -> None:
    """Load the images, describe the network, and train it."""
    train_set = load_image_set(args.set, args.data, "train", args.image_size)
    test_set = load_image_set(args.set, args.data, "test", args.image_size)
    sets = {"train": train_set, "test": test_set}
    keep_manifest(run.path(MANIFEST_FILE), lambda: image_set_manifest(sets))
    image_size = train_set.images.shape[-1]
    statistics = run.read(STATISTICS_FILE, lambda path: image_statistics(args.set, train_set, path))
    processes = run.processes
    data_device = torch.device("cpu") if args.data_device == "cpu" else processes.device
    data = ImageBatches(
        train_set.to(data_device),
        test_set.to(data_device),
        set_augmentation(args.set, image_size, args.cutout, args.cutout_length),
        statistics,
        Batching(args.batch_size, processes.device, processes.rank, processes.size),
    )
    network = describe_network(
        "cifar",
        run_genotype(args),
        args.init_channels,
        args.layers,
        args.auxiliary,
        train_set.num_classes,
    )
    description = network | {"set": args.set, "image_size": image_size} | asdict(statistics)
    description["class_names"] = list(train_set.class_names)

    def learning_rate(epoch: int) -> float:
        """A cosine from `--learning_rate` to 0."""
        return args.learning_rate * (1 + math.cos(math.pi * epoch / args.epochs)) / 2

    task = Classification(args, description, learning_rate, class_names=test_set.class_names)
    fit(args, run, task, data)


def main() -> None:
    run_training(
        parse_arguments(),
        train,
        "lower --batch_size, --init_channels or --image_size, or use --precision bf16, "
        "--data_device cpu or more --gpus",
    )


if __name__ == "__main__":
    run_script(main)
