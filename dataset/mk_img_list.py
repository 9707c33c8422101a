"""Write the lists of the images in DIR/train/<class>/ and DIR/val/<class>/."""

import os
import sys
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # run as dataset/mk_img_list.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

from dataset.class_folders import list_images
from dataset.image_list import (
    SPLITS,
    class_labels,
    class_of,
    labels_of_keys,
    list_file,
    note_keys_beyond_ascii,
    write_list,
)
from runtime.arguments import ArgumentParser, expanded_path
from runtime.errors import UserError, run_script


def write_lists(args: Namespace) -> None:
    """Write the list of each split that is there."""
    root = Path(args.image_path)
    splits = [split for split in SPLITS if os.path.lexists(root / split)]
    if not splits:
        raise UserError(f"--image_path {root}: has neither a train/ nor a val/ folder")
    keys = {split: list_images(root / split) for split in splits}
    labels = class_labels(class_of(key) for key in keys[splits[0]])
    for split in splits:
        labels_of_keys(keys[split], labels, f"--image_path {root / split}")
    note_keys_beyond_ascii(key for split in splits for key in keys[split])
    for split in splits:
        path = list_file(args.output_path, split)
        write_list(path, keys[split])
        classes = len({class_of(key) for key in keys[split]})
        print(f"{path}: {len(keys[split])} images of {classes} classes")


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--image_path",
        type=expanded_path,
        required=True,
        metavar="DIR",
        help="folder with train/ and val/",
    )
    add(
        "--output_path",
        type=expanded_path,
        required=True,
        metavar="DIR",
        help="folder for the lists",
    )
    return parser.parse_args(argv)


def main() -> None:
    write_lists(parse_arguments())


if __name__ == "__main__":
    run_script(main)
