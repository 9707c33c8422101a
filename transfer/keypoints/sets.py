"""The sets of people that the scripts train and test on, opened as their flags say."""

from argparse import Namespace
from pathlib import Path

import numpy as np

from dataset.manifest import by_class
from runtime.errors import UserError
from transfer.keypoints.annotations import (
    Annotations,
    People,
    detected_people,
    find_coco,
    read_annotations,
    true_people,
)
from transfer.keypoints.made import SPLITS, made_annotations
from transfer.launch import MADE

SETS = ("coco", MADE)
"""Kinds of `--set`."""


def open_people(
    args: Namespace, split: str, detections: str | None = None
) -> tuple[Annotations, People]:
    """A split's annotations, and the people in it.

    Args:
        args: have `set` and `data`.
        split: "train" or "val".
        detections: file of detected boxes, which are taken in place of the true ones.

    Raises:
        UserError: a file is missing, cannot be read or is not what it should be; names it.
    """
    if args.set == MADE:
        annotations, source = made_annotations(*SPLITS[split])
    else:
        file, source = find_coco(Path(args.data), split)
        if not file.exists():
            raise UserError(
                f"{file}: no such file; --data is the folder of COCO's annotations/, train2017/ "
                f"and val2017/ (or give --set {MADE})"
            )
        annotations = read_annotations(file)
    if detections is not None:
        return annotations, detected_people(annotations, source, Path(detections))
    return annotations, true_people(annotations, source)


def left_out_in_words(people: People) -> str:
    """How many boxes were left out and why, such as `3 without area`; `nobody` if none were."""
    counts = people.left_out.items()
    return ", ".join(f"{count} {reason}" for reason, count in counts) or "nobody"


def people_manifest(splits: dict[str, tuple[Annotations, People]]) -> dict:
    """What `keep_manifest` compares on `--resume`: files, by their names and sizes.

    Args:
        splits: by their names, their images in files.

    Raises:
        UserError: a file is not there any more; names it.
    """
    return {
        "class_names": [],
        "splits": {
            split: by_class(sorted(_files(annotations, people)))
            for split, (annotations, people) in splits.items()
        },
    }


def _files(annotations: Annotations, people: People) -> list[tuple[str, str, int]]:
    """Kind, name and size of all files that were read, each once."""
    files = [("annotations", annotations.path.name, annotations.path)]
    _, first = np.unique(people.image_ids, return_index=True)
    for index in first.tolist():
        entry = annotations.images[int(people.image_ids[index])]
        files.append(("images", entry.file_name, people.images[index]))
    try:
        return [(kind, name, path.stat().st_size) for kind, name, path in files]
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; put it back") from None
