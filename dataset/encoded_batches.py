"""Batches of encoded images: decoded in worker processes, augmented on the device.

Workers hand over uint8 pixels; flips, colours and normalisation are left to the device. The random
numbers of a training batch are drawn for the whole of it, from the run's seed, the epoch and the
step. So neither the number of workers nor that of processes changes them.
"""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Thread

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from dataset.augmentation import color_jitter, flip, normalize
from dataset.decoding import (
    CROP_ATTEMPTS,
    UNREADABLE,
    Crop,
    center_crop_box,
    decode_crop,
    random_crop_box,
)
from dataset.encoded_images import EncodedImages
from dataset.image_set import Statistics
from runtime.errors import UserError
from utils import derive_seed


@dataclass(frozen=True)
class Loading:
    """How images become batches, and for which process.

    Attributes:
        image_size: height and width of the images.
        validation_resize: what the shorter side becomes before the middle is cut out.
        statistics: of the normalisation.
        batch_size: of all processes together.
        workers: processes that decode for this one; 0: it decodes itself.
        device: where the batches are augmented and used.
        rank, world_size: this process takes every `world_size`-th image.
        crop_scale: smallest and largest area of a training crop, as a part of the image's.
        jitter: largest change of brightness, contrast, saturation (factors 1 ± that much) and
            hue (turns) in training.
    """

    image_size: int
    validation_resize: int
    statistics: Statistics
    batch_size: int
    workers: int
    device: torch.device
    rank: int = 0
    world_size: int = 1
    crop_scale: tuple[float, float] = (0.08, 1.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)

    def steps(self, count: int) -> int:
        """Number of training batches that `count` images make.

        A last batch too small for batch norm (fewer than two images a process) is left out.
        """
        whole, rest = divmod(count, self.batch_size)
        return whole + (rest >= 2 * self.world_size)

    @property
    def own(self) -> slice:
        """This process's part of something that all processes share."""
        return slice(self.rank, None, self.world_size)


