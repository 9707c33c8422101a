"""What train_imagenet.py and test_imagenet.py share: the flags of the data, and loading it."""

import os
from argparse import ArgumentParser, Namespace

from dataset.encoded_batches import Loading
from dataset.image_set import Statistics
from distributed import Processes
from errors import UserError

IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels, by channel, as everybody uses them."""


def add_data_arguments(parser: ArgumentParser) -> None:
    """Add the flags of where the images are and how they are loaded."""
    add = parser.add_argument
    add("--data_path", help="folder with train/ and val/: LMDB, or image folders")
    add("--num_classes", type=int, help="labels are below it (default: classes in the data)")
    add("--image_size", type=int, help="height and width of the network's images")
    add(
        "--validation_resize",
        type=int,
        help="the shorter side before the middle is cut out (default: 256/224 of --image_size)",
    )
    add("--workers", type=int, help="decoding processes for a GPU (default: the CPU cores)")


def check_data_arguments(args: Namespace) -> None:
    """Check the values of the flags of `add_data_arguments`, and of `--batch_size`.

    Raises:
        UserError: one is missing or out of its range.
    """
    if args.data_path is None:
        raise UserError("--data_path is missing: the folder with the images' train/ and val/")
    least = {"num_classes": 1, "image_size": 1, "workers": 0, "batch_size": 1}
    for name, bound in least.items():
        value = getattr(args, name)
        if value is not None and value < bound:
            raise UserError(f"--{name} {value}: must be at least {bound}")


def plan_loading(
    args: Namespace,
    processes: Processes,
    image_size: int,
    validation_resize: int | None,
    statistics: Statistics,
    **training: object,
) -> Loading:
    """How this process loads images; `training` are the attributes that only training needs.

    Raises:
        UserError: the resized images are smaller than what is cut out of them.
    """
    if validation_resize is None:
        validation_resize = round(image_size * 256 / 224)
    if validation_resize < image_size:
        raise UserError(
            f"--validation_resize {validation_resize}: must be at least the size of the images, "
            f"{image_size}"
        )
    workers = args.workers
    if workers is None:
        on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        workers = max(1, len(os.sched_getaffinity(0)) // on_this_machine)
    return Loading(
        image_size,
        validation_resize,
        statistics,
        args.batch_size,
        workers,
        processes.device,
        processes.rank,
        processes.size,
        **training,
    )
