"""COCO's person keypoints: annotation files, folders of images, files of detected boxes.

What somebody else has written is checked here, entry by entry; nothing is trusted further on.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dataset.decoding import MAX_IMAGE_PIXELS
from runtime.errors import UserError
from runtime.untrusted import is_number, is_whole_number, load_json
from transfer.keypoints.evaluation import PERSON
from transfer.keypoints.network import JOINTS

MAX_BYTES = 1 << 30
"""Of a JSON file; COCO's largest have a quarter of this."""

LARGEST_NUMBER = 1 << 53
"""Of an image or an annotation; larger ones would not be whole as floats."""

LARGEST_PLACE = 1e6
"""Of a box or a joint, in pixels, to both sides of 0."""

NO_VISIBLE_JOINTS, NO_AREA, BEYOND = "without labelled joints", "without area", "beyond the image"
"""Why somebody is left out."""


ImageSource = Path | Mapping[int, np.ndarray]
"""A folder of images, or pixels, uint8 RGB (H, W, 3), by the images' numbers."""


class ImageEntry(NamedTuple):
    """An image of an annotation file: its file's name and its size in pixels."""

    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Annotations:
    """What a COCO file says of people.

    Attributes:
        path: of the file.
        images: by their numbers.
        people: COCO's annotations of people, crowds too, with the fields that evaluation needs.
    """

    path: Path
    images: dict[int, ImageEntry]
    people: list[dict]

    @property
    def coco_images(self) -> list[dict]:
        """The images as COCO's files have them, for evaluation."""
        return [{"id": number} for number in self.images]


@dataclass(frozen=True)
class People:
    """People to be found in their boxes, P of them, true or detected.

    Attributes:
        images: of each the image: a file, or pixels, uint8 RGB (H, W, 3).
        image_sizes: width and height, int64 (P, 2).
        image_ids: int64 (P,).
        boxes: left, top, width, height in pixels, float64 (P, 4).
        box_scores: float64 (P,), 1 for true boxes.
        joints: (x, y) in pixels, float64 (P, 17, 2); 0 for detected boxes.
        visible: whether a joint is labelled, hidden by something or not, bool (P, 17).
        left_out: how many boxes were left out, by the reason.
    """

    images: list[Path | np.ndarray]
    image_sizes: np.ndarray
    image_ids: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.images)


def read_annotations(path: Path) -> Annotations:
    """Read an annotation file of COCO's keypoints, person_keypoints_val2017.json say.

    Raises:
        UserError: it cannot be read or is none, or an entry is not what it should be; names it.
    """
    return parse_annotations(_read(path), path)


def parse_annotations(content: object, path: Path) -> Annotations:
    """What `read_annotations` gives for a file of such content; raises as it does."""
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no annotations of COCO's keypoints, but something else")
    for name in ("images", "annotations", "categories"):
        if not isinstance(content.get(name), list):
            raise UserError(f"{path}: holds no annotations of COCO's keypoints (no list {name!r})")
    is_person = {"id": PERSON, "name": "person"}.items()
    if not any(
        isinstance(each, dict) and is_person <= each.items() for each in content["categories"]
    ):
        raise UserError(f"{path}: its category {PERSON} must be 'person', as in COCO's files")
    images: dict[int, ImageEntry] = {}
    for entry in _checked(path, "image", content["images"], _image_problem):
        if entry["id"] in images:
            raise UserError(f"{path}: image {entry['id']} is in it twice")
        images[entry["id"]] = ImageEntry(entry["file_name"], entry["width"], entry["height"])
    people = []
    numbers = set()
    for entry in _checked(path, "annotation", content["annotations"], _annotation_problem):
        if entry["image_id"] not in images:
            raise UserError(
                f"{path}: annotation {entry['id']} is of image {entry['image_id']}, which is not "
                "in the file"
            )
        if entry["id"] in numbers:
            raise UserError(f"{path}: annotation {entry['id']} is in it twice")
        numbers.add(entry["id"])
        if entry["category_id"] == PERSON:
            people.append(_for_evaluation(entry))
    return Annotations(path, images, people)


def _read(path: Path) -> object:
    try:
        return load_json(path, MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path}: no JSON that can be read ({error}); get it again") from None


