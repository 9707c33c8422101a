"""Batches of people, cropped out of their images and in training augmented.

Worker processes hand over uint8 pixels and the joints' places in them; normalisation and heatmaps
are left to the device. The random numbers of a batch are drawn for the whole of it, from the run's
seed, the epoch and the step, so that neither the number of workers nor that of processes changes
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dataset.augmentation import normalize
from dataset.batching import Batching
from dataset.decoding import UNREADABLE, open_image, to_rgb
from dataset.pixel_statistics import Statistics
from dataset.workers import loaded_batches
from runtime.errors import UserError
from transfer.keypoints.annotations import People
from transfer.keypoints.evaluation import FoundPeople
from transfer.keypoints.network import COARSEST_STRIDE
from transfer.keypoints.targets import MIRRORED, boxes_to_crops, crop_map, inverse_map, map_places
from utils import derive_seed


@dataclass(frozen=True)
class Augmentation:
    """What is done to crops in training.

    Attributes:
        scale: the crop's size is multiplied by a factor from N(1, scale), clipped to 1 ± scale.
        rotation: degrees; the angle is from N(0, rotation), clipped to twice that on both sides.
        rotated: the part of the crops that are turned.
        flipped: the part of the crops that are mirrored.
    """

    scale: float = 0.3
    rotation: float = 40.0
    rotated: float = 0.6
    flipped: float = 0.5


@dataclass(frozen=True)
class Loading:
    """How people become batches.

    Attributes:
        image_size: width and height of the crops, multiples of 32.
        statistics: of the normalisation.
        batching: the batches, and this process's part of them.
        workers: processes that decode for this one; 0: it decodes itself.
        augmentation: of training.
        bgr: the channels come as blue, green, red, and are normalised by the statistics of red,
            green, blue. So the published network was trained.

    Raises:
        UserError: a side of `image_size` is no multiple of 32.
    """

    image_size: tuple[int, int]
    statistics: Statistics
    batching: Batching
    workers: int
    augmentation: Augmentation = Augmentation()
    bgr: bool = False

    def __post_init__(self) -> None:
        if any(side % COARSEST_STRIDE or side <= 0 for side in self.image_size):
            raise UserError(
                f"images of {self.image_size[0]}×{self.image_size[1]} pixels: width and height "
                f"must be multiples of {COARSEST_STRIDE}, such as 192×256"
            )


class Crop(NamedTuple):
    """What to cut out of an image: a centre and a size, float64 (2,), and what is done to it.

    Attributes:
        degrees: what is seen is turned by, counter-clockwise.
        mirrored: it is mirrored left to right, before that.
    """

    centre: np.ndarray
    size: np.ndarray
    degrees: float = 0.0
    mirrored: bool = False


class CroppedPeople(NamedTuple):
    """What is known of the people in a batch of images, on the device.

    Attributes:
        joints: places in these images, float32 (n, 17, 2).
        visible: whether a joint is labelled, bool (n, 17); for detected boxes none is.
        centres, sizes: of the crops, float64 (n, 2), as `decode_heatmaps` needs them.
        indices: of the people, int64 (n,).
    """

    joints: Tensor
    visible: Tensor
    centres: Tensor
    sizes: Tensor
    indices: Tensor


@dataclass(frozen=True)
class PeopleBatches:
    """People to train on and people to validate on, in batches (see `dataset.batching.Batches`)."""

    train_people: People
    validation_people: People
    loading: Loading

    @property
    def steps(self) -> int:
        return self.loading.batching.steps(len(self.train_people))

    def training_batches(
        self, seed: int, first_step: int = 0
    ) -> Iterator[tuple[Tensor, CroppedPeople]]:
        return training_batches(self.train_people, self.loading, seed, first_step)

    def validation_batches(self) -> Iterator[tuple[Tensor, CroppedPeople]]:
        return evaluation_batches(self.validation_people, self.loading)


def training_batches(
    people: People, loading: Loading, seed: int, first_step: int = 0
) -> Iterator[tuple[Tensor, CroppedPeople]]:
    """This process's part of one pass in random order, augmented.

    Args:
        seed: the epoch's.
        first_step: number of batches to leave out at the start.

    Yields:
        Images, float32 (n, 3, H, W), normalised, channels last in memory, and who is in them, on
        the device.

    Raises:
        UserError: an image cannot be read or is not of the size that its annotations say; names
            it. Or a worker died.
    """
    order = np.random.default_rng(derive_seed(seed, 1)).permutation(len(people))
    size = loading.batching.batch_size
    batches = [
        order[step * size : (step + 1) * size]
        for step in range(loading.batching.steps(len(people)))
    ]
    return _load(people, loading, batches, seed, first_step)


def evaluation_batches(people: People, loading: Loading) -> Iterator[tuple[Tensor, CroppedPeople]]:
    """This process's part of one pass in order; each person once over all processes.

    Yields and raises as `training_batches`.
    """
    own = np.arange(len(people))[loading.batching.own_part]
    size = loading.batching.size_of_own
    batches = [own[start : start + size] for start in range(0, len(own), size)]
    return _load(people, loading, batches)


def people_found(
    people: People, indices: np.ndarray, sizes: np.ndarray, places: np.ndarray, scores: np.ndarray
) -> FoundPeople:
    """What `decode_heatmaps` found, in the order of `people`, for `coco_results`.

    Args:
        indices: of the people, int (n,), in any order: several processes' one after the other.
        sizes: of their crops, (n, 2).
        places, scores: of their joints, (n, 17, 2) and (n, 17).
    """
    order = np.argsort(indices)
    indices = indices[order]
    return FoundPeople(
        people.image_ids[indices],
        places[order],
        scores[order],
        people.box_scores[indices],
        sizes[order].prod(axis=1),
    )


def _load(
    people: People,
    loading: Loading,
    batches: list[np.ndarray],
    seed: int | None = None,
    first: int = 0,
) -> Iterator[tuple[Tensor, CroppedPeople]]:
    """Items of `CropBatches` on the device, from batch `first` on, their images normalised."""
    device = loading.batching.device
    mean, std = loading.statistics.tensors(device)
    crops = CropBatches(people, loading, batches, seed)
    for pixels, *others in loaded_batches(crops, loading.workers, device, first):
        yield normalize(pixels.permute(0, 3, 1, 2), mean, std), CroppedPeople(*others)


class CropBatches(Dataset):
    """Batches of crops.

    An item is pixels, uint8 (n, H, W, 3); the joints' places in them, float32 (n, 17, 2); whether
    they are labelled, bool (n, 17); centres and sizes of the crops, float64 (n, 2); numbers of the
    people, int64 (n,). Or the `UserError` that kept an image from being read.

    Args:
        batches: the people in each batch, int64 (n,): those of all processes if they are augmented.
        seed: of the augmentation; None: none.
    """

    def __init__(
        self, people: People, loading: Loading, batches: list[np.ndarray], seed: int | None
    ) -> None:
        self.people = people
        self.loading = loading
        self.batches = batches
        self.seed = seed
        width, height = loading.image_size
        crops = boxes_to_crops(torch.from_numpy(people.boxes), width / height)
        self.centres, self.sizes = (tensor.numpy() for tensor in crops)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, ...] | UserError:
        indices = self.batches[number]
        crops = [Crop(self.centres[index], self.sizes[index]) for index in indices]
        if self.seed is not None:
            generator = np.random.default_rng(derive_seed(self.seed, 2, number))
            crops = augment(crops, self.loading.augmentation, generator)
            own = self.loading.batching.own_part
            indices, crops = indices[own], crops[own]
        try:
            cut = [self._cut(index, crop) for index, crop in zip(indices, crops, strict=True)]
        except UserError as error:
            return error
        pixels, joints, visible = (np.stack(each) for each in zip(*cut, strict=True))
        return (
            torch.from_numpy(pixels),
            torch.from_numpy(joints).float(),
            torch.from_numpy(visible),
            torch.from_numpy(np.stack([crop.centre for crop in crops])),
            torch.from_numpy(np.stack([crop.size for crop in crops])),
            torch.from_numpy(np.asarray(indices, dtype=np.int64)),
        )

    def _cut(self, index: int, crop: Crop) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels, the joints in them, and whether these are labelled, of one person."""
        people = self.people
        image = read_image(people.images[index], tuple(people.image_sizes[index].tolist()))
        pixels, affine = cut_out(image, crop, self.loading.image_size)
        if self.loading.bgr:
            pixels = pixels[..., ::-1].copy()
        joints, visible = map_places(affine, people.joints[index]), people.visible[index]
        if crop.mirrored:
            joints, visible = joints[list(MIRRORED)], visible[list(MIRRORED)]
        return pixels, joints, visible


