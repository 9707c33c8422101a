"""Test a checkpoint on ImageNet, or on other images in an LMDB or folders."""

import os
import sys
import time
from argparse import Namespace

if __name__ == "__main__" and sys.flags.safe_path:  # python -I or -P: the root is not on the path
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import torch

from dataset.encoded_batches import evaluation_batches
from dataset.encoded_images import open_images
from dataset.imagenet_data import (
    IMAGENET,
    add_data_arguments,
    check_data_path,
    give_labels_of_network,
    plan_loading,
)
from dataset.pixel_statistics import statistics_from_dict
from runtime.arguments import ArgumentParser, add_precision_argument, expanded_path, positive_int
from runtime.errors import UserError, run_script
from runtime.processes import Processes, gpu_list
from training.classification import evaluate
from training.launch import run_test
from training.trained_network import add_network_arguments, load_trained_network, print_size
from utils import choose_precision


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line. What our own checkpoints say of themselves need not be given."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--model_path",
        type=expanded_path,
        required=True,
        help="checkpoint: our own, or a published state dict",
    )
    add_data_arguments(parser)
    add("--batch_size", type=positive_int, default=256, help="of all processes together")
    add("--gpus", type=gpu_list, metavar="0,1,...", help="GPUs, one process each (default 0)")
    add_precision_argument(parser, default="fp32")
    add_network_arguments(parser)
    args = parser.parse_args(argv)
    check_data_path(args)
    return args


def test(args: Namespace, processes: Processes) -> None:
    """Print errors, the size of the network and the speed."""
    network, description = load_trained_network(args, "imagenet")
    network.to(processes.device, memory_format=torch.channels_last)
    images = open_images(args.data_path, "val", args.num_classes)
    class_names = description.get("class_names", [])
    if class_names and args.num_classes is None:
        images.num_classes = description["num_classes"]
    if images.num_classes != description["num_classes"]:
        raise UserError(
            f"--model_path {args.model_path}: has {description['num_classes']} classes, but "
            f"{args.data_path} has {images.num_classes}; if these images are of a part of them, "
            f"labelled as all are, give --num_classes {description['num_classes']}"
        )
    if class_names:
        give_labels_of_network(images, class_names, f"--model_path {args.model_path}")
    image_size = args.image_size or description.get("image_size", 224)
    resize = args.validation_resize
    if resize is None and args.image_size is None:
        resize = description.get("validation_resize")
    statistics = IMAGENET
    if "mean" in description:
        statistics = statistics_from_dict(description)
    loading = plan_loading(args, processes, image_size, resize, statistics)
    started = time.monotonic()
    result = evaluate(
        network,
        evaluation_batches(images, loading),
        processes,
        choose_precision(args.precision, processes.device),
    )
    seconds = time.monotonic() - started
    if not processes.is_main:
        return
    print(f"test images     {result['count']} of {args.data_path}")
    print(f"top-1 error     {100 - result['top1']:.2f} %")
    print(f"top-5 error     {100 - result['top5']:.2f} %")
    print_size(network, image_size)
    print(f"speed           {result['count'] / seconds:.1f} images/s, loading included")


def main() -> None:
    run_test(
        parse_arguments(),
        test,
        "lower --batch_size, --image_size or --workers, or use --precision bf16 or more --gpus",
    )


if __name__ == "__main__":
    run_script(main)
