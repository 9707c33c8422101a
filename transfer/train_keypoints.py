"""Train a network for the joints of people, with a RelativeNAS network as its backbone."""

import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":  # run as transfer/train_keypoints.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

from dataset.batching import Batching
from dataset.manifest import MANIFEST_FILE, keep_manifest
from dataset.pixel_statistics import PUBLISHED_STATISTICS
from dataset.workers import worker_count
from report.run import Run
from runtime.arguments import ArgumentParser, non_negative_float, positive_int, probability
from runtime.errors import UserError, run_script
from training.launch import run_genotype, run_training
from training.loop import fit
from transfer.coco import import_pycocotools
from transfer.keypoints.data import Augmentation, Loading, PeopleBatches
from transfer.keypoints.network import (
    IMAGE_SIZE,
    JOINTS,
    UPSAMPLED_CHANNELS,
    check_keypoint_description,
    describe_keypoint_network,
)
from transfer.keypoints.sets import SETS, left_out_in_words, open_people, people_manifest
from transfer.keypoints.task import Keypoints
from transfer.launch import MADE, add_transfer_arguments, parse_transfer_arguments


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line; the defaults are the published recipe."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--image_size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the network's images, multiples of 32",
    )
    add(
        "--upsampled_channels",
        type=positive_int,
        help="outputs of each of the three transposed convolutions",
    )
    add(
        "--milestones",
        type=positive_int,
        nargs="+",
        metavar="EPOCH",
        help="after so many epochs the learning rate falls",
    )
    add(
        "--learning_rate_factor",
        type=non_negative_float,
        default=0.1,
        help="what it is multiplied by then",
    )
    add(
        "--scale",
        type=probability,
        default=Augmentation.scale,
        help="people are made larger or smaller by up to this part",
    )
    add(
        "--rotation",
        type=non_negative_float,
        default=Augmentation.rotation,
        help="people are turned by up to twice as many degrees, most by less",
    )
    add_transfer_arguments(
        parser,
        SETS,
        image_size=list(IMAGE_SIZE),
        upsampled_channels=UPSAMPLED_CHANNELS,
        milestones=[90, 120],
        epochs=140,
        batch_size=128,
        learning_rate=1e-3,
        weight_decay=0.0,
    )
    return parse_transfer_arguments(parser, argv)


def train(args: Namespace, run: Run) -> None:
    """Open the people's images, describe the network, and train it."""
    import_pycocotools()  # before anything is done in vain
    statistics = PUBLISHED_STATISTICS["imagenet"]
    bgr = args.as_published
    description = describe_keypoint_network(
        run_genotype(args),
        args.init_channels,
        args.layers,
        JOINTS,
        args.upsampled_channels,
        args.image_size,
        bgr,
    )
    try:
        check_keypoint_description(description)
    except ValueError as error:
        raise UserError(f"network for keypoints: {error}") from None
    splits = {split: open_people(args, split) for split in ("train", "val")}
    for split, (_, people) in splits.items():
        run.log.info("%s: %d people; left out: %s", split, len(people), left_out_in_words(people))
    if args.set != MADE:
        keep_manifest(run.path(MANIFEST_FILE), lambda: people_manifest(splits))
    processes = run.processes
    batching = Batching(args.batch_size, processes.device, processes.rank, processes.size)
    loading = Loading(
        tuple(reversed(args.image_size)),
        statistics,
        batching,
        worker_count(args.workers),
        Augmentation(args.scale, args.rotation),
        bgr,
    )
    (_, train_people), (annotations, validation_people) = splits.values()
    task = Keypoints(args, description | asdict(statistics), annotations, validation_people)
    fit(args, run, task, PeopleBatches(train_people, validation_people, loading))


def main() -> None:
    run_training(
        parse_arguments(),
        train,
        "lower --batch_size, --init_channels, --image_size or --workers, or use --precision bf16 "
        "or more --gpus",
    )


if __name__ == "__main__":
    run_script(main)
