"""Test a checkpoint on CIFAR-10, CIFAR-100, digits or a folder of images."""

import os
import sys
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__" and sys.flags.safe_path:  # python -I or -P: the root is not on the path
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import torch

from dataset.batching import Batching
from dataset.class_names import with_labels_of_network
from dataset.image_arguments import add_device_arguments, add_set_arguments
from dataset.image_batches import evaluation_batches
from dataset.image_set import image_statistics, load_image_set
from dataset.pixel_statistics import PUBLISHED_STATISTICS, statistics_from_dict
from runtime.arguments import ArgumentParser, add_precision_argument, expanded_path, positive_int
from runtime.errors import UserError, run_script
from runtime.out_of_memory import memory_advice
from runtime.processes import Processes
from training.classification import evaluate
from training.trained_network import add_network_arguments, load_trained_network, print_size
from utils import choose_device, choose_precision

DIGITS_MODEL = Path(__file__).resolve().parent / "trained_model" / "digits_model.pt"


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line. What our own checkpoints say of themselves need not be given."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--model_path",
        type=expanded_path,
        help="checkpoint: our own, or a published state dict (default: "
        "trained_model/digits_model.pt)",
    )
    add_set_arguments(parser, of_checkpoint=True)
    add("--batch_size", type=positive_int, default=128, help="images of a step")
    add_device_arguments(parser)
    add_precision_argument(parser, default="fp32")
    add_network_arguments(parser)
    args = parser.parse_args(argv)
    if args.model_path is None:
        args.model_path = os.path.relpath(DIGITS_MODEL)
    return args


def test(args: Namespace) -> None:
    """Print error rate, accuracies and the size of the network."""
    device = choose_device(args.device, args.gpu)
    processes = Processes(device)
    network, description = load_trained_network(args, "cifar")
    network.to(device, memory_format=torch.channels_last)
    name = args.set or description.get("set", "cifar10")
    image_size = args.image_size
    if name == "folder" and image_size is None:
        image_size = description.get("image_size")
    class_names = description.get("class_names", [])
    test_set = load_image_set(name, args.data, "test", image_size, same_classes=not class_names)
    if class_names:
        test_set = with_labels_of_network(
            test_set, class_names, description["num_classes"], f"--model_path {args.model_path}"
        )
    if test_set.num_classes != description["num_classes"]:
        raise UserError(
            f"--model_path {args.model_path}: has {description['num_classes']} classes, but the "
            f"set {name} has {test_set.num_classes}; choose the --set it was trained on"
        )
    if "mean" in description:
        statistics = statistics_from_dict(description)
    elif name in PUBLISHED_STATISTICS:
        statistics = PUBLISHED_STATISTICS[name]
    else:
        train_set = load_image_set(name, args.data, "train", image_size)
        statistics = image_statistics(name, train_set)
    result = evaluate(
        network,
        evaluation_batches(
            test_set.to(device),
            statistics,
            Batching(args.batch_size, device, processes.rank, processes.size),
        ),
        processes,
        choose_precision(args.precision, device),
    )
    processes.close()
    if not processes.is_main:
        return
    print(f"checkpoint      {args.model_path}")
    print(f"test images     {result['count']} of {name}")
    print(f"error rate      {100 - result['top1']:.2f} %")
    print(f"top-1 accuracy  {result['top1']:.2f} %")
    print(f"top-5 accuracy  {result['top5']:.2f} %")
    print_size(network, test_set.images.shape[-1])


def main() -> None:
    args = parse_arguments()
    with memory_advice("lower --batch_size or --image_size, or use --precision bf16"):
        test(args)


if __name__ == "__main__":
    run_script(main)
