"""The flags of the scripts that read image sets (CIFAR-10, CIFAR-100, digits, a folder)."""

from argparse import BooleanOptionalAction

from dataset.image_set import SET_NAMES
from runtime.arguments import ArgumentParser, expanded_path, non_negative_int, positive_int


def add_set_arguments(parser: ArgumentParser, of_checkpoint: bool = False) -> None:
    """Add the flags that say which images to read (a checkpoint knows those of its training)."""
    add = parser.add_argument
    if of_checkpoint:
        add("--set", choices=SET_NAMES, help="image set (default: the one trained on, or cifar10)")
    else:
        add("--set", choices=SET_NAMES, default="cifar10", help="image set")
    add("--data", type=expanded_path, default="./data", help="folder of the image set")
    add("--image_size", type=positive_int, help="size that images of --set folder get (default 32)")


def add_augmentation_arguments(parser: ArgumentParser) -> None:
    """Add the flags of images that are trained on: where they are kept, and cutout."""
    add = parser.add_argument
    add(
        "--data_device",
        choices=("auto", "cpu"),
        default="auto",
        help="where the images are kept: where the network is (auto), or in CPU memory",
    )
    add("--cutout", action=BooleanOptionalAction, default=True, help="use cutout")
    add(
        "--cutout_length",
        type=non_negative_int,
        help="side of the cutout square in pixels (default: half of the image's, 16 on CIFAR)",
    )


def add_device_arguments(parser: ArgumentParser) -> None:
    """Add the flags of scripts that compute on one device."""
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to compute on")
    add("--gpu", type=non_negative_int, default=0, help="number of the GPU")
