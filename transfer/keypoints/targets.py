"""From joints to heatmaps and back: crops, targets, loss, decoding.

Places are (x, y) in pixels, whole numbers in the middle of one, so that (0, 0) is the middle of the
first. A crop is what the network sees of an image: a centre and a size, both (x, y) in the image's
pixels, and in training a rotation.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from transfer.keypoints.network import HEATMAP_STRIDE

JOINT_NAMES = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder",
    "left elbow", "right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee",
    "right knee", "left ankle", "right ankle",
)  # fmt: skip
"""COCO's, in their order."""

MIRRORED = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
"""What each joint is in the mirrored image: left and right change places."""

MARGIN = 1.25
"""Sides of a crop over those of the box it is made for."""

SIGMA = 2.0
"""Standard deviation of a joint's Gaussian, in pixels of the heatmap."""

RADIUS = 6
"""It is cut off so many pixels from its centre on each side: at 3 σ."""

FOUND_WITHIN = 0.05
"""A joint counts as found if it is nearer than this part of the heatmap's sides."""


def boxes_to_crops(boxes: Tensor, aspect_ratio: float) -> tuple[Tensor, Tensor]:
    """The crops around boxes: widened to the network's shape, and by a margin.

    Args:
        boxes: float (N, 4): left, top, width, height, in pixels.
        aspect_ratio: width over height of the network's images.

    Returns:
        Centres and sizes, float (N, 2).
    """
    corners, sides = boxes[:, :2], boxes[:, 2:]
    widths = torch.maximum(sides[:, 0], aspect_ratio * sides[:, 1])
    sizes = torch.stack([widths, widths / aspect_ratio], dim=1)
    return corners + sides / 2, MARGIN * sizes


def crop_map(
    centre: np.ndarray, size: np.ndarray, output_size: tuple[int, int], degrees: float = 0.0
) -> np.ndarray:
    """The affine map from an image's places to those of a crop of it.

    Args:
        centre, size: of the crop, float (2,).
        output_size: width and height of the cropped image.
        degrees: what is seen in the crop is turned by, counter-clockwise.

    Returns:
        float64 (2, 3), for `map_places`.
    """
    scale = output_size[0] / size[0]
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    turn = np.array([[cosine, sine], [-sine, cosine]])
    offset = np.array(output_size) / 2 - turn @ centre
    return np.column_stack([turn, offset])


def inverse_map(affine: np.ndarray) -> np.ndarray:
    """The affine map back, float64 (2, 3)."""
    return np.linalg.inv(np.vstack([affine, [0, 0, 1]]))[:2]


