"""A made set that needs no download: stick figures with COCO's 17 joints.

All of them face the viewer, so that their left is on the right of the image, as it stays when they
are mirrored.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from transfer.keypoints.annotations import Annotations, People, parse_annotations, true_people
from transfer.keypoints.evaluation import PERSON
from transfer.keypoints.network import JOINTS
from transfer.keypoints.pictures import BONES

Figure = tuple[np.ndarray, np.ndarray]
"""Joints, float64 (17, 2), and the box around all of it, float64 (4,): left, top, width, height."""

SPLITS = {"train": (800, 0), "val": (60, 1)}
"""Number of images and seed of the set that the scripts train and test on."""

IMAGE_SIZE = (160, 160)
"""Width and height in pixels."""

FIGURE_HEIGHT = (70, 120)
"""From head to feet when standing upright, in pixels: least and most."""

MOST_FIGURES = 2
"""In an image; there is at least one."""

LARGEST_SHARE = 0.3
"""A figure is drawn where its box shares at most this part with that of another."""

ATTEMPTS = 20
"""So many figures and places for them are tried in an image."""

FILLED = 0.5
"""Area of a figure as a part of its box's, about as with COCO's people."""

LEFT = {"arm": (5, 7, 9), "leg": (11, 13, 15)}
"""A limb's joints, from the body outwards; the right ones have the next numbers."""

LENGTHS = {"arm": (0.17, 0.15), "leg": (0.24, 0.22)}
"""Of a limb's two parts, as parts of the height."""

SPREAD = {"arm": (10.0, 100.0), "leg": (3.0, 40.0)}
"""Degrees that a limb's first part points outwards from straight down: least and most."""

BEND = 45.0
"""Degrees that the second part turns from the first at most, to both sides."""

LEAN = 12.0
"""Degrees that a figure leans at most, to both sides."""


def made_people(images: int, seed: int) -> tuple[Annotations, People]:
    """So many images of stick figures, their annotations and the people in them."""
    annotations, source = made_annotations(images, seed)
    return annotations, true_people(annotations, source)


def made_annotations(images: int, seed: int) -> tuple[Annotations, dict[int, np.ndarray]]:
    """Annotations of so many images of stick figures, and the images by their numbers."""
    pixels, content = made_set(images, seed)
    numbers = [entry["id"] for entry in content["images"]]
    annotations = parse_annotations(content, Path("made set"))
    return annotations, dict(zip(numbers, pixels, strict=True))


def made_set(images: int, seed: int) -> tuple[list[np.ndarray], dict]:
    """Images, uint8 RGB (H, W, 3), and what COCO's annotation file of them would hold."""
    width, height = IMAGE_SIZE
    content = {
        "images": [
            {"id": number, "file_name": f"{number:012}.jpg", "width": width, "height": height}
            for number in range(1, images + 1)
        ],
        "categories": [{"id": PERSON, "name": "person"}],
        "annotations": [],
    }
    pixels = []
    for entry in content["images"]:
        generator = np.random.default_rng((seed, entry["id"]))
        figures = _place_figures(generator)
        pixels.append(_draw(figures, generator))
        for joints, box in figures:
            keypoints = np.column_stack([joints, np.full(JOINTS, 2)])
            content["annotations"].append({
                "id": len(content["annotations"]) + 1,
                "image_id": entry["id"],
                "category_id": PERSON,
                "iscrowd": 0,
                "area": float(FILLED * box[2] * box[3]),
                "bbox": box.tolist(),
                "keypoints": keypoints.ravel().tolist(),
                "num_keypoints": JOINTS,
            })  # fmt: skip
    return pixels, content


def _place_figures(generator: np.random.Generator) -> list[Figure]:
    """The figures of an image, all inside it."""
    wanted = generator.integers(1, MOST_FIGURES + 1)
    figures: list[Figure] = []
    for _ in range(ATTEMPTS):
        joints = _figure(generator)
        margin = 0.06 * (joints[:, 1].max() - joints[:, 1].min())  # the head and thick lines
        low, high = joints.min(axis=0) - margin, joints.max(axis=0) + margin
        moved = generator.random(2) * (np.array(IMAGE_SIZE) - 1 - (high - low)) - low
        box = np.concatenate([low + moved, high - low])
        if all(_share(box, other) <= LARGEST_SHARE for _, other in figures):
            figures.append((joints + moved, box))
        if len(figures) == wanted:
            break
    return figures


def _share(box: np.ndarray, other: np.ndarray) -> float:
    """The part of the smaller of two boxes that lies in the other."""
    low = np.maximum(box[:2], other[:2])
    high = np.minimum(box[:2] + box[2:], other[:2] + other[2:])
    return np.prod(np.maximum(high - low, 0)) / min(np.prod(box[2:]), np.prod(other[2:]))


def _figure(generator: np.random.Generator) -> np.ndarray:
    """Joints (17, 2) of a figure around its neck, in pixels."""
    joints = np.zeros((JOINTS, 2))
    head = np.array([0.0, -0.11])
    joints[0] = head + np.array([0, 0.01])
    joints[1:5] = head + np.array([(0.025, -0.02), (-0.025, -0.02), (0.055, 0), (-0.055, 0)])
    for side, first in ((1, 0), (-1, 1)):
        joints[5 + first] = (side * 0.11, 0.02)
        joints[11 + first] = (side * 0.07, 0.33)
        for limb, (start, *others) in LEFT.items():
            angle = generator.uniform(*SPREAD[limb])
            for before, joint, length in zip((start, *others), others, LENGTHS[limb], strict=False):
                direction = np.array([side * np.sin(np.radians(angle)), np.cos(np.radians(angle))])
                joints[joint + first] = joints[before + first] + length * direction
                angle += generator.uniform(-BEND, BEND)
    lean = np.radians(generator.uniform(-LEAN, LEAN))
    turn = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    return generator.uniform(*FIGURE_HEIGHT) * joints @ turn


def _draw(figures: list[Figure], generator: np.random.Generator) -> np.ndarray:
    """The image of figures: each of one colour, on noise around another colour."""
    width, height = IMAGE_SIZE
    ground = generator.integers(0, 120, 3)
    noise = generator.integers(-15, 16, (height, width, 1))
    image = Image.fromarray((ground + noise).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for joints, box in figures:
        colour = tuple(generator.integers(150, 256, 3).tolist())
        thickness = max(2, round(0.03 * box[3]))
        for first, second in BONES:
            draw.line([*joints[first], *joints[second]], fill=colour, width=thickness)
        neck = (joints[5] + joints[6]) / 2
        middle = (joints[3] + joints[4]) / 2
        draw.line([*neck, *middle], fill=colour, width=thickness)
        radius = np.linalg.norm(joints[3] - joints[4]) / 2
        draw.ellipse([*(middle - radius), *(middle + radius)], fill=colour)
        for joint in (0, 1, 2):
            draw.ellipse([*(joints[joint] - 1), *(joints[joint] + 1)], fill=(0, 0, 0))
    return np.asarray(image)
