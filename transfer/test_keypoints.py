"""Test a network for the joints of people: COCO's average precision, size and speed."""

import sys
import time
from argparse import BooleanOptionalAction, Namespace
from pathlib import Path

if __name__ == "__main__":  # run as transfer/test_keypoints.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import torch

from dataset.batching import Batching
from dataset.pixel_statistics import PUBLISHED_STATISTICS, statistics_from_dict
from dataset.workers import worker_count
from genotypes import resolve_genotype
from report.records import PREDICTIONS_FILE
from runtime.arguments import ArgumentParser, expanded_path, positive_int
from runtime.atomic_file import write_json, write_whole_file
from runtime.errors import run_script
from runtime.processes import Processes
from training.launch import run_test
from training.trained_network import print_size
from transfer.coco import import_pycocotools
from transfer.keypoints.annotations import People
from transfer.keypoints.data import Loading, evaluation_batches
from transfer.keypoints.evaluation import FIGURES
from transfer.keypoints.network import load_keypoint_network
from transfer.keypoints.pictures import draw_results
from transfer.keypoints.sets import SETS, left_out_in_words, open_people
from transfer.keypoints.task import Evaluation, evaluate
from transfer.launch import MADE, add_test_arguments, check_output, output_folder
from utils import choose_precision

RESULTS_FILE = "predictions.json"


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line. What our own checkpoints say of themselves need not be given."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add_test_arguments(parser, SETS, batch_size=128)
    add(
        "--detections",
        type=expanded_path,
        metavar="FILE",
        help="boxes that a detector found, as COCO's results (default: the true boxes)",
    )
    add(
        "--image_size",
        type=positive_int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the network's images (default: what it was trained on; 256 192)",
    )
    add(
        "--flip",
        action=BooleanOptionalAction,
        default=True,
        help="average with what is found in the mirrored image, as published",
    )
    add(
        "--bgr",
        action=BooleanOptionalAction,
        help="give it blue, green, red (default: as it was trained; the original's was so)",
    )
    args = parser.parse_args(argv)
    check_output(args)
    return args


def test(args: Namespace, processes: Processes) -> None:
    """Print the figures, the size of the network and the speed, and write what was found."""
    import_pycocotools()  # before anything is done in vain
    genotype = args.arch and resolve_genotype(args.arch)
    network, description = load_keypoint_network(
        args.model_path, genotype, args.init_channels, args.layers
    )
    network.to(processes.device, memory_format=torch.channels_last)
    annotations, people = open_people(args, "val", args.detections)
    image_size = tuple(args.image_size or description["image_size"])
    statistics = PUBLISHED_STATISTICS["imagenet"]
    if "mean" in description:
        statistics = statistics_from_dict(description)
    loading = Loading(
        image_size[::-1],
        statistics,
        Batching(args.batch_size, processes.device, processes.rank, processes.size),
        worker_count(args.workers),
        bgr=description["bgr"] if args.bgr is None else args.bgr,
    )
    started = time.monotonic()
    evaluation = evaluate(
        network,
        evaluation_batches(people, loading),
        people,
        annotations,
        processes,
        choose_precision(args.precision, processes.device),
        args.flip,
    )
    seconds = time.monotonic() - started
    if not processes.is_main:
        return
    print_figures(args, evaluation, people)
    print_size(network, image_size)
    print(f"speed           {len(people) / seconds:.1f} people/s, loading included")
    if args.output:
        write_output(args, evaluation, people)


def print_figures(args: Namespace, evaluation: Evaluation, people: People) -> None:
    """Print what was tested, and COCO's figures in percent."""
    images = len(set(people.image_ids.tolist()))
    boxes = "people" if args.detections is None else "detected boxes"
    place = args.set if args.set == MADE else args.data
    print(f"test images     {images} of {place}, with {len(people)} {boxes}")
    print(f"left out        {left_out_in_words(people)}")
    for name in FIGURES:
        if name in evaluation.figures:
            print(f"{name.replace('_', ' '):16}{evaluation.figures[name]:.2f} %")
    if args.detections is None:
        print(f"joints found    {evaluation.joints['found']:.2f} %")


def write_output(args: Namespace, evaluation: Evaluation, people: People) -> None:
    """Write what was found into a new folder.

    Raises:
        UserError: it cannot be written there.
    """
    with output_folder(args) as folder:
        write_json(folder / RESULTS_FILE, evaluation.results, indent=None)
        if args.pictures:
            png = draw_results(people, evaluation.results, args.pictures)
            write_whole_file(folder / PREDICTIONS_FILE, png)


def main() -> None:
    run_test(
        parse_arguments(),
        test,
        "lower --batch_size, --image_size or --workers, or use --precision bf16 or more --gpus",
    )


if __name__ == "__main__":
    run_script(main)
