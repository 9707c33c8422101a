"""The sets that detectors train and are tested on: PASCAL VOC, one's own in COCO's format, made."""

import math
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from dataset.class_folders import file_size
from dataset.manifest import Manifest, by_class
from runtime.errors import UserError
from transfer.coco import import_pycocotools
from transfer.detection.annotations import (
    VOC_TEST,
    VOC_TRAINING,
    Annotated,
    AnnotatedSet,
    read_coco,
    read_voc,
)
from transfer.detection.data import Sample, read_sample
from transfer.detection.made import MadeDigits
from transfer.launch import MADE

SETS = ("voc", "coco", MADE)

VOC_YEARS = tuple(year for year, _ in VOC_TRAINING)
"""Of the published training images."""


class DetectionSet(Protocol):
    """Images and the objects in them.

    Attributes:
        class_names: of the labels from 1.
        category_ids: by label, what results call the classes; 0 for the background.
        has_objects: whether there is one to be found.
    """

    class_names: list[str]
    category_ids: list[int]
    has_objects: bool

    def __len__(self) -> int: ...

    def image_id(self, index: int) -> int | str:
        """What results call an image."""

    def read(self, index: int, training: bool) -> Sample:
        """An image and its target, as from `read_sample`."""

    def files(self) -> list[tuple[str, int]]:
        """Names of the images, and their sizes in bytes."""


class AnnotatedImages:
    """A set of files (see `DetectionSet`)."""

    def __init__(self, annotated: AnnotatedSet) -> None:
        self.images = annotated.images
        self.class_names = annotated.class_names
        self.category_ids = annotated.category_ids
        self.has_objects = any(map(_has_objects, self.images))

    def __len__(self) -> int:
        return len(self.images)

    def image_id(self, index: int) -> int | str:
        return self.images[index].image_id

    def read(self, index: int, training: bool) -> Sample:
        return read_sample(self.images[index], training)

    def files(self) -> list[tuple[str, int]]:
        return [(str(image.image_id), file_size(image.file)) for image in self.images]


def _has_objects(image: Annotated) -> bool:
    width, height = image.size or (math.inf, math.inf)
    return any(
        not ignored and max(box.x1, 0) < min(box.x2, width) and max(box.y1, 0) < min(box.y2, height)
        for box, ignored in zip(image.boxes, image.ignored, strict=True)
    )


def open_set(args: Namespace, split: str, years: Sequence[str] = ()) -> DetectionSet:
    """A split of the set that `--set` and `--data` name.

    Args:
        split: "train" or "val".
        years: of PASCAL VOC, to train on.

    Raises:
        UserError: it cannot be read, or there is nothing in it to be found; names what is wrong.
    """
    if args.set == MADE:
        return MadeDigits(split)
    root = Path(args.data)
    if args.set == "coco":
        import_pycocotools()  # before anything is trained
        annotated = read_coco(root, split)
    elif split == "train":
        annotated = read_voc(root, [(year, "trainval") for year in years])
    else:
        annotated = read_voc(root, VOC_TEST)
    images = AnnotatedImages(annotated)
    if not images.has_objects:
        purpose = {"train": "train", "val": "test"}[split]
        raise UserError(
            f"--data {args.data}: the images to {purpose} on have no objects (difficult ones and "
            "crowds do not count); give others"
        )
    return images


def open_both(args: Namespace) -> tuple[DetectionSet, DetectionSet]:
    """The images to train on, and those to validate on.

    Raises:
        UserError: as `open_set`, or their classes differ.
    """
    train, validation = open_set(args, "train", args.years), open_set(args, "val")
    for name in ("class_names", "category_ids"):
        if getattr(train, name) != getattr(validation, name):
            raise UserError(
                f"--data {args.data}: the categories of the two annotation files differ "
                f"({_first_difference(getattr(train, name), getattr(validation, name))}); give "
                "them the same ids and names"
            )
    return train, validation


def _first_difference(first: list, second: list) -> str:
    for one, other in zip(first, second, strict=False):
        if one != other:
            return f"{one!r} and {other!r}"
    return f"{len(first)} and {len(second)} of them"


def detection_manifest(train: DetectionSet, validation: DetectionSet) -> Manifest:
    """The manifest (see `dataset.manifest`) of the images; what is in them is no part of it."""
    splits = {
        split: by_class(("images", name, size) for name, size in sorted(images.files()))
        for split, images in (("train", train), ("val", validation))
    }
    return {"class_names": train.class_names, "splits": splits}