def training_batches(
    images: EncodedImages, loading: Loading, seed: int, first_step: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of one pass in random order, augmented.

    Args:
        seed: the epoch's.
        first_step: number of batches to leave out at the start.

    Yields:
        Images, float32 (n, 3, image_size, image_size), channels last in memory, and labels, int64
        (n,), on the device.

    Raises:
        UserError: an image cannot be read; names it. Or a worker died.
    """
    decoded = decoded_training_batches(images, loading, seed, first_step)
    for step, (pixels, labels) in enumerate(decoded, start=first_step):
        yield augment(pixels, loading, derive_seed(seed, 3, step)), labels


def decoded_training_batches(
    images: EncodedImages, loading: Loading, seed: int, first_step: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """What `training_batches` begins with: random crops, uint8 (n, 3, H, W) on the device."""
    order = np.random.default_rng(derive_seed(seed, 1)).permutation(len(images))
    size = loading.batch_size
    batches = [
        order[step * size : (step + 1) * size][loading.own]
        for step in range(loading.steps(len(images)))
    ]
    crops = partial(_random_crops, loading, derive_seed(seed, 2))
    decoded = DecodedBatches(images, batches, crops, loading.image_size, reduced=True)
    return _load(decoded, loading, first_step)


def augment(pixels: Tensor, loading: Loading, seed: int) -> Tensor:
    """What `training_batches` ends with: flips, changes of colour, normalisation."""
    generator = Generator().manual_seed(seed)
    draws = torch.rand(loading.batch_size, 5, generator=generator)[loading.own][: len(pixels)]
    draws = draws.to(loading.device, non_blocking=True)
    pixels = flip(pixels, draws[:, 0] < 0.5)
    if any(loading.jitter):
        strengths = torch.tensor(loading.jitter, device=loading.device)
        unchanged = torch.tensor([1.0, 1.0, 1.0, 0.0], device=loading.device)
        changes = unchanged + strengths * (2 * draws[:, 1:] - 1)
        # One order for the whole batch, for that lets the device work on all of it at once.
        order = torch.randperm(4, generator=generator).tolist()
        pixels = color_jitter(pixels.float(), changes, order)
    return normalize(pixels, *loading.statistics.tensors(loading.device))


def evaluation_batches(images: EncodedImages, loading: Loading) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of one pass in order; each image once over all processes.

    Yields and raises as `training_batches`.
    """
    mean, std = loading.statistics.tensors(loading.device)
    own = np.arange(len(images))[loading.own]
    size = max(1, loading.batch_size // loading.world_size)
    batches = [own[start : start + size] for start in range(0, len(own), size)]
    crops = partial(_center_crops, loading)
    # Decoded in full, so that results can be compared with those of others.
    decoded = DecodedBatches(images, batches, crops, loading.image_size, reduced=False)
    for pixels, labels in _load(decoded, loading):
        yield normalize(pixels, mean, std), labels


class DecodedBatches(Dataset):
    """Batches of images, cropped and resized.

    An item is uint8 (n, image_size, image_size, 3) and int64 (n,); or the `UserError` that kept
    it from being read, for one that is raised in a worker comes out as a traceback.

    Args:
        images: where they are.
        batches: which of them are in each batch, integers (n,).
        crops: gives for a batch's number what to cut out of each of its images.
        image_size, reduced: as for `decode_crop`.
    """

    def __init__(
        self,
        images: EncodedImages,
        batches: list[np.ndarray],
        crops: Callable[[int], list[Crop]],
        image_size: int,
        reduced: bool,
    ) -> None:
        self.images = images
        self.batches = batches
        self.crops = crops
        self.image_size = image_size
        self.reduced = reduced

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor] | UserError:
        indices = self.batches[number]
        pixels = np.empty((len(indices), self.image_size, self.image_size, 3), dtype=np.uint8)
        labels = np.empty(len(indices), dtype=np.int64)
        for row, crop in zip(range(len(indices)), self.crops(number), strict=False):
            try:
                encoded, labels[row] = self.images.read(indices[row])
                pixels[row] = decode_crop(encoded, crop, self.image_size, self.reduced)
            except UserError as error:
                return error
            except UNREADABLE as error:
                name = self.images.name(indices[row])
                return UserError(f"{name}: not an image that can be read ({error}); mend it")
        return torch.from_numpy(pixels), torch.from_numpy(labels)


def _random_crops(loading: Loading, seed: int, step: int) -> list[Crop]:
    generator = np.random.default_rng(derive_seed(seed, step))
    draws = generator.random((loading.batch_size, CROP_ATTEMPTS, 4))[loading.own]
    return [partial(random_crop_box, draws=own, scale=loading.crop_scale) for own in draws]


def _center_crops(loading: Loading, _: int) -> list[Crop]:
    crop = partial(center_crop_box, image_size=loading.image_size, resize=loading.validation_resize)
    return [crop] * loading.batch_size


def _load(
    decoded: DecodedBatches, loading: Loading, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decode in the workers, from batch `first` on.

    Images come as uint8 (n, 3, H, W) on the device, channels last.
    """
    if loading.workers:
        decoded.images.close()  # each worker opens its own
    loader = DataLoader(
        decoded,
        batch_size=None,
        sampler=range(first, len(decoded)),
        num_workers=loading.workers,
        pin_memory=loading.device.type == "cuda",
        worker_init_fn=_leave_signals_to_the_parent,
        generator=Generator(),  # else it would draw from the one that drop path draws from
    )
    for batch in _watched(loader):
        if isinstance(batch, UserError):
            raise batch
        pixels, labels = (tensor.to(loading.device, non_blocking=True) for tensor in batch)
        yield pixels.permute(0, 3, 1, 2), labels


def _watched(loader: DataLoader) -> Iterator[object]:
    """The loader's items, until a worker dies.

    Raises:
        UserError: one did.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    items = iter(loader)
    if loader.num_workers:
        # PyTorch's handler would raise the error wherever this process is, in the middle of a step
        # or of a save. Without it `next` does, after five seconds at most.
        signal.signal(signal.SIGCHLD, handler)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            if not _is_of_a_dead_worker(error):
                raise
            raise UserError(
                "a process that decodes images has died, as they do when memory runs out; use "
                "fewer --workers"
            ) from None
        yield item


def _is_of_a_dead_worker(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    # A batch that it still sent is fetched from it, in vain. What a living one raises is no such
    # error, for `DecodedBatches` hands it over.
    return isinstance(error, ConnectionError | FileNotFoundError | EOFError)


def _leave_signals_to_the_parent(worker: int) -> None:
    """Let a worker outlive what stops a whole group: the parent may still need its images.

    Ctrl-C and cluster managers send their signal to every process. The parent's own SIGTERM ends a
    worker as ever; so does the parent's end.
    """

    def end_if_the_parent_says_so() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=end_if_the_parent_says_so, daemon=True).start()
