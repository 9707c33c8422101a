"""Images and their objects for training and testing: decoding, and augmentation."""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from dataset.decoding import UNREADABLE, open_image, to_rgb
from runtime.errors import UserError
from transfer.detection.annotations import Annotated

BRIGHTNESS_SHIFT = 32
"""Most that is added to all pixels of an image, or taken from them, of 255."""

CROP_IOUS = (1.0, 0.1, 0.3, 0.7, 0.9, 0.0)
"""Least IoUs of a crop and some object, one drawn at a time; 1 is no crop, 0 is any."""

CROP_TRIALS = 50

SMALLEST_SIDE_TO_CROP = 4
"""In pixels; a crop's sides are at least 0.3 of the image's, and may not be 0."""

Sample = tuple[Tensor, dict[str, Tensor]]


def read_sample(annotated: Annotated, training: bool) -> Sample:
    """Decode an image.

    Boxes are cut off at the image's border; those without area are left out. In training so are the
    ignored ones.

    Returns:
        The image, uint8 (3, H, W), and its target: `boxes`, float32 (n, 4) as x1, y1, x2, y2 in
        pixels, `labels`, int64 (n,), `ignored`, bool (n,), and `area`, float32 (n,).

    Raises:
        UserError: the image cannot be read, or has another size than its annotation says.
    """
    try:
        with open_image(annotated.file) as image:
            pixels = np.array(to_rgb(image))
    except UNREADABLE as error:
        raise UserError(
            f"image {annotated.file}: cannot be read ({error}); mend or remove it"
        ) from None
    height, width = pixels.shape[:2]
    if annotated.size not in (None, (width, height)):
        raise UserError(
            f"image {annotated.file}: has {width}×{height} pixels, not "
            f"{annotated.size[0]}×{annotated.size[1]}, as its annotation says; mend that"
        )
    corners = torch.tensor(annotated.boxes, dtype=torch.float32).view(-1, 4)
    corners = corners.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    ignored = torch.tensor(annotated.ignored, dtype=torch.bool)
    kept = (corners[:, 2:] > corners[:, :2]).all(dim=1)
    if training:
        kept &= ~ignored
    target = {
        "boxes": _bounding_boxes(corners[kept], height, width),
        "labels": torch.tensor(annotated.labels, dtype=torch.int64)[kept],
        "ignored": ignored[kept],
        "area": torch.tensor(annotated.areas, dtype=torch.float32)[kept],
    }
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()), target


def _bounding_boxes(corners: Tensor, height: int, width: int) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(height, width))


class RandomBrightness(nn.Module):
    """Adds the same number to all pixels of every other image, uint8 (3, H, W)."""

    def forward(self, image: Tensor, target: dict) -> tuple[Tensor, dict]:
        if torch.rand(()) < 0.5:
            shift = (2 * torch.rand(()) - 1) * BRIGHTNESS_SHIFT
            shifted = (image.float() + shift).round().clamp(0, 255).to(torch.uint8)
            image = tv_tensors.wrap(shifted, like=image)
        return image, target


@cache
def _before_crop() -> v2.Compose:
    return v2.Compose(
        [
            RandomBrightness(),
            # Brightness by a factor is torchvision's; the published one is a sum.
            v2.RandomPhotometricDistort(brightness=(1, 1), p=0.5),
            v2.RandomZoomOut(fill=127, side_range=(1, 4), p=0.5),
        ]
    )


@cache
def _crop(as_published: bool) -> v2.RandomIoUCrop:
    ious = [0.0 if as_published and iou < 1 else iou for iou in CROP_IOUS]
    return v2.RandomIoUCrop(sampler_options=ious, trials=CROP_TRIALS)


@cache
def _after_crop(image_size: int) -> v2.Compose:
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            # As the network resizes: a shrunken image is not smoothed.
            v2.Resize((image_size, image_size), antialias=False),
        ]
    )


def augment(
    image: Tensor, target: dict[str, Tensor], image_size: int, seed: int, as_published: bool = False
) -> Sample:
    """Change the colours, zoom out, crop, flip and resize an image for training (SSD, section 2.2).

    Objects whose centres are outside of the crop are left out, and so are those of which less
    than a pixel remains.

    Args:
        image, target: as from `read_sample`.
        image_size: height and width of the result.
        seed: of all random numbers; the process's own generator is left alone.
        as_published: take any crop that has an object's centre in it, as the original's code does,
            whatever least IoU is drawn.

    Returns:
        The image, uint8 (3, image_size, image_size), and the `boxes` and `labels` of its target.
    """
    target = {name: target[name] for name in ("boxes", "labels")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image, target = _before_crop()(image, target)
        # Without an object to keep, trials would go on until no crop is drawn.
        if len(target["labels"]) and min(image.shape[1:]) >= SMALLEST_SIDE_TO_CROP:
            image, target = v2.SanitizeBoundingBoxes()(*_crop(as_published)(image, target))
        image, target = _after_crop(image_size)(image, target)
    # The loss refuses boxes without area, to which rounding may have brought one.
    return v2.SanitizeBoundingBoxes()(image, target)
