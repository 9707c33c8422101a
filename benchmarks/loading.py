"""Measure how many training images a core loads in a second, in three ways.

ours: from an LMDB, decoded at reduced scale where the crop allows it, uint8 batches; flips, colours
and normalisation are the device's work. plain: torchvision's ImageFolder and transforms, with
colour jitter and normalisation image by image. full: from the same LMDB, every image decoded in
full by torchvision, then cropped, resized and flipped as a uint8 tensor; the rest as in ours. (Its
decoder is deprecated since torchvision 0.29, which is why ours does without it.)
"""

import contextlib
import io
import platform
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as benchmarks/loading.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from dataset.batching import Batching
from dataset.decoding import CROP_ATTEMPTS, decode_part, random_crop_box, resize_part
from dataset.encoded_batches import Loading, decoded_training_batches, training_batches
from dataset.imagenet_data import IMAGENET
from dataset.img2lmdb import write_lmdb
from dataset.lmdb_set import LmdbImages
from dataset.mk_img_list import write_lists
from runtime.arguments import ArgumentParser, expanded_path, positive_int
from runtime.errors import run_script

CROP_SCALE = (0.08, 1.0)


class FullyDecoded(Dataset):
    """The images of an LMDB as uint8 tensors, decoded whole, then cropped."""

    def __init__(self, images: LmdbImages, image_size: int) -> None:
        self.images = images
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(image_size, CROP_SCALE, antialias=True),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        encoded, label = self.images.read(index)
        data = torch.from_numpy(np.frombuffer(encoded, dtype=np.uint8).copy())
        return self.transform(decode_jpeg(data, mode=ImageReadMode.RGB)), label


def plain_image_folder(folder: Path, image_size: int) -> datasets.ImageFolder:
    """torchvision's data set with the recipe's augmentation."""
    return datasets.ImageFolder(
        folder,
        transforms.Compose(
            [
                transforms.RandomResizedCrop(image_size, CROP_SCALE),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(0.4, 0.4, 0.4, 0.2),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET.mean, IMAGENET.std),
            ]
        ),
    )


def images_per_second(batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The speed of one pass over `batches`."""
    started = time.perf_counter()
    count = sum(len(labels) for _, labels in batches)
    return count / (time.perf_counter() - started)


def breakdown(images: LmdbImages, image_size: int) -> dict[str, float]:
    """Milliseconds an image that the parts of our way take, and how many are decoded reduced."""
    generator = np.random.default_rng(0)
    seconds = dict.fromkeys(("read", "decode", "resize", "collate"), 0.0)
    batch = np.empty((len(images), image_size, image_size, 3), dtype=np.uint8)
    reduced = 0
    for index in range(len(images)):
        draws = generator.random((CROP_ATTEMPTS, 4))
        crop = partial(random_crop_box, draws=draws, scale=CROP_SCALE)
        times = [time.perf_counter()]
        encoded, _ = images.read(index)
        times.append(time.perf_counter())
        with Image.open(io.BytesIO(encoded)) as image:
            size = image.size
            decoded, box = decode_part(image, crop, image_size, reduced=True)
            times.append(time.perf_counter())
            reduced += decoded.size != size
            pixels = resize_part(decoded, box, image_size)
        times.append(time.perf_counter())
        batch[index] = pixels
        times.append(time.perf_counter())
        for name, start, end in zip(seconds, times, times[1:], strict=False):
            seconds[name] += end - start
    result = {name: 1000 * value / len(images) for name, value in seconds.items()}
    return result | {"reduced": reduced / len(images)}


def measure(args: Namespace, work: Path) -> None:
    """Write an LMDB of the images in `work`, run the ways in turns, and print medians."""
    (work / "train").symlink_to(Path(args.data).resolve(), target_is_directory=True)
    data = work / "lmdb"
    with contextlib.redirect_stdout(sys.stderr):
        write_lists(Namespace(image_path=work, output_path=data))
        write_lmdb(
            Namespace(
                image_path=work, list_path=data, output_path=data, split="train",
                image_size=None, workers=1, skip_bad=False,
            )
        )  # fmt: skip
    images = LmdbImages(data, "train")
    size = args.image_size
    batching = Batching(args.batch_size, torch.device("cpu"))
    loading = Loading(size, size, IMAGENET, batching, 0)
    folder = plain_image_folder(work / "train", size)
    full = FullyDecoded(images, size)
    loader = partial(DataLoader, batch_size=args.batch_size, shuffle=True, drop_last=False)
    ways: dict[str, Callable[[int], Iterable]] = {
        "ours": lambda number: decoded_training_batches(images, loading, number),
        "ours, device's work on this core": lambda number: training_batches(
            images, loading, number
        ),
        "plain ImageFolder": lambda _: loader(folder),
        "full decoding": lambda _: loader(full),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    parts = []
    for number in range(-1, args.rounds):  # the first round only warms up
        for name, way in ways.items():
            speed = images_per_second(way(number + 1))
            if number >= 0:
                speeds[name].append(speed)
        parts.append(breakdown(images, size))
    images.close()
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(
        f"{len(images)} images of {args.data}, {size}×{size}, batches of {args.batch_size}; one "
        f"core ({platform.processor() or platform.machine()}), medians of {args.rounds} rounds; "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Pillow {PIL.__version__}"
    )
    print(f"{'way':34} {'images/s':>9} {'lowest':>8} {'highest':>8} {'of plain':>9}")
    for name, median in medians.items():
        print(
            f"{name:34} {median:9.1f} {min(speeds[name]):8.1f} {max(speeds[name]):8.1f} "
            f"{median / medians['plain ImageFolder']:8.2f}×"
        )
    print("where ours spends its time, ms an image:")
    for name in ("read", "decode", "resize", "collate"):
        print(f"  {name:32} {statistics.median(part[name] for part in parts[1:]):9.2f}")
    print(f"decoded at reduced scale: {100 * parts[-1]['reduced']:.0f} % of the images")


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--data", type=expanded_path, required=True, metavar="DIR", help="folder of <class>/*.JPEG")
    add("--image_size", type=positive_int, default=224, help="height and width of the crops")
    add("--batch_size", type=positive_int, default=32, help="images of a batch")
    add("--rounds", type=positive_int, default=7, help="how often each way is measured")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        measure(args, Path(work))


if __name__ == "__main__":
    run_script(main)
