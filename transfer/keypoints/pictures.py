"""Pictures of people with the joints that were found in them."""

import numpy as np
from PIL import Image, ImageDraw

from transfer.keypoints.evaluation import LEAST_JOINT_SCORE
from transfer.keypoints.targets import JOINT_NAMES

BONES = (
    (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15),
    (12, 14), (14, 16),
)  # fmt: skip
"""Pairs of joints that a line is drawn between."""

COLOURS = {"left": (80, 255, 80), "right": (255, 80, 80)}

OTHERWISE = (255, 255, 80)
"""The colour of the nose, and of lines between left and right."""


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
