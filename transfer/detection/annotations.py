"""What is in the images of a data set: PASCAL VOC's files, and COCO's, in one form.

Everything is read and checked before a run begins, so that no mistake ends one later on.
"""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers import expat

from torchvision.datasets import VOCDetection

from runtime.errors import UserError
from runtime.progress_bar import progress_bar
from runtime.untrusted import is_number, is_whole_number, load_json, read_small_file

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip

VOC_TRAINING = (("2007", "trainval"), ("2012", "trainval"))
"""Years and lists of the published training images."""

VOC_TEST = (("2007", "test"),)

MAX_COCO_BYTES = 1 << 30
"""The largest file of COCO's own has half as many."""


class Box(NamedTuple):
    """Corners in pixels: from (x1, y1), inside, to (x2, y2), outside."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Annotated:
    """An image's file and the objects in it.

    Attributes:
        image_id: what results call the image.
        labels: the objects' classes from 1, for 0 is the background.
        ignored: whether an object is left out of training and need not be found: VOC's difficult
            objects, COCO's crowds.
        areas: the objects' pixels, as the annotation has them.
        size: the image's width and height, if the annotation is to be trusted with them.
    """

    file: Path
    image_id: int | str
    boxes: list[Box]
    labels: list[int]
    ignored: list[bool]
    areas: list[float]
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class AnnotatedSet:
    """Images and their objects.

    Attributes:
        class_names: of the labels from 1.
        category_ids: by label, what results call the classes; 0 for the background.
    """

    images: list[Annotated]
    class_names: list[str]
    category_ids: list[int]


def read_voc(root: Path, lists: Sequence[tuple[str, str]]) -> AnnotatedSet:
    """Read lists of PASCAL VOC.

    Args:
        root: the folder with `VOCdevkit/VOC2007/{ImageSets/Main,Annotations,JPEGImages}`, and so
            on for other years.
        lists: years and names of lists, such as `VOC_TRAINING`.

    Raises:
        UserError: a list, an image or an annotation is missing, or is none; names the file.
    """
    files = [pair for year, name in lists for pair in _voc_files(root, year, name)]
    images = [
        _voc_image(Path(image), Path(annotation))
        for image, annotation in progress_bar(files, "reading annotations", "images")
    ]
    _tell_of_empty_boxes(images)
    return AnnotatedSet(images, list(VOC_CLASSES), list(range(len(VOC_CLASSES) + 1)))


def _voc_files(root: Path, year: str, name: str) -> list[tuple[str, str]]:
    """The images of a list and their annotations."""
    place = f"VOCdevkit/VOC{year}/ImageSets/Main/{name}.txt"
    try:
        voc = VOCDetection(root, year, name)
    except RuntimeError:
        raise UserError(
            f"--data {root}: has no VOCdevkit/VOC{year}; give the folder that VOCdevkit is in"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise UserError(
            f"--data {root}: {place} cannot be read ({reason}); unpack all of VOC{year}"
        ) from None
    files = [
        (image, annotation)
        for image, annotation in zip(voc.images, voc.annotations, strict=True)
        if os.path.basename(image) != ".jpg"  # of an empty line
    ]
    if not files:
        raise UserError(f"--data {root}: {place} names no images; unpack all of VOC{year}")
    return files


def _voc_image(image: Path, annotation: Path) -> Annotated:
    if not image.is_file():
        raise UserError(f"image {image}: is in a list, but missing; unpack it or take it out")
    try:
        objects = [_voc_object(node) for node in _parse_xml(annotation).findall("object")]
    except OSError as error:
        raise UserError(
            f"annotation {annotation}: {error.strerror or error}; each image of a list needs one"
        ) from None
    except ValueError as error:
        raise UserError(
            f"annotation {annotation}: {error}; mend it or take out its image"
        ) from None
    boxes, labels, difficult = ([part[i] for part in objects] for i in range(3))
    areas = [(box.x2 - box.x1) * (box.y2 - box.y1) for box in boxes]
    return Annotated(image, image.stem, boxes, labels, difficult, areas)


def _parse_xml(path: Path) -> Element:
    """The root of an XML file. One with a document type is refused: entities can grow at will.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no XML, or larger than any annotation.
    """
    content = read_small_file(path)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_document_type
    try:
        parser.Parse(content, True)
        return ElementTree.fromstring(content)
    except (expat.ExpatError, ElementTree.ParseError, LookupError) as error:
        raise ValueError(f"no XML ({error})") from None


def _refuse_document_type(*_: object) -> None:
    raise ValueError("has a document type or entities, which no annotation needs")


def _voc_object(node: Element) -> tuple[Box, int, bool]:
    name = (node.findtext("name") or "").strip()
    if name not in VOC_CLASSES:
        raise ValueError(f"{name[:40]!r} is none of VOC's 20 classes")
    difficult = (node.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"difficult is {difficult[:40]!r}, neither 0 nor 1")
    corners = []
    for corner in Box("xmin", "ymin", "xmax", "ymax"):
        text = (node.findtext(f"bndbox/{corner}") or "").strip()
        try:
            # Pixels are counted from 1; as in the authors' code all corners are moved alike.
            corners.append(float(text) - 1)
        except ValueError:
            raise ValueError(f"{corner} is {text[:40]!r}, no number") from None
    box = Box(*corners)
    if not all(map(math.isfinite, box)) or box.x2 < box.x1 or box.y2 < box.y1:
        raise ValueError(f"a box of {name} ends before it begins, or nowhere")
    return box, VOC_CLASSES.index(name) + 1, difficult == "1"


def read_coco(root: Path, split: str) -> AnnotatedSet:
    """Read a split in COCO's format.

    Args:
        root: the folder with `annotations/instances_NAME.json` and the images in `NAME/`, where
            NAME begins with the split's, such as train or train2017.
        split: "train" or "val".

    Returns:
        Its classes are in the order of their ids.

    Raises:
        UserError: a file is missing, or says what cannot be; names it.
    """
    path, folder = _coco_files(root, split)
    try:
        content = load_json(path, min(MAX_COCO_BYTES, os.path.getsize(path)))
        categories = _categories(_records(content, "categories"))
        labels = {number: label for label, number in enumerate(sorted(categories), start=1)}
        images = {}
        for record in _records(content, "images"):
            image = _coco_image(record, folder)
            if images.setdefault(image.image_id, image) is not image:
                raise ValueError(f"two images have the id {image.image_id!r}")
        for record in _records(content, "annotations"):
            _add_coco_object(record, images, labels)
    except OSError as error:
        raise UserError(f"annotations {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"annotations {path}: {error}; mend the file") from None
    if not images:
        raise UserError(f"annotations {path}: has no images; mend the file")
    for image in progress_bar(images.values(), "looking for images", "images"):
        if not image.file.is_file():
            raise UserError(f"image {image.file}: is in {path.name}, but missing; put it there")
    _tell_of_empty_boxes(list(images.values()))
    names = [categories[number] for number in sorted(categories)]
    return AnnotatedSet(list(images.values()), names, [0, *sorted(categories)])


def _coco_files(root: Path, split: str) -> tuple[Path, Path]:
    """A split's annotations and the folder of its images."""
    found = sorted((root / "annotations").glob(f"instances_{split}*.json"))
    if len(found) != 1:
        reason = "has no" if not found else "has more than one"
        raise UserError(
            f"--data {root}: {reason} annotations/instances_{split}*.json; there must be one, such "
            f"as instances_{split}2017.json for the images in {split}2017/"
        )
    folder = root / found[0].stem.removeprefix("instances_")
    if not folder.is_dir():
        raise UserError(f"--data {root}: has no folder {folder.name}/ for {found[0].name}")
    return found[0], folder


