"""How good detections are: PASCAL VOC 2007's average precision, and COCO's.

Objects and detections are dictionaries, as torchvision's detectors have them, with `boxes`, float
(n, 4) as x1, y1, x2, y2 in pixels, and `labels`, int64 (n,); detections also with `scores`, float
(n,), objects with `ignored`, bool (n,), for those that need not be found: VOC's difficult objects,
COCO's crowds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from runtime.errors import UserError
from transfer.coco import indexed, summary

MATCH_IOU = 0.5
"""A detection finds the object with which it has a higher IoU than this."""

RECALL_LEVELS = 10
"""Precision is averaged at recalls of 0, 1/10, ..., 1."""

COCO_FIGURES = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5}
"""Where pycocotools has the figures of its summary."""

Boxes = Mapping[str, Tensor]


class Outcome(NamedTuple):
    """What became of an image's detections; all that average precision needs of an image.

    Attributes:
        labels: of the detections that count, int64 (n,).
        scores: theirs, float (n,).
        correct: whether they found an object, bool (n,).
        objects: labels of the objects that should be found, int64 (m,).
    """

    labels: Tensor
    scores: Tensor
    correct: Tensor
    objects: Tensor


def judge_detections(detected: Boxes, objects: Boxes) -> Outcome:
    """Compare the detections in an image with the objects in it, by the rules of VOC 2007.

    Best score first, a detection is compared with the object of its class that it overlaps most.
    It is correct if their IoU is above `MATCH_IOU` and no detection before it found that object. It
    does not count if the object is an ignored one.

    Returns:
        The outcome, on the CPU; outcomes of different images are independent of each other.
    """
    detected = {name: tensor.detach().cpu() for name, tensor in detected.items()}
    objects = {name: objects[name].detach().cpu() for name in ("boxes", "labels", "ignored")}
    order = detected["scores"].argsort(descending=True, stable=True)
    labels, scores = detected["labels"][order], detected["scores"][order]
    correct = torch.zeros(len(order), dtype=torch.bool)
    counts = torch.ones(len(order), dtype=torch.bool)
    wanted = objects["labels"][~objects["ignored"]]
    if len(order) and len(objects["labels"]):
        ious = box_iou(detected["boxes"][order].double(), objects["boxes"].double())
        ious[labels[:, None] != objects["labels"]] = 0
        best, nearest = ious.max(dim=1)
        matching = best > MATCH_IOU
        counts = ~(matching & objects["ignored"][nearest])
        for index in range(len(objects["labels"])):
            finders = torch.where(matching & (nearest == index))[0]
            correct[finders[:1]] = True
    return Outcome(labels[counts], scores[counts], correct[counts], wanted)


def average_precisions(outcomes: Iterable[Outcome], num_classes: int) -> dict[int, float]:
    """VOC 2007's 11-point interpolated average precision of each class that has objects.

    Where scores are equal, wrong detections go before correct ones, so that the order of the
    images does not matter.

    Args:
        outcomes: of all images, in any order.
        num_classes: the background, which is class 0, included.

    Returns:
        From 0 to 1, by label.
    """
    parts = [torch.cat(tensors).numpy() for tensors in zip(*outcomes, strict=True)]
    if not parts:
        return {}
    labels, scores, correct, objects = parts
    counts = np.bincount(objects, minlength=num_classes)
    result = {}
    for label in range(1, num_classes):
        if counts[label]:
            chosen = labels == label
            result[label] = _average_precision(scores[chosen], correct[chosen], int(counts[label]))
    return result


def _average_precision(scores: np.ndarray, correct: np.ndarray, objects: int) -> float:
    """Of a class: mean over the levels of the best precision with that recall or a higher one."""
    found = np.cumsum(correct[np.lexsort((correct, -scores))])
    precision = found / np.arange(1, len(found) + 1)
    # In whole numbers, for 0.3 as a float is not three tenths.
    return float(
        np.mean(
            [
                precision[RECALL_LEVELS * found >= level * objects].max(initial=0)
                for level in range(RECALL_LEVELS + 1)
            ]
        )
    )


def mean_average_precision(outcomes: Iterable[Outcome], num_classes: int) -> float:
    """The mean over the classes that have objects, from 0 to 1.

    Raises:
        UserError: there are no objects at all.
    """
    precisions = average_precisions(outcomes, num_classes)
    if not precisions:
        raise UserError("the test images have no objects to find; give others to test on")
    return sum(precisions.values()) / len(precisions)


def coco_results(
    detected: Boxes, image_id: int | str, category_ids: Sequence[int] | None = None
) -> list[dict]:
    """An image's detections in COCO's format for results, as plain data.

    Args:
        category_ids: by label, with one for the background; None: the labels themselves.
    """
    corners = detected["boxes"].detach().cpu().double()
    sizes = corners[:, 2:] - corners[:, :2]
    boxes = torch.cat([corners[:, :2], sizes], dim=1).tolist()
    labels = detected["labels"].tolist()
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label] if category_ids else label,
            "bbox": [round(number, 3) for number in box],
            "score": score,
        }
        for box, label, score in zip(boxes, labels, detected["scores"].tolist(), strict=True)
    ]


def coco_average_precision(
    detections: Sequence[Boxes], objects: Sequence[Boxes], num_classes: int
) -> dict[str, float]:
    """COCO's average precision, by pycocotools.

    Args:
        detections: of each image.
        objects: of each image; may have `area`, float (n,), the objects' pixels, which decide
            whether they are small, medium or large. Without it their boxes' areas do.
        num_classes: the background, which is class 0, included.

    Returns:
        `ap`, the mean over IoUs of 0.5 to 0.95, `ap50`, `ap75`, `ap_small`, `ap_medium` and
        `ap_large`, each from 0 to 1; -1 if there are no such objects.

    Raises:
        UserError: pycocotools is not installed.
    """
    frame = {
        "images": [{"id": number} for number in range(len(objects))],
        "categories": [{"id": label} for label in range(1, num_classes)],
    }
    truth = indexed(frame | {"annotations": _annotations(objects)})
    found = indexed(frame | {"annotations": _annotations(detections)})
    figures = summary(truth, found, "bbox")
    return {name: figures[place] for name, place in COCO_FIGURES.items()}


def _annotations(images: Sequence[Boxes]) -> list[dict]:
    """Objects or detections of images as COCO has them, numbered from 1, for 0 is none to it."""
    annotations = []
    for number, boxes in enumerate(images):
        corners = boxes["boxes"].detach().cpu().double()
        sizes = corners[:, 2:] - corners[:, :2]
        areas = boxes.get("area", sizes.prod(dim=1)).tolist()
        crowds = boxes["ignored"].tolist() if "ignored" in boxes else [False] * len(sizes)
        scores = boxes["scores"].tolist() if "scores" in boxes else [1.0] * len(sizes)
        labels = boxes["labels"].tolist()
        for index, box in enumerate(torch.cat([corners[:, :2], sizes], dim=1).tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": labels[index],
                    "bbox": box,
                    "area": areas[index],
                    "iscrowd": int(crowds[index]),
                    "score": scores[index],
                }
            )
    return annotations
