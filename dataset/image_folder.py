"""Folders of images, as `dataset/class_folders.py` finds them, decoded into one tensor."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dataset.class_folders import class_folders, file_size, has_labels, image_file, list_images
from dataset.decoding import UNREADABLE, decoding_pool, open_image, to_rgb
from dataset.image_list import class_labels, class_of
from runtime.errors import UserError
from runtime.progress_bar import progress_bar

TEST_FOLDERS = ("test", "val")
"""What the folder of the test split may be called, in the order of preference."""


def load_image_folder(
    root: Path, split: str, image_size: int, same_classes: bool = True
) -> tuple[Tensor, Tensor, list[str], tuple[tuple[str, int], ...]]:
    """Decode a split of `root/train/<class>/*` and `root/test/<class>/*` (or `root/val`).

    Args:
        root: folder with both splits.
        split: "train" or "test".
        image_size: height and width that every image is resized to, its middle square kept.
        same_classes: whether both splits must have the same classes, if both are there.

    Returns:
        Images, uint8 (N, 3, image_size, image_size), labels, int64 (N,), the classes' names, and
        each image's `<class>/<name>` and the size of its file in bytes. A label is the position in
        the sorted list of class folders.

    Raises:
        UserError: a split is missing or a class of it has no images, the classes of the two
            differ, or an image cannot be read; names it.
    """
    folders = {name: _split_folder(root, name) for name in ("train", "test")}
    if split == "test" and not (same_classes and os.path.lexists(folders["train"])):
        del folders["train"]  # a trained network is tested; nothing to compare the classes with
    keys = list_images(folders[split])
    classes = {name: class_folders(folder) for name, folder in folders.items()}
    differing = sorted(set(classes.get("train", classes["test"])) ^ set(classes["test"]))
    if differing:
        raise UserError(
            f"--data {root}: the classes of {folders['train'].name}/ and {folders['test'].name}/ "
            f"differ; only one of them has {', '.join(differing[:5])}"
        )
    files = list(map(image_file(folders[split]), keys))
    label_of = class_labels(classes[split])
    labels = [label_of[class_of(key)] for key in keys]
    images = np.empty((len(files), image_size, image_size, 3), dtype=np.uint8)
    with decoding_pool(os.cpu_count()) as pool:
        decoded = pool.map(lambda file: decode_image(file, image_size), files)
        for index, image in enumerate(
            progress_bar(decoded, f"decoding {split} images", "images", len(files))
        ):
            images[index] = image
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    sizes = map(file_size, files)
    return tensor, torch.tensor(labels), classes[split], tuple(zip(keys, sizes, strict=True))


def decode_image(file: Path, image_size: int) -> np.ndarray:
    """An image file as uint8 RGB (image_size, image_size, 3).

    Raises:
        UserError: Pillow cannot read it; names the file.
    """
    try:
        with open_image(file) as image:
            size = (image_size, image_size)
            return np.asarray(ImageOps.fit(to_rgb(image), size, Image.Resampling.BILINEAR))
    except UNREADABLE as error:
        raise UserError(
            f"{file}: not an image that can be read ({error}); mend or remove it"
        ) from None


def _split_folder(root: Path, split: str) -> Path:
    """Where the images of "train" or "test" are; those to test on may be called otherwise."""
    if split == "train":
        return root / "train"
    folders = [root / name for name in TEST_FOLDERS]
    present = [folder for folder in folders if folder.is_dir() or folder.is_symlink()]
    labelled = [folder for folder in present if has_labels(folder)]
    return [*labelled, *present, *folders][0]
