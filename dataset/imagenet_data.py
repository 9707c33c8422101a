"""What train_imagenet.py and test_imagenet.py share: the flags of the data, and loading it."""

import os
from argparse import Namespace
from collections.abc import Sequence

from dataset.batching import Batching
from dataset.class_names import labels_in_network
from dataset.encoded_batches import Loading
from dataset.encoded_images import EncodedImages, FolderImages, labels_by_class
from dataset.pixel_statistics import PUBLISHED_STATISTICS, Statistics
from dataset.workers import worker_count
from runtime.arguments import ArgumentParser, expanded_path, non_negative_int, positive_int
from runtime.errors import UserError
from runtime.processes import Processes

IMAGENET = PUBLISHED_STATISTICS["imagenet"]


def add_data_arguments(parser: ArgumentParser) -> None:
    """Add the flags of where the images are and how they are loaded."""
    add = parser.add_argument
    add(
        "--data_path",
        type=expanded_path,
        help="folder with train/ and val/: LMDB, or image folders",
    )
    add(
        "--num_classes",
        type=positive_int,
        help="labels are below it (default: classes in the data)",
    )
    add("--image_size", type=positive_int, help="height and width of the network's images")
    add(
        "--validation_resize",
        type=positive_int,
        help="the shorter side before the middle is cut out (default: 256/224 of --image_size)",
    )
    add(
        "--workers",
        type=non_negative_int,
        help="decoding processes for each GPU (default: its share of the CPU cores)",
    )


def check_data_path(args: Namespace) -> None:
    """Refuse to go on without `--data_path` (argparse would ask for it with `--resume` too), and
    make it absolute.

    Raises:
        UserError: it is missing.
    """
    if args.data_path is None:
        raise UserError("--data_path is missing: the folder with the images' train/ and val/")
    args.data_path = os.path.abspath(args.data_path)


def give_labels_of_network(images: EncodedImages, class_names: Sequence[str], place: str) -> None:
    """Give images in folders the labels of a network, and check those in an LMDB.

    Args:
        class_names: the network's, in the order of its labels.
        place: the flag and the file that the network comes from, for an error.

    Raises:
        UserError: a class of the images is none of the network's, or has another label in the LMDB;
            names it.
    """
    found = labels_by_class(images)
    labels = labels_in_network(found, class_names, place)
    if isinstance(images, FolderImages):
        images.relabel(labels)
        return
    for name, label in found.items():
        if label != labels[name]:
            raise UserError(
                f"{images.folder}: the label of class {name} is {label}, but {labels[name]} in "
                f"{place}; write the LMDB anew with the training images' train_datalist.txt beside "
                "its list"
            )


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
    return Loading(
        image_size,
        validation_resize,
        statistics,
        Batching(args.batch_size, processes.device, processes.rank, processes.size),
        worker_count(args.workers),
        **training,
    )
