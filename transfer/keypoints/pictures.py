"""Pictures of people with the joints that were found in them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from transfer.keypoints.annotations import People
from transfer.keypoints.data import read_image
from transfer.keypoints.evaluation import LEAST_JOINT_SCORE
from transfer.keypoints.network import JOINTS
from transfer.keypoints.targets import JOINT_NAMES
from transfer.pictures import contact_sheet

BONES = (
    (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15),
    (12, 14), (14, 16),
)  # fmt: skip
"""Pairs of joints that a line is drawn between."""

COLOURS = {"left": (80, 255, 80), "right": (255, 80, 80)}

OTHERWISE = (255, 255, 80)
"""The colour of the nose, and of lines between left and right."""


def draw_results(people: People, results: Sequence[Mapping], images: int) -> bytes:
    """The first images that people were found in, and these people, as a PNG file's content.

    Args:
        people: in whose boxes they were found.
        results: in COCO's form, at least one (see `coco_results`).
        images: so many at most.

    Raises:
        UserError: an image cannot be read; names it.
    """
    of_image = defaultdict(list)
    for result in results:
        of_image[result["image_id"]].append(result["keypoints"])
    indices = {image_id: index for index, image_id in enumerate(people.image_ids.tolist())}
    drawn = []
    for image_id in list(of_image)[:images]:
        index = indices[image_id]
        image = read_image(people.images[index], tuple(people.image_sizes[index].tolist()))
        found = np.array(of_image[image_id]).reshape(-1, JOINTS, 3)
        drawn.append(draw_people(image, found[..., :2], found[..., 2]))
    return contact_sheet(drawn)


def draw_people(image: Image.Image, places: np.ndarray, joint_scores: np.ndarray) -> Image.Image:
    """A copy of an image with people's joints and lines between them; left is green, right red.

    Args:
        image: RGB.
        places: (x, y) in its pixels, float (P, 17, 2).
        joint_scores: (P, 17). Joints with one up to 0.2 are left out.
    """
    image = image.copy()
    draw = ImageDraw.Draw(image)
    thickness = max(1, round(max(image.size) / 160))
    for joints, scores in zip(places, joint_scores, strict=True):
        shown = scores > LEAST_JOINT_SCORE
        for first, second in BONES:
            if shown[first] and shown[second]:
                same = _colour(first) == _colour(second)
                colour = _colour(first) if same else OTHERWISE
                draw.line([*joints[first], *joints[second]], fill=colour, width=thickness)
        for joint in np.flatnonzero(shown):
            corners = [*(joints[joint] - thickness), *(joints[joint] + thickness)]
            draw.ellipse(corners, fill=_colour(joint))
    return image


def _colour(joint: int) -> tuple[int, int, int]:
    return COLOURS.get(JOINT_NAMES[joint].split()[0], OTHERWISE)