def map_places(affine: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Places (..., 2) by an affine map (2, 3)."""
    return places @ affine[:, :2].T + affine[:, 2]


def heatmap_targets(
    joints: Tensor, visible: Tensor, heatmap_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """What the heatmaps should be: a Gaussian with maximum 1 around each joint.

    Its centre is rounded to a pixel. As in the original, that is towards 0 in the half of a
    heatmap's pixel that lies outside the image.

    Args:
        joints: places in the network's images, float (N, joints, 2).
        visible: whether they are known, bool (N, joints).
        heatmap_size: width and height.

    Returns:
        Heatmaps, float32 (N, joints, height, width), and weights, float32 (N, joints): 1, or 0 for
        joints that are not known or too far outside.
    """
    centres = (joints / HEATMAP_STRIDE + 0.5).trunc()
    size = torch.tensor(heatmap_size, device=joints.device)
    # Some pixel of the square around the centre is in the heatmap.
    inside = ((centres >= -RADIUS) & (centres < size + RADIUS)).all(dim=2)
    weights = (inside & visible).float()
    columns, rows = (
        _gaussian(side, centres[..., axis : axis + 1]) for axis, side in enumerate(heatmap_size)
    )
    heatmaps = rows.unsqueeze(3) * columns.unsqueeze(2)
    return heatmaps * weights.view(*weights.shape, 1, 1), weights


def _gaussian(side: int, centres: Tensor) -> Tensor:
    """One along a side of the heatmap: centres (..., 1) to float32 (..., side)."""
    distances = torch.arange(side, device=centres.device) - centres
    values = torch.exp(-distances.square() / (2 * SIGMA**2))
    return torch.where(distances.abs() <= RADIUS, values, 0.0).float()


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Half of the mean squared error, joints of weight 0 counted as right: a scalar.

    Args:
        heatmaps, targets: (N, joints, height, width).
        weights: (N, joints).
    """
    differences = (heatmaps - targets) * weights.view(*weights.shape, 1, 1)
    return 0.5 * differences.square().mean()


def predict_heatmaps(network: nn.Module, images: Tensor, flip: bool = True) -> Tensor:
    """A network's heatmaps, by default averaged with those of the mirrored images.

    Args:
        network: maps images (N, 3, H, W) to heatmaps (N, 17, H/4, W/4).
    """
    heatmaps = network(images)
    return average_with_mirrored(heatmaps, network(images.flip(3))) if flip else heatmaps


def average_with_mirrored(heatmaps: Tensor, of_mirrored: Tensor) -> Tensor:
    """Average of heatmaps with those of the mirrored images, all (N, 17, height, width)."""
    back = of_mirrored.flip(3)[:, list(MIRRORED)]
    # A heatmap's pixel x stands for 4x in the image. Mirrored it stands for 4x + 3.
    back = torch.cat([back[..., :1], back[..., :-1]], dim=3)
    return (heatmaps + back) / 2


def find_maxima(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """The place of each heatmap's maximum and the maximum.

    Args:
        heatmaps: (N, joints, height, width).

    Returns:
        Places (x, y), int64 (N, joints, 2), (0, 0) where no value is above 0; values (N, joints).
    """
    scores, positions = heatmaps.flatten(2).max(dim=2)
    width = heatmaps.shape[3]
    places = torch.stack([positions % width, positions // width], dim=2)
    return places * (scores > 0).unsqueeze(2), scores


def decode_heatmaps(
    heatmaps: Tensor, centres: Tensor, sizes: Tensor, quarter_offset: bool = True
) -> tuple[Tensor, Tensor]:
    """Where the joints are in the images that the crops were made of.

    Args:
        heatmaps: (N, joints, height, width).
        centres, sizes: of the crops, (N, 2).
        quarter_offset: whether to move from the maximum a quarter of a pixel towards its higher
            neighbour, on each axis.

    Returns:
        Places, float64 (N, joints, 2), and scores (N, joints): the maxima.
    """
    found, scores = find_maxima(heatmaps)
    places = found.double()
    if quarter_offset:
        places += 0.25 * _towards_higher_neighbours(heatmaps, found)
    height, width = heatmaps.shape[2:]
    middle = torch.tensor([width / 2, height / 2], dtype=torch.float64, device=heatmaps.device)
    scale = sizes[:, 0].double() / width
    return centres.double().unsqueeze(1) + (places - middle) * scale.view(-1, 1, 1), scores


def _towards_higher_neighbours(heatmaps: Tensor, places: Tensor) -> Tensor:
    """-1, 0 or 1 on each axis, (N, joints, 2); 0 near the edge, where the published way has it."""
    height, width = heatmaps.shape[2:]
    x, y = places.unbind(dim=2)
    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    flat = heatmaps.flatten(2)

    def at(across: int, down: int) -> Tensor:
        neighbours = torch.where(inner, (y + down) * width + x + across, 0)
        return flat.gather(2, neighbours.unsqueeze(2)).squeeze(2)

    slopes = torch.stack([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)], dim=2)
    return slopes.sign() * inner.unsqueeze(2)


def count_found(heatmaps: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """How many of each joint are found: near the target's maximum.

    Args:
        heatmaps, targets: (N, joints, height, width).

    Returns:
        Found and known, int64 (joints,). Targets without a maximum do not count, nor, as
        published, those in the first two rows or columns.
    """
    places, _ = find_maxima(heatmaps)
    expected, _ = find_maxima(targets)
    known = (expected > 1).all(dim=2)
    height, width = heatmaps.shape[2:]
    sides = torch.tensor([width, height], device=heatmaps.device)
    near = ((places - expected) / sides).norm(dim=2) < FOUND_WITHIN
    return (near & known).sum(dim=0), known.sum(dim=0)


class JointSums:
    """Loss and joints found over batches, summed on the device without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def update(self, loss: Tensor, heatmaps: Tensor, targets: Tensor) -> None:
        """Count a batch: its `loss` (scalar), `heatmaps` and `targets` as for `heatmap_loss`."""
        found, known = count_found(heatmaps, targets)
        count = torch.full_like(loss, len(heatmaps))
        self.sums += torch.stack([loss * len(heatmaps), found.sum(), known.sum(), count]).detach()

    def result(self) -> dict[str, float]:
        """Mean `loss`, joints `found` in percent of those known, `count`. Waits for the device."""
        loss, found, known, count = self.sums.tolist()
        percent = 100 * found / max(known, 1)
        return {"loss": loss / count, "found": percent, "count": round(count)}
