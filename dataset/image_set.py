"""Image sets held as one tensor: CIFAR-10, CIFAR-100, the embedded digits, a folder of images."""

import fcntl
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.augmentation import Augmentation
from dataset.image_folder import load_image_folder
from dataset.pixel_statistics import PUBLISHED_STATISTICS, Statistics, statistics_from_dict
from runtime.atomic_file import write_json
from runtime.errors import UserError
from runtime.untrusted import load_json

SET_NAMES = ("cifar10", "cifar100", "digits", "folder")
"""A new set also needs a branch in `load_image_set`, and in `set_augmentation` if its images must
not be mirrored."""

DIGITS_FILE = Path(__file__).parent / "digits.npz"

STATISTICS_FILE = "statistics.json"


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, with their labels.

    Attributes:
        images: uint8 (N, 3, H, W), on the device that keeps the data.
        labels: int64 (N,), on the same device.
        num_classes: number of classes; labels are below it.
        class_names: their names in the labels' order; empty where nobody has named them.
        files: of a whole folder, each image's `<class>/<name>` and the size of its file in bytes.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    class_names: tuple[str, ...] = ()
    files: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Tensor) -> "ImageSet":
        """The images at `indices`, int64 (M,)."""
        indices = indices.to(self.images.device)
        return replace(self, images=self.images[indices], labels=self.labels[indices], files=())

    def to(self, device: torch.device) -> "ImageSet":
        """The same set kept on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def load_image_set(
    name: str, data: str, split: str, image_size: int | None = None, same_classes: bool = True
) -> ImageSet:
    """Load a split, on the CPU.

    Args:
        name: one of `SET_NAMES`.
        data: folder that holds the data set (or takes its download); not used for digits.
        split: "train" or "test".
        image_size: height and width that a folder's images are brought to; 32 if None. The
            other sets have a size of their own.
        same_classes: whether both splits of a folder must have the same classes.

    Raises:
        UserError: the data cannot be found, downloaded or read.
    """
    if name == "folder":
        images, labels, names, files = load_image_folder(
            Path(data), split, image_size or 32, same_classes
        )
        return ImageSet(images, labels, len(names), tuple(names), files)
    if image_size is not None:
        raise UserError("--image_size goes with --set folder; the other sets have their own size")
    if name == "digits":
        return _load_digits(split)
    return _load_cifar(name, data, split)


def image_statistics(name: str, train_set: ImageSet, kept: Path | None = None) -> Statistics:
    """The published mean and standard deviation for CIFAR, else those of the training images.

    Args:
        kept: a JSON file that keeps them: read if it is there, else written.

    Raises:
        UserError: `kept` does not hold them.
    """
    if name in PUBLISHED_STATISTICS:
        return PUBLISHED_STATISTICS[name]
    if kept is not None and kept.exists():
        try:
            return statistics_from_dict(load_json(kept))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{kept}: damaged ({error}); remove it, and it is written anew"
            ) from None
    statistics = _measure_statistics(train_set)
    if kept is not None:
        write_json(kept, asdict(statistics), indent=None)
    return statistics


def _measure_statistics(train_set: ImageSet) -> Statistics:
    total = torch.zeros(3, dtype=torch.float64)
    total_of_squares = torch.zeros(3, dtype=torch.float64)
    for images in train_set.images.split(1024):
        pixels = images.double().cpu() / 255
        total += pixels.sum(dim=(0, 2, 3))
        total_of_squares += pixels.square().sum(dim=(0, 2, 3))
    count = train_set.images.numel() / 3
    mean = total / count
    # A channel without any contrast must not divide by zero.
    std = (total_of_squares / count - mean.square()).clamp(min=1e-6).sqrt()
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()))


def set_augmentation(
    name: str, image_size: int, cutout: bool, cutout_length: int | None = None
) -> Augmentation:
    """The augmentation that suits a set: digits are not mirrored; crops scale with the image.

    So does the cutout square, unless its length in pixels is given.
    """
    if cutout_length is None:
        cutout_length = image_size // 2
    return Augmentation(image_size // 8, name != "digits", cutout_length if cutout else 0)


def _load_digits(split: str) -> ImageSet:
    with np.load(DIGITS_FILE) as archive:
        grey = torch.from_numpy(archive[f"{split}_images"])
        labels = torch.from_numpy(archive[f"{split}_labels"]).long()
    # 8×8 of 17 grey levels to 16×16, three channels.
    scaled = F.interpolate(grey[:, None] * (255 / 16), size=(16, 16), mode="bilinear")
    images = scaled.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return ImageSet(images, labels, 10, tuple("0123456789"))


def _load_cifar(name: str, data: str, split: str) -> ImageSet:
    from torchvision import datasets  # takes a second to import; the other sets do without

    dataset_class = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    train = split == "train"
    try:
        dataset = dataset_class(data, train=train)
    except RuntimeError:  # not there, or not intact
        try:
            os.makedirs(data, exist_ok=True)
            with open(Path(data) / ".download-lock", "w") as lock:
                # One of several processes downloads; the others find it there.
                fcntl.flock(lock, fcntl.LOCK_EX)
                dataset = dataset_class(data, train=train, download=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"--set {name}: {dataset_class.base_folder} was looked for in "
                f"{Path(data).resolve()} and could not be downloaded ({reason}); put it there with "
                "--data, or use --set digits, which needs no download"
            ) from None
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    names = tuple(dataset.classes)
    return ImageSet(images, torch.tensor(dataset.targets), len(names), names)