def augment(
    crops: list[Crop], augmentation: Augmentation, generator: np.random.Generator
) -> list[Crop]:
    """Crops of other sizes, turned and mirrored at random."""
    normal = generator.standard_normal((len(crops), 2))
    uniform = generator.random((len(crops), 2))
    factors = 1 + augmentation.scale * normal[:, 0].clip(-1, 1)
    degrees = augmentation.rotation * normal[:, 1].clip(-2, 2)
    degrees *= uniform[:, 0] < augmentation.rotated
    mirrored = uniform[:, 1] < augmentation.flipped
    changes = zip(crops, factors, degrees.tolist(), mirrored.tolist(), strict=True)
    return [
        Crop(crop.centre, factor * crop.size, angle, is_mirrored)
        for crop, factor, angle, is_mirrored in changes
    ]


def read_image(source: Path | np.ndarray, size: tuple[int, int]) -> Image.Image:
    """An image in RGB.

    Args:
        source: a file, or pixels, uint8 RGB (H, W, 3).
        size: width and height that its annotations are for.

    Raises:
        UserError: it cannot be read, or is of another size; names the file.
    """
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    try:
        with open_image(source) as image:
            if image.size != size:
                raise UserError(
                    f"{source}: has {image.width}×{image.height} pixels, but its annotations are "
                    f"for {size[0]}×{size[1]}; get the image that belongs to them"
                )
            return to_rgb(image)
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{source}: not an image that can be read ({reason}); mend it") from None


def cut_out(
    image: Image.Image, crop: Crop, output_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A crop of an image, bilinear, black beyond the image.

    Args:
        output_size: width and height.

    Returns:
        Pixels, uint8 RGB (height, width, 3), and the affine map (2, 3) from the image's places to
        those of the crop.
    """
    centre = crop.centre
    last = image.width - 1
    if crop.mirrored:
        centre = np.array([last - centre[0], centre[1]])
    affine = crop_map(centre, crop.size, output_size, crop.degrees)
    if crop.mirrored:
        affine = np.column_stack([-affine[:, 0], affine[:, 1], affine[:, 2] + last * affine[:, 0]])
    back = inverse_map(affine)
    # Pillow's places are those of pixels' corners: half a pixel more than ours, here and there.
    back[:, 2] += 0.5 - back[:, :2].sum(axis=1) / 2
    cut = image.transform(
        output_size, Image.Transform.AFFINE, back.ravel().tolist(), Image.Resampling.BILINEAR
    )
    return np.asarray(cut), affine
