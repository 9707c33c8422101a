"""A split of encoded images, in an LMDB or in a folder, found out by looking."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dataset.class_folders import class_folders, image_file, list_images
from dataset.image_list import class_labels, class_of, labels_of_keys
from dataset.lmdb_set import LmdbImages, is_lmdb
from runtime.errors import UserError


class FolderImages:
    """The images of a split in a plain folder; the same attributes and methods as `LmdbImages`.

    Args:
        data_path: folder with `train/<class>/` and `val/<class>/`.
        split: "train" or "val".
        num_classes: the label's upper bound; None: as many as there are class folders.

    Raises:
        UserError: there are no images, or of a class that there are no training images of.
    """

    def __init__(self, data_path: Path, split: str, num_classes: int | None = None) -> None:
        self.folder = data_path / split
        keys = list_images(self.folder)
        train = data_path / "train"
        labels = class_labels(class_folders(train if os.path.lexists(train) else self.folder))
        self.num_classes = num_classes or len(labels)
        if self.num_classes < len(labels):
            raise UserError(
                f"--num_classes {num_classes}: {train.parent} has {len(labels)} class folders, "
                "labels are beyond the class count; leave --num_classes out"
            )
        self._labels = np.array(labels_of_keys(keys, labels, str(self.folder)))
        self._file = image_file(self.folder)
        self._keys = np.array([os.fsencode(key) for key in keys])

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        """The image's `<class>/<name>`."""
        return os.fsdecode(self._keys[index])

    def name(self, index: int) -> str:
        """What to call the image when something is wrong with it."""
        return str(self._file(self.key(index)))

    def read(self, index: int) -> tuple[bytes, int]:
        """The image file's bytes and the label.

        Raises:
            UserError: the file cannot be read; names it.
        """
        try:
            image = self._file(self.key(index)).read_bytes()
        except OSError as error:
            raise UserError(f"{self.name(index)}: {error.strerror}") from None
        return image, int(self._labels[index])

    def relabel(self, labels: Mapping[str, int]) -> None:
        """Give the images of each class the label in `labels`."""
        classes = (class_of(self.key(index)) for index in range(len(self)))
        self._labels = np.array([labels[name] for name in classes])

    def close(self) -> None:
        """Nothing is kept open."""


EncodedImages = LmdbImages | FolderImages


def open_images(data_path: str, split: str, num_classes: int | None = None) -> EncodedImages:
    """The images of a split in `data_path`.

    Raises:
        UserError: they are neither in an LMDB nor in class folders, or as those classes.
    """
    folder = Path(data_path) / split
    if is_lmdb(folder):
        return LmdbImages(Path(data_path), split, num_classes)
    if not folder.is_dir():
        raise UserError(f"--data_path {data_path}: has no folder {split}/")
    if not any(entry.is_dir() or entry.is_symlink() for entry in folder.iterdir()):
        raise UserError(
            f"--data_path {data_path}: {split}/ is neither an LMDB (it has no data.mdb) nor a "
            "folder of class folders"
        )
    return FolderImages(Path(data_path), split, num_classes)


def check_same_labels(train: EncodedImages, validation: EncodedImages) -> dict[str, int]:
    """Check one image of each class: does its label mean the same in both splits?

    Returns:
        The labels of the training images' classes.

    Raises:
        UserError: the splits give a class different labels.
    """
    train_labels = labels_by_class(train)
    for name, label in labels_by_class(validation).items():
        if train_labels.get(name, label) != label:
            raise UserError(
                f"{validation.folder}: the label of class {name} is {label}, but "
                f"{train_labels[name]} in {train.folder}; write both anew with dataset/img2lmdb.py"
            )
    return train_labels


def labels_by_class(images: EncodedImages) -> dict[str, int]:
    """The label of each class that there are images of: that of its first image.

    Raises:
        UserError: one cannot be read.
    """
    first = {class_of(images.key(index)): index for index in reversed(range(len(images)))}
    labels = {name: images.read(index)[1] for name, index in first.items()}
    images.close()  # the loader's processes fork, which an open LMDB must not go through
    return labels