def _checked(
    path: Path, kind: str, entries: list, problem_of: Callable[[Mapping], str]
) -> Iterable[dict]:
    """The entries of a list, each a dictionary that `problem_of` finds nothing wrong with."""
    for position, entry in enumerate(entries):
        problem = problem_of(entry) if isinstance(entry, dict) else "is no object"
        if problem:
            number = entry.get("id") if isinstance(entry, dict) else None
            name = number if is_whole_number(number, 0, LARGEST_NUMBER) else f"at {position}"
            raise UserError(f"{path}: {kind} {name}: {problem}")
        yield entry


def _image_problem(entry: Mapping) -> str:
    if not is_whole_number(entry.get("id"), 0, LARGEST_NUMBER):
        return "'id' must be a whole number"
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        return "'file_name' must be the name of a file"
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return f"'file_name' {name[:80]!r} leads out of the folder of images"
    if not all(is_whole_number(entry.get(side), 1, 1 << 20) for side in ("width", "height")):
        return "'width' and 'height' must be whole numbers from 1"
    if entry["width"] * entry["height"] > MAX_IMAGE_PIXELS:
        return f"of {entry['width']}×{entry['height']} pixels, more than can be read"
    return ""


def _annotation_problem(entry: Mapping) -> str:
    for name in ("id", "image_id", "category_id"):
        if not is_whole_number(entry.get(name), 0, LARGEST_NUMBER):
            return f"{name!r} must be a whole number"
    if entry["category_id"] != PERSON:
        return ""  # left out
    if entry.get("iscrowd", 0) not in (0, 1):
        return "'iscrowd' must be 0 or 1"
    if not is_number(entry.get("area")) or not 0 <= entry["area"] <= LARGEST_PLACE**2:
        return "'area' must be a number from 0"
    if not _is_box(entry.get("bbox")):
        return f"'bbox' must be four numbers: left, top, width, height, up to {LARGEST_PLACE:g}"
    joints = entry.get("keypoints")
    if not isinstance(joints, list) or len(joints) != 3 * JOINTS or not all(map(_fits, joints)):
        return f"'keypoints' must be {3 * JOINTS} numbers: x, y and visibility of {JOINTS} joints"
    if any(visibility not in (0, 1, 2) for visibility in joints[2::3]):
        return "the visibility of a joint in 'keypoints' must be 0, 1 or 2"
    return ""


def _is_box(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_fits, box))


def _fits(value: object) -> bool:
    return is_number(value) and abs(value) <= LARGEST_PLACE


def _for_evaluation(entry: Mapping) -> dict:
    fields = ("id", "image_id", "category_id", "area", "bbox", "keypoints")
    person = {name: entry[name] for name in fields}
    # Counted, for evaluation leaves out those who have none.
    labelled = sum(visibility > 0 for visibility in entry["keypoints"][2::3])
    return person | {"iscrowd": int(entry.get("iscrowd", 0)), "num_keypoints": labelled}


def true_people(annotations: Annotations, source: ImageSource) -> People:
    """Everybody whose joints are labelled, in the true boxes, but no crowds.

    Boxes are cut off at the image's borders. Those of which nothing is left are left out.

    Args:
        source: folder of the images, or the images themselves.

    Raises:
        UserError: nobody is left, or an image is missing; names it.
    """
    left_out: Counter[str] = Counter()
    chosen: list[dict] = []
    boxes: list[list[float]] = []
    for person in annotations.people:
        if person["iscrowd"]:
            continue
        box, problem = _box_in_image(person["bbox"], annotations.images[person["image_id"]])
        if not person["num_keypoints"]:
            problem = NO_VISIBLE_JOINTS
        elif not person["area"]:
            problem = NO_AREA
        if problem:
            left_out[problem] += 1
            continue
        chosen.append(person)
        boxes.append(box)
    if not chosen:
        raise UserError(
            f"{annotations.path}: nobody in it has labelled joints and a box in the image; use "
            "another file"
        )
    keypoints = np.array([person["keypoints"] for person in chosen], dtype=np.float64)
    keypoints = keypoints.reshape(-1, JOINTS, 3)
    visible = keypoints[..., 2] > 0
    return _people(
        annotations,
        source,
        [person["image_id"] for person in chosen],
        np.array(boxes),
        np.ones(len(chosen)),
        np.where(visible[..., None], keypoints[..., :2], 0),
        visible,
        dict(left_out),
    )


