"""Folders of images: `split/class/file`, decoded in parallel into one tensor."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dataset.decoding import UNREADABLE, decoding_pool, open_image, to_rgb
from runtime.errors import UserError
from runtime.progress import progress_bar

TEST_FOLDERS = ("test", "val")
"""What the folder of the test split may be called, in the order of preference."""


def load_image_folder(root: Path, split: str, image_size: int) -> tuple[Tensor, Tensor, list[str]]:
    """Decode a split of `root/train/<class>/*` and `root/test/<class>/*` (or `root/val`).

    Args:
        root: folder with both splits.
        split: "train" or "test".
        image_size: height and width that every image is resized to, its middle square kept.

    Returns:
        Images, uint8 (N, 3, image_size, image_size), labels, int64 (N,), and the classes' names.
        A label is the position in the sorted list of class folders.

    Raises:
        UserError: a split is missing or has no images, the classes of the two differ, or an image
            cannot be read; names it.
    """
    folders = {"train": root / "train", "test": _test_folder(root)}
    if split == "test" and not folders["train"].exists():
        del folders["train"]  # a trained network is tested; nothing to compare the classes with
    classes = {name: class_folders(folder) for name, folder in folders.items()}
    differing = sorted(set(classes.get("train", classes["test"])) ^ set(classes["test"]))
    if differing:
        raise UserError(
            f"--data {root}: the classes of {folders['train'].name}/ and {folders['test'].name}/ "
            f"differ; only one of them has {', '.join(differing[:5])}"
        )
    files = []
    labels = []
    for label, name in enumerate(classes[split]):
        for file in image_files(folders[split] / name):
            files.append(file)
            labels.append(label)
    if not files:
        raise UserError(f"--data {root}: no images in {folders[split]}/<class>/")
    images = np.empty((len(files), image_size, image_size, 3), dtype=np.uint8)
    with decoding_pool(os.cpu_count()) as pool:
        decoded = pool.map(lambda file: decode_image(file, image_size), files)
        for index, image in enumerate(
            progress_bar(decoded, f"decoding {split} images", "images", len(files))
        ):
            images[index] = image
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return tensor, torch.tensor(labels), classes[split]


def class_folders(folder: Path) -> list[str]:
    """The sorted names of the class folders in a split's `folder`.

    Raises:
        UserError: it is not a folder or has no class folders.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; it should hold one folder for a class")
    names = sorted(entry.name for entry in folder.iterdir() if _is_visible_folder(entry))
    if not names:
        raise UserError(f"{folder} has no class folders; its images go into {folder}/<class>/")
    return names


def image_files(folder: Path) -> Iterator[Path]:
    """The files of a class folder in sorted order, hidden ones aside."""
    return iter(sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != "."))


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


def _test_folder(root: Path) -> Path:
    for name in TEST_FOLDERS:
        if (root / name).is_dir():
            return root / name
    return root / TEST_FOLDERS[0]


def _is_visible_folder(entry: Path) -> bool:
    return entry.is_dir() and entry.name[0] != "."
