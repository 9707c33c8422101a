"""Images with label maps: Cityscapes (Cordts et al., 2016, arXiv:1604.01685) as it comes on disk.

Images are `leftImg8bit/SPLIT/[CITY/]NAME_leftImg8bit.png`, their label maps
`gtFine/SPLIT/[CITY/]NAME_gtFine_labelIds.png`; with or without folders for the cities.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataset.decoding import UNREADABLE, open_image, to_rgb
from runtime.errors import UserError
from transfer.segmentation.loss import IGNORED

IMAGES = ("leftImg8bit", "_leftImg8bit.png")
"""The folder of the images, and what their names end with."""

LABEL_MAPS = ("gtFine", "_gtFine_labelIds.png")

LABELS = 34
"""Label ids of Cityscapes go from 0 to 33; in 8 bits −1, the licence plates, is 255."""


class PixelClass(NamedTuple):
    """A class of pixels: its name, its id in label maps, its colour in pictures (RGB)."""

    name: str
    label: int
    colour: tuple[int, int, int]


CITYSCAPES_CLASSES = (
    PixelClass("road", 7, (128, 64, 128)),
    PixelClass("sidewalk", 8, (244, 35, 232)),
    PixelClass("building", 11, (70, 70, 70)),
    PixelClass("wall", 12, (102, 102, 156)),
    PixelClass("fence", 13, (190, 153, 153)),
    PixelClass("pole", 17, (153, 153, 153)),
    PixelClass("traffic light", 19, (250, 170, 30)),
    PixelClass("traffic sign", 20, (220, 220, 0)),
    PixelClass("vegetation", 21, (107, 142, 35)),
    PixelClass("terrain", 22, (152, 251, 152)),
    PixelClass("sky", 23, (70, 130, 180)),
    PixelClass("person", 24, (220, 20, 60)),
    PixelClass("rider", 25, (255, 0, 0)),
    PixelClass("car", 26, (0, 0, 142)),
    PixelClass("truck", 27, (0, 0, 70)),
    PixelClass("bus", 28, (0, 60, 100)),
    PixelClass("train", 31, (0, 80, 100)),
    PixelClass("motorcycle", 32, (0, 0, 230)),
    PixelClass("bicycle", 33, (119, 11, 32)),
)
"""In the order of the network's classes. All other label ids are `IGNORED`."""


class LabelledImages(Protocol):
    """Images whose pixels have classes: `Cityscapes`, or `MadeShapes`.

    Attributes:
        classes: in the order of their numbers.
    """

    classes: tuple[PixelClass, ...]

    def __len__(self) -> int:
        """Number of images."""

    def name(self, index: int) -> str:
        """An image's name, without a suffix; no two have the same."""

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """An image, uint8 RGB (3, H, W), and its classes, uint8 (H, W), `IGNORED` for none.

        Raises:
            UserError: one of its files cannot be used; names it.
        """


class Cityscapes:
    """A split of Cityscapes (see `LabelledImages`).

    Args:
        root: the folder with `leftImg8bit` and `gtFine`.
        split: "train" or "val".

    Raises:
        UserError: there are no images, or one has no label map, or a label map no image; names it.
    """

    classes = CITYSCAPES_CLASSES

    def __init__(self, root: Path, split: str) -> None:
        images, label_maps = (
            _files_by_name(Path(root) / folder / split, suffix)
            for folder, suffix in (IMAGES, LABEL_MAPS)
        )
        for name in sorted(images.keys() ^ label_maps.keys()):
            if name in images:
                lacking = f"label map ({name}{LABEL_MAPS[1]} in {root}/{LABEL_MAPS[0]}/{split})"
                raise UserError(f"{images[name]}: has no {lacking}; add it, or remove the image")
            lacking = f"image ({name}{IMAGES[1]} in {root}/{IMAGES[0]}/{split})"
            raise UserError(
                f"{label_maps[name]}: has no {lacking}; add it, or remove the label map"
            )
        self._names = sorted(images)
        self._images, self._label_maps = images, label_maps

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        name = self._names[index]
        image = read_image(self._images[name])
        return image, read_label_map(self._label_maps[name], image.shape[1:])


def _files_by_name(folder: Path, suffix: str) -> dict[str, Path]:
    """The files in `folder` and the folders in it whose names end with `suffix`, without it."""
    described = f"*{suffix}, in folders for cities or without"
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder; it should hold Cityscapes' {described}")
    files: dict[str, Path] = {}
    for pattern in (f"*{suffix}", f"*/*{suffix}"):
        for file in folder.glob(pattern):
            if file.name.startswith("."):  # macOS leaves such beside files
                continue
            name = file.name.removesuffix(suffix)
            if name in files:
                raise UserError(f"{file}: is in {files[name].parent}, too; remove one of them")
            files[name] = file
    if not files:
        raise UserError(f"{folder}: has no {described}; put them there")
    return files


def read_image(file: Path) -> Tensor:
    """An image file as uint8 RGB (3, H, W).

    Raises:
        UserError: it cannot be read; names it.
    """
    try:
        with open_image(file) as image:
            pixels = np.array(to_rgb(image))
    except UNREADABLE as error:
        raise _unreadable(file, error) from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_label_map(file: Path, size: torch.Size) -> Tensor:
    """The classes in a file of Cityscapes' label ids.

    Args:
        size: height and width that it must have: those of its image.

    Returns:
        uint8 (H, W), `IGNORED` for labels that are not among the classes.

    Raises:
        UserError: it cannot be read, is no label map or of another size, or has a label that
            Cityscapes has not; names it.
    """
    try:
        with open_image(file) as image:
            mode = image.mode
            labels = np.array(image) if mode in ("L", "P") else None
    except UNREADABLE as error:
        raise _unreadable(file, error) from None
    if labels is None:
        raise UserError(
            f"{file}: is no label map, but an image in mode {mode}; label maps have one byte a "
            f"pixel, the label's id, as Cityscapes' *{LABEL_MAPS[1]}"
        )
    if labels.shape != tuple(size):
        height, width = labels.shape
        raise UserError(
            f"{file}: a label map of {width}×{height} pixels, while its image has "
            f"{size[1]}×{size[0]}; give the label map of that image"
        )
    unknown = np.unique(labels[(labels >= LABELS) & (labels != IGNORED)])
    if len(unknown):
        raise UserError(
            f"{file}: has the label {unknown[0]}, but Cityscapes' go from 0 to {LABELS - 1}; give "
            f"its *{LABEL_MAPS[1]}"
        )
    return torch.from_numpy(_CLASS_OF_LABEL[labels])


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: not an image that can be read ({error}); mend or remove it")


def class_of_label(classes: tuple[PixelClass, ...]) -> np.ndarray:
    """The number of the class that each of 256 label ids stands for, uint8, or `IGNORED`."""
    table = np.full(256, IGNORED, dtype=np.uint8)
    for number, pixel_class in enumerate(classes):
        table[pixel_class.label] = number
    return table


_CLASS_OF_LABEL = class_of_label(CITYSCAPES_CLASSES)


def label_map(predicted: Tensor, classes: tuple[PixelClass, ...]) -> Image.Image:
    """A picture whose pixels are label ids, as Cityscapes' evaluation takes it (mode L).

    Args:
        predicted: integers (H, W), a class.
    """
    labels = np.array([pixel_class.label for pixel_class in classes], dtype=np.uint8)
    return Image.fromarray(labels[predicted.cpu().numpy()])