def detected_people(annotations: Annotations, source: ImageSource, detections: Path) -> People:
    """What a detector took for people, in the images of `annotations`.

    Args:
        source: folder of the images, or the images themselves.
        detections: a JSON file of COCO's results for boxes: a list of objects with `image_id`,
            `category_id`, `bbox` and `score`. Other categories than people do not count.

    Raises:
        UserError: it cannot be read, or an entry is not what it should be, or an image is missing;
            names it. Or nobody is in it.
    """
    content = _read(detections)
    if not isinstance(content, list):
        raise UserError(f"{detections}: holds no list of detected boxes")
    left_out: Counter[str] = Counter()
    chosen = []
    for entry in _checked(detections, "detection", content, _detection_problem):
        if entry["category_id"] != PERSON:
            continue
        if entry["image_id"] not in annotations.images:
            raise UserError(
                f"{detections}: a detection is of image {entry['image_id']}, which is not in "
                f"{annotations.path}; give the detections of its images"
            )
        # What lies beyond the border stays, for a detector may see that a person goes on there.
        _, problem = _box_in_image(entry["bbox"], annotations.images[entry["image_id"]])
        if problem:
            left_out[problem] += 1
        else:
            chosen.append(entry)
    if not chosen:
        raise UserError(f"{detections}: no detected person is in it; give another file")
    return _people(
        annotations,
        source,
        [entry["image_id"] for entry in chosen],
        np.array([entry["bbox"] for entry in chosen], dtype=np.float64),
        np.array([entry["score"] for entry in chosen], dtype=np.float64),
        np.zeros((len(chosen), JOINTS, 2)),
        np.zeros((len(chosen), JOINTS), dtype=bool),
        dict(left_out),
    )


def _detection_problem(entry: Mapping) -> str:
    for name in ("image_id", "category_id"):
        if not is_whole_number(entry.get(name), 0, LARGEST_NUMBER):
            return f"{name!r} must be a whole number"
    if not _is_box(entry.get("bbox")):
        return f"'bbox' must be four numbers: left, top, width, height, up to {LARGEST_PLACE:g}"
    if not is_number(entry.get("score")):
        return "'score' must be a number"
    return ""


def _box_in_image(box: list[float], image: ImageEntry) -> tuple[list[float], str]:
    """The part of a box that is in the image, and what is wrong with it, if anything.

    From the middle of its first pixel to that of its last, as published.
    """
    left, top, width, height = box
    if width <= 0 or height <= 0:
        return box, NO_AREA
    if left + width <= 0 or top + height <= 0 or left >= image.width or top >= image.height:
        return box, BEYOND
    right, bottom = min(image.width, left + width) - 1, min(image.height, top + height) - 1
    left, top = max(0, left), max(0, top)
    if right <= left or bottom <= top:
        return box, NO_AREA
    return [left, top, right - left, bottom - top], ""


def _people(
    annotations: Annotations,
    source: ImageSource,
    image_ids: list[int],
    boxes: np.ndarray,
    box_scores: np.ndarray,
    joints: np.ndarray,
    visible: np.ndarray,
    left_out: dict[str, int],
) -> People:
    """People in the images of `source`, each of which must be there."""
    entries = [annotations.images[number] for number in image_ids]
    if isinstance(source, Path):
        _check_files(sorted({entry.file_name for entry in entries}), source, annotations.path)
        images: list[Path | np.ndarray] = [source / entry.file_name for entry in entries]
    else:
        images = [source[number] for number in image_ids]
    return People(
        images,
        np.array([(entry.width, entry.height) for entry in entries]),
        np.array(image_ids),
        boxes,
        box_scores,
        joints,
        visible,
        left_out,
    )


def _check_files(names: list[str], folder: Path, annotated_in: Path) -> None:
    """Check that a folder has all of these files."""
    try:
        present = set(os.listdir(folder))  # a hundred thousand files are not asked one by one
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; it should hold the images") from None
    absent = [name for name in names if name not in present and not (folder / name).is_file()]
    if absent:
        others = f" and {len(absent) - 1} others" if absent[1:] else ""
        raise UserError(
            f"{folder / absent[0]}{others}: no such file, but {annotated_in} has people in it; "
            "get the images that belong to it"
        )


def find_coco(data: Path, split: str) -> tuple[Path, Path]:
    """Annotation file and folder of images in COCO's layout, or that of SimpleBaseline's users.

    Args:
        data: has `annotations/person_keypoints_<split>2017.json` and `<split>2017/`, which may
            also be `images/<split>2017/`.
        split: "train" or "val".
    """
    folders = [data / f"{split}2017", data / "images" / f"{split}2017"]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return data / "annotations" / f"person_keypoints_{split}2017.json", folder