def _records(content: object, name: str) -> list[dict]:
    records = content.get(name) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"has no list {name!r} of records")
    return records


def _categories(records: list[dict]) -> dict[int, str]:
    """The classes' names by their ids."""
    categories: dict[int, str] = {}
    names: set[str] = set()
    for record in records:
        number, name = record.get("id"), record.get("name")
        if not is_whole_number(number, 0, 1 << 31) or not isinstance(name, str):
            raise ValueError("a category needs a whole number 'id' and a 'name'")
        if number in categories or name in names:
            raise ValueError(f"two categories have the id {number} or the name {name[:40]!r}")
        categories[number] = name
        names.add(name)
    if not categories:
        raise ValueError("has no categories")
    return categories


def _coco_image(record: dict, folder: Path) -> Annotated:
    number, name = record.get("id"), record.get("file_name")
    if not is_whole_number(number, 0, 1 << 62) and not isinstance(number, str):
        raise ValueError("an image needs an 'id', a whole number or a text")
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"image {number!r} needs a 'file_name'")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"image {number!r} lies outside of {folder.name}/ ({name[:80]!r})")
    size = record.get("width"), record.get("height")
    if not all(is_whole_number(side, 1, 1 << 20) for side in size):
        raise ValueError(f"image {number!r} needs a 'width' and a 'height' in pixels")
    return Annotated(folder / name, number, [], [], [], [], size)


def _add_coco_object(
    record: dict, images: dict[int | str, Annotated], labels: dict[int, int]
) -> None:
    number, category = record.get("image_id"), record.get("category_id")
    place = f"annotation {str(record.get('id'))[:40]}"
    if not isinstance(number, int | str) or number not in images:
        raise ValueError(f"{place} is of an image that is not there ({str(number)[:40]})")
    if not isinstance(category, int) or category not in labels:
        raise ValueError(f"{place} is of a category that is not there ({str(category)[:40]})")
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(f"{place} needs a 'bbox' of four numbers")
    left, top, width, height = box
    if width < 0 or height < 0:
        raise ValueError(f"{place} has a box whose width or height is negative")
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"{place} has an 'iscrowd' that is neither 0 nor 1")
    area = record.get("area", width * height)
    if not is_number(area) or area < 0:
        raise ValueError(f"{place} has an 'area' that is none")
    image = images[number]
    image.boxes.append(Box(left, top, left + width, top + height))
    image.labels.append(labels[category])
    image.ignored.append(bool(crowd))
    image.areas.append(float(area))


def _tell_of_empty_boxes(images: list[Annotated]) -> None:
    """Warn of boxes without area, which `read_sample` leaves out."""
    empty = [
        image.file
        for image in images
        for box in image.boxes
        if box.x1 == box.x2 or box.y1 == box.y2
    ]
    if empty:
        log = logging.getLogger("relativenas")
        log.warning(
            "warning: %d boxes without area are left out, the first in %s", len(empty), empty[0]
        )
