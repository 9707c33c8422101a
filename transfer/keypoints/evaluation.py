"""How good found joints are: object keypoint similarity (OKS), and COCO's average precision by it.

Results and annotations are in COCO's form (https://cocodataset.org/#format-results).
"""

import contextlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transfer.coco import indexed, summary

SIGMAS = np.array([
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
])  # fmt: skip
"""How far apart people put each of COCO's joints, as a part of the square root of the area."""

LEAST_JOINT_SCORE = 0.2
"""Joints with a higher score count in a person's."""

SAME_PERSON = 0.9
"""Of people found in an image who are more similar than this, the one with the best score stays."""

PERSON = 1
"""COCO's category."""

FIGURES = (
    "AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large"
)  # fmt: skip
"""What COCO measures, in its order: average precision and recall."""


@dataclass(frozen=True)
class FoundPeople:
    """Joints found in boxes, those of any number of images.

    Attributes:
        image_ids: of the boxes' images, int64 (P,).
        places: (x, y) in the image's pixels, float64 (P, joints, 2).
        joint_scores: float (P, joints).
        box_scores: of the detector, 1 for true boxes, float (P,).
        areas: of the crops, in pixels, float (P,).
    """

    image_ids: np.ndarray
    places: np.ndarray
    joint_scores: np.ndarray
    box_scores: np.ndarray
    areas: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """The box's times the mean of the joint scores above 0.2; 0 if there are none. (P,)."""
        sure = self.joint_scores > LEAST_JOINT_SCORE
        sums = (self.joint_scores * sure).sum(axis=1)
        return self.box_scores * sums / np.maximum(sure.sum(axis=1), 1)


def object_keypoint_similarity(
    places: np.ndarray, others: np.ndarray, areas: np.ndarray, other_areas: np.ndarray
) -> np.ndarray:
    """The similarity of each person to each other: from 0 to 1, the mean over the joints.

    Args:
        places, others: (x, y), float (P, 17, 2) and (Q, 17, 2).
        areas, other_areas: (P,) and (Q,), of which each pair has the mean.

    Returns:
        float64 (P, Q).
    """
    squares = np.square(places[:, None] - others[None]).sum(axis=3)
    mean_areas = (areas[:, None] + other_areas[None]) / 2
    widths = 2 * np.square(2 * SIGMAS) * (mean_areas[..., None] + np.spacing(1))
    return np.exp(-squares / widths).mean(axis=2)


def keep_different_people(
    places: np.ndarray, scores: np.ndarray, areas: np.ndarray, most_similar: float = SAME_PERSON
) -> list[int]:
    """Non-maximum suppression by OKS, of people found in one image.

    Args:
        places: (x, y), float (P, 17, 2).
        scores, areas: float (P,).
        most_similar: who is more similar than this to somebody with a higher score is left out.

    Returns:
        Who stays, by falling score.
    """
    similarity = object_keypoint_similarity(places, places, areas, areas)
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if all(similarity[index, other] <= most_similar for other in kept):
            kept.append(index)
    return kept


def coco_results(found: FoundPeople, most_similar: float = SAME_PERSON) -> list[dict]:
    """COCO's results of the people found, less those found twice.

    Everybody of an image must be in `found`; in the order of the boxes, for that decides ties.
    """
    of_image = defaultdict(list)
    for index, image_id in enumerate(found.image_ids.tolist()):
        of_image[image_id].append(index)
    scores = found.scores
    results = []
    for image_id, indices in of_image.items():
        kept = keep_different_people(
            found.places[indices], scores[indices], found.areas[indices], most_similar
        )
        for index in (indices[position] for position in kept):
            joints = np.column_stack([found.places[index], found.joint_scores[index]])
            results.append({
                "image_id": image_id,
                "category_id": PERSON,
                "keypoints": joints.ravel().tolist(),
                "score": float(scores[index]),
            })  # fmt: skip
    return results


def average_precision(
    images: Sequence[Mapping], annotations: Sequence[Mapping], results: Sequence[Mapping]
) -> dict[str, float]:
    """COCO's figures for keypoints, from 0 to 1, by pycocotools.

    Args:
        images, annotations: as in COCO's files. Crowds and people without labelled joints are
            neither missed nor found wrongly.
        results: see `coco_results`; of these images only.

    Returns:
        The figures of `FIGURES`, less those of sizes of which there is nobody.

    Raises:
        UserError: pycocotools is not installed.
    """
    content = {
        "info": {},
        "images": list(map(dict, images)),
        "categories": [{"id": PERSON, "name": "person"}],
        "annotations": list(map(dict, annotations)),  # pycocotools writes into them
    }
    truth = indexed(content)
    if results:
        with contextlib.redirect_stdout(io.StringIO()):
            found = truth.loadRes(list(map(dict, results)))
    else:  # pycocotools cannot load none
        found = indexed(content | {"annotations": []})
    figures = zip(FIGURES, summary(truth, found, "keypoints"), strict=True)
    return {name: value for name, value in figures if value >= 0}
