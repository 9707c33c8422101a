"""One-line mistakes that would change the method, and whether the tests see them.

`make mutants` puts in one after the other, each in a copy of the project, and runs the tests
nearest to it. It prints for each whether it was killed (a test failed), survived (none did), no
longer applies (what it replaces does not stand in the file exactly once) or did not run, and ends
with status 1 unless all were killed. Words after the command choose: `python tests/mutants.py
dropout candidate.py` tries the mutants with one of these words in their file or reason.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parent.parent

TIME_LIMIT = 300
"""Seconds that the tests of a mutant may take."""


class Mutant(NamedTuple):
    """In `file`, `stands` becomes `becomes`; one of `tests` (names of test files) must see it."""

    file: str
    stands: str
    becomes: str
    tests: str
    why: str


SEARCH = []

TRAINING = []

DATA = [
    Mutant(
        "dataset/augmentation.py",
        "    if augmentation.crop_padding:\n",
        "    if False:\n",
        "test_image_recipe",
        "no random crop",
    ),
    Mutant(
        "dataset/augmentation.py",
        "    if augmentation.flip:\n",
        "    if False:\n",
        "test_image_recipe",
        "images never mirrored",
    ),
    Mutant(
        "dataset/augmentation.py",
        "    if augmentation.cutout_length:\n",
        "    if False:\n",
        "test_image_recipe",
        "no cutout",
    ),
    Mutant(
        "dataset/augmentation.py",
        "    normalized = normalize(images, mean, std)\n"
        "    if augmentation.cutout_length:\n"
        "        normalized = cutout(normalized, augmentation.cutout_length, generator)\n"
        "    return normalized\n",
        "    if augmentation.cutout_length:\n"
        "        images = cutout(images, augmentation.cutout_length, generator)\n"
        "    return normalize(images, mean, std)\n",
        "test_image_recipe",
        "cutout before normalisation",
    ),
    Mutant(
        "dataset/augmentation.py",
        "padded = F.pad(images, [padding] * 4)",
        'padded = F.pad(images.float(), [padding] * 4, mode="reflect")',
        "test_image_recipe",
        "crops of mirrored borders",
    ),
    Mutant(
        "dataset/augmentation.py",
        "        2 * padding + 1, (2, count)",
        "        2 * padding, (2, count)",
        "test_image_recipe",
        "crop places leave out the last",
    ),
    Mutant(
        "dataset/augmentation.py",
        "        2 * padding + 1, (2, count), generator=generator, device=images.device\n    )",
        "        2 * padding + 1, (2, 1), generator=generator, device=images.device\n"
        "    ).expand(2, count)",
        "test_image_recipe",
        "one crop place for the whole batch",
    ),
    Mutant(
        "dataset/augmentation.py",
        "flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5",
        "flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.25",
        "test_image_recipe",
        "mirrored with probability 1/4",
    ),
    Mutant(
        "dataset/augmentation.py",
        "flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5",
        "flipped = (torch.rand(1, generator=generator) < 0.5).expand(len(images))",
        "test_image_recipe",
        "one flip for the whole batch",
    ),
    Mutant(
        "dataset/augmentation.py",
        "images.flip(3), images)",
        "images.flip(2), images)",
        "test_image_recipe",
        "mirrored top to bottom",
    ),
    Mutant(
        "dataset/augmentation.py",
        "torch.where(square, 0.0, images)",
        "torch.where(square, 0.5, images)",
        "test_image_recipe",
        "cutout's value",
    ),
    Mutant(
        "dataset/augmentation.py",
        "centre = torch.randint(size, (count, 1)",
        "centre = torch.randint(length // 2, size - length // 2, (count, 1)",
        "test_image_recipe",
        "cutout squares only inside of the image",
    ),
    Mutant(
        "dataset/augmentation.py",
        "(offset >= -(length // 2))",
        "(offset > -(length // 2))",
        "test_image_recipe",
        "cutout's border",
    ),
    Mutant(
        "dataset/augmentation.py",
        "    images = images.to(memory_format=torch.channels_last)\n",
        "",
        "test_image_recipe",
        "batches not channels last",
    ),
    Mutant(
        "dataset/augmentation.py",
        "/ (255 * std).view(1, 3, 1, 1)",
        "/ (255 * std.square()).view(1, 3, 1, 1)",
        "test_image_recipe",
        "divided by the variance",
    ),
    Mutant(
        "dataset/augmentation.py",
        "(images - (255 * mean).view(1, 3, 1, 1))",
        "(images - (255 * mean.flip(0)).view(1, 3, 1, 1))",
        "test_image_recipe",
        "mean in the order blue, green, red",
    ),
    Mutant(
        "dataset/augmentation.py",
        "for step in order:",
        "for step in sorted(order):",
        "test_imagenet_recipe",
        "colours always changed in one order",
    ),
    Mutant(
        "dataset/augmentation.py",
        "mean = _grey(images).mean(dim=(2, 3), keepdim=True)",
        "mean = _grey(images).mean()",
        "test_imagenet_recipe",
        "contrast about the batch's mean",
    ),
    Mutant(
        "dataset/augmentation.py",
        "0.299 * red + 0.587 * green + 0.114 * blue",
        "(red + green + blue) / 3",
        "test_imagenet_recipe",
        "grey as the channels' mean",
    ),
    Mutant(
        "dataset/augmentation.py",
        "hue = hue + 6 * shift",
        "hue = hue + shift",
        "test_imagenet_recipe",
        "hue shifted by sixths of turns",
    ),
    Mutant(
        "dataset/image_set.py",
        "cutout_length = image_size // 2",
        "cutout_length = image_size // 4",
        "test_image_recipe",
        "cutout's length",
    ),
    Mutant(
        "dataset/image_set.py",
        "Augmentation(image_size // 8,",
        "Augmentation(image_size // 16,",
        "test_image_recipe",
        "crop padding 2 at 32",
    ),
    Mutant(
        "dataset/image_set.py",
        'name != "digits", cutout_length if',
        "True, cutout_length if",
        "test_image_recipe",
        "digits mirrored",
    ),
    Mutant(
        "dataset/image_set.py",
        'name != "digits", cutout_length if',
        'name == "cifar10", cutout_length if',
        "test_image_recipe",
        "CIFAR-100 not mirrored",
    ),
    Mutant(
        "dataset/image_set.py",
        "cutout_length if cutout else 0",
        "cutout_length",
        "test_image_recipe",
        "--no-cutout ignored",
    ),
    Mutant(
        "dataset/image_set.py",
        "generator.manual_seed(derive_seed(seed, rank, step))",
        "generator.manual_seed(derive_seed(seed, 0, step))",
        "test_image_recipe",
        "the same augmentation in all processes",
    ),
    Mutant(
        "dataset/image_set.py",
        "generator.manual_seed(derive_seed(seed, rank, step))",
        "generator.manual_seed(derive_seed(seed, rank, 0))",
        "test_image_recipe",
        "the same augmentation in each step",
    ),
    Mutant(
        "dataset/image_set.py",
        "enumerate(batches, start=first_step)",
        "enumerate(batches)",
        "test_image_recipe",
        "a resumed epoch augmented as its first steps",
    ),
    Mutant(
        "dataset/image_set.py",
        "torch.randperm(len(image_set), generator=shuffle, device=data_device)",
        "torch.arange(len(image_set))",
        "test_image_recipe",
        "training images not shuffled",
    ),
    Mutant(
        "dataset/image_set.py",
        "torch.randperm(len(image_set), generator=shuffle, device=data_device)",
        "torch.randint(len(image_set), (len(image_set),), generator=shuffle)",
        "test_image_recipe",
        "images drawn with replacement",
    ),
    Mutant(
        "dataset/image_set.py",
        "own = indices[rank::world_size]",
        "own = indices",
        "test_image_recipe",
        "all processes train on all images",
    ),
    Mutant(
        "dataset/image_set.py",
        "        if len(indices) < 2 * world_size:\n",
        "        if len(indices) < batch_size:\n",
        "test_image_recipe",
        "last batch left out",
    ),
    Mutant(
        "dataset/image_set.py",
        "+ (rest >= 2 * world_size)",
        "+ (rest > 0)",
        "test_image_recipe",
        "steps count a batch that is left out",
    ),
    Mutant(
        "dataset/image_set.py",
        "        yield normalize(images, mean, std), labels",
        "        yield augment(\n"
        "            images, Augmentation(4, True, 0), mean, std, Generator(device)\n"
        "        ), labels",
        "test_image_recipe",
        "validation images augmented",
    ),
    Mutant(
        "dataset/image_set.py",
        "own = torch.arange(rank, len(image_set), world_size,",
        "own = torch.arange(0, len(image_set), 1,",
        "test_image_recipe",
        "all processes validate on all images",
    ),
    Mutant(
        "dataset/image_set.py",
        "own = torch.arange(rank, len(image_set), world_size,",
        "own = torch.arange(rank, len(image_set) - 1, world_size,",
        "test_image_recipe",
        "a test image left out",
    ),
    Mutant(
        "dataset/image_set.py",
        'train = split == "train"',
        "train = True",
        "test_image_recipe",
        "CIFAR's training images tested on",
    ),
    Mutant(
        "dataset/image_set.py",
        "torch.from_numpy(dataset.data).permute(0, 3, 1, 2)",
        "torch.from_numpy(dataset.data).permute(0, 3, 2, 1)",
        "test_image_recipe",
        "CIFAR transposed",
    ),
    Mutant(
        "dataset/image_set.py",
        "images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)",
        "images = torch.from_numpy(dataset.data).flip(3).permute(0, 3, 1, 2)",
        "test_image_recipe",
        "CIFAR in the order blue, green, red",
    ),
    Mutant(
        "dataset/image_set.py",
        "        return PUBLISHED_STATISTICS[name]\n    if kept",
        '        return PUBLISHED_STATISTICS["cifar10"]\n    if kept',
        "test_image_recipe",
        "CIFAR-100 normalised as CIFAR-10",
    ),
    Mutant(
        "dataset/image_set.py",
        "    if name in PUBLISHED_STATISTICS:\n",
        "    if False:\n",
        "test_image_recipe",
        "CIFAR's statistics measured, not the published",
    ),
    Mutant(
        "dataset/image_set.py",
        "    if kept is not None and kept.exists():\n",
        "    if False:\n",
        "test_image_recipe",
        "kept statistics not read",
    ),
    Mutant(
        "dataset/image_set.py",
        "(total_of_squares / count - mean.square()).clamp(min=1e-6).sqrt()",
        "(total_of_squares / count - mean.square()).clamp(min=1e-6)",
        "test_image_recipe",
        "variance for deviation",
    ),
    Mutant(
        "dataset/image_set.py",
        'size=(16, 16), mode="bilinear")',
        'size=(16, 16), mode="nearest")',
        "test_image_recipe",
        "digits enlarged by another filter",
    ),
    Mutant(
        "dataset/image_folder.py",
        "Image.Resampling.BILINEAR",
        "Image.Resampling.BICUBIC",
        "test_image_recipe",
        "another filter in folders",
    ),
    Mutant(
        "dataset/image_folder.py",
        "Image.Resampling.BILINEAR",
        "Image.Resampling.NEAREST",
        "test_image_recipe",
        "no filter in folders",
    ),
    Mutant(
        "dataset/image_folder.py",
        "ImageOps.fit(to_rgb(image), size, Image.Resampling.BILINEAR)",
        "to_rgb(image).resize(size, Image.Resampling.BILINEAR)",
        "test_image_recipe",
        "folder images squeezed, not cropped",
    ),
    Mutant(
        "dataset/image_folder.py",
        "    names = sorted(entry.name for entry in folder.iterdir() if _is_visible_folder(entry))",
        "    names = sorted(\n"
        "        (entry.name for entry in folder.iterdir() if _is_visible_folder(entry)),\n"
        "        key=lambda name: (folder / name).stat().st_mtime_ns,\n"
        "    )",
        "test_image_recipe",
        "labels in the order in which class folders were made",
    ),
    Mutant(
        "dataset/decoding.py",
        'return image.convert("RGB")',
        'return image.convert("RGBA").convert("RGBa").convert("RGBA").convert("RGB")',
        "test_image_recipe",
        "transparent pixels black",
    ),
    Mutant(
        "dataset/decoding.py",
        'return image.convert("RGB")',
        'return image.convert("L").convert("RGB")',
        "test_image_recipe",
        "all images grey",
    ),
    Mutant(
        "dataset/decoding.py",
        "        Image.Resampling.BILINEAR,\n",
        "        Image.Resampling.BICUBIC,\n",
        "test_imagenet_recipe",
        "another filter for crops",
    ),
    Mutant(
        "dataset/decoding.py",
        "        Image.Resampling.BILINEAR,\n",
        "        Image.Resampling.NEAREST,\n",
        "test_imagenet_recipe",
        "no filter for crops",
    ),
    Mutant(
        "dataset/decoding.py",
        "CROP_RATIO = (3 / 4, 4 / 3)",
        "CROP_RATIO = (1 / 2, 2)",
        "test_imagenet_recipe",
        "crops of another range of shapes",
    ),
    Mutant(
        "dataset/decoding.py",
        "ratio = math.exp(smallest + (largest - smallest) * ratio_draw)",
        "ratio = CROP_RATIO[0] + (CROP_RATIO[1] - CROP_RATIO[0]) * ratio_draw",
        "test_imagenet_recipe",
        "shapes of crops not uniform in the logarithm",
    ),
    Mutant(
        "dataset/decoding.py",
        "area = width * height * (scale[0] + (scale[1] - scale[0]) * area_draw)",
        "area = width * height * (scale[0] + (scale[1] - scale[0]) * area_draw) ** 2",
        "test_imagenet_recipe",
        "sides of crops uniform, not their area",
    ),
    Mutant(
        "dataset/decoding.py",
        "            left = int(left_draw * (width - crop_width + 1))\n"
        "            top = int(top_draw * (height - crop_height + 1))\n",
        "            left = (width - crop_width) // 2\n"
        "            top = (height - crop_height) // 2\n",
        "test_imagenet_recipe",
        "training crops from the middle",
    ),
    Mutant(
        "dataset/decoding.py",
        "int(left_draw * (width - crop_width + 1))",
        "int(left_draw * (width - crop_width))",
        "test_imagenet_recipe",
        "crops never at the right border",
    ),
    Mutant(
        "dataset/decoding.py",
        "crop_width = min(width, round(height * CROP_RATIO[1]))",
        "crop_width = min(width, height)",
        "test_imagenet_recipe",
        "a square where no crop fits",
    ),
    Mutant(
        "dataset/decoding.py",
        "return Box((width - crop_width) // 2, (height - crop_height) // 2, crop_width",
        "return Box(0, 0, crop_width",
        "test_imagenet_recipe",
        "a corner where no crop fits",
    ),
    Mutant(
        "dataset/decoding.py",
        "    short = min(width, height)\n",
        "    short = max(width, height)\n",
        "test_imagenet_recipe",
        "validation: longer side resized",
    ),
    Mutant(
        "dataset/decoding.py",
        "round((side - image_size) / 2)",
        "math.ceil((side - image_size) / 2)",
        "test_imagenet_recipe",
        "validation: the middle rounded up",
    ),
    Mutant(
        "dataset/decoding.py",
        "round((side - image_size) / 2)",
        "0",
        "test_imagenet_recipe",
        "validation: a corner",
    ),
    Mutant(
        "dataset/decoding.py",
        "int(resize * side / short)",
        "math.ceil(resize * side / short)",
        "test_imagenet_recipe",
        "validation: the longer side rounded up",
    ),
    Mutant(
        "dataset/decoding.py",
        "CROP_ATTEMPTS = 10",
        "CROP_ATTEMPTS = 1",
        "test_imagenet_recipe",
        "one attempt at a crop",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "flip(pixels, draws[:, 0] < 0.5)",
        "flip(pixels, draws[:, 0] < 0.6)",
        "test_imagenet_recipe",
        "ImageNet mirrored with another probability",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "flip(pixels, draws[:, 0] < 0.5)",
        "flip(pixels, draws[0, 0].expand(len(draws)) < 0.5)",
        "test_imagenet_recipe",
        "ImageNet: one flip for the whole batch",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "strengths * (2 * draws[:, 1:] - 1)",
        "strengths * (2 * draws[0, 1:] - 1).expand(len(draws), 4)",
        "test_imagenet_recipe",
        "one change of colours for the whole batch",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "strengths * (2 * draws[:, 1:] - 1)",
        "strengths * draws[:, 1:]",
        "test_imagenet_recipe",
        "colours only made stronger",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "    if any(loading.jitter):\n",
        "    if False:\n",
        "test_imagenet_recipe",
        "no change of colours",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "order = torch.randperm(4, generator=generator).tolist()",
        "order = list(range(4))",
        "test_imagenet_recipe",
        "order of the changes not drawn",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "torch.rand(loading.batch_size, 5, generator=generator)[loading.own][: len(pixels)]",
        "torch.rand(loading.batch_size, 5, generator=generator)[: len(pixels)]",
        "test_imagenet_recipe",
        "the same flips in all processes",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "random((loading.batch_size, CROP_ATTEMPTS, 4))[loading.own]",
        "random((loading.batch_size, CROP_ATTEMPTS, 4))",
        "test_imagenet_recipe",
        "the same crops in all processes",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "np.random.default_rng(derive_seed(seed, step))",
        "np.random.default_rng(derive_seed(seed))",
        "test_imagenet_recipe",
        "the same crops in each step",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "yield augment(pixels, loading, derive_seed(seed, 3, step)), labels",
        "yield augment(pixels, loading, derive_seed(seed, 3)), labels",
        "test_imagenet_recipe",
        "the same flips in each step",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "enumerate(decoded, start=first_step)",
        "enumerate(decoded)",
        "test_imagenet_recipe",
        "a resumed epoch of ImageNet augmented as its first steps",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "scale=loading.crop_scale",
        "scale=(0.08, 1.0)",
        "test_imagenet_recipe",
        "--crop_scale ignored",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "resize=loading.validation_resize",
        "resize=loading.image_size",
        "test_imagenet_recipe",
        "validation without resizing to more",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "loading.image_size, reduced=False",
        "loading.image_size, reduced=True",
        "test_imagenet_recipe",
        "validation images decoded at a part of their size",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "np.random.default_rng(derive_seed(seed, 1)).permutation(len(images))",
        "np.arange(len(images))",
        "test_imagenet_recipe",
        "ImageNet not shuffled",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "return whole + (rest >= 2 * self.world_size)",
        "return whole",
        "test_imagenet_recipe",
        "ImageNet's last batch left out",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "return whole + (rest >= 2 * self.world_size)",
        "return whole + (rest > 0)",
        "test_imagenet_recipe",
        "a last batch too small for batch norm",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "own = np.arange(len(images))[loading.own]",
        "own = np.arange(len(images))",
        "test_imagenet_recipe",
        "all processes validate on all of ImageNet",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "batches = [own[start : start + size] for start in range(0, len(own), size)]",
        "batches = [own[start : start + size] for start in range(0, len(own) - size + 1, size)]",
        "test_imagenet_recipe",
        "last validation batch left out",
    ),
    Mutant(
        "dataset/encoded_batches.py",
        "return normalize(pixels, *loading.statistics.tensors(loading.device))",
        "return normalize(pixels, *reversed(loading.statistics.tensors(loading.device)))",
        "test_imagenet_recipe",
        "mean and deviation swapped",
    ),
    Mutant(
        "dataset/image_list.py",
        "enumerate(sorted(set(classes)))",
        "enumerate(dict.fromkeys(classes))",
        "test_imagenet_recipe",
        "labels in the order first seen",
    ),
    Mutant(
        "dataset/image_list.py",
        'path = list_file(folder, "train")',
        "path = list_file(folder, split)",
        "test_imagenet_recipe",
        "train and val number their classes each for itself",
    ),
    Mutant(
        "dataset/encoded_images.py",
        "class_folders(train if train.is_dir() else self.folder)",
        "class_folders(self.folder)",
        "test_imagenet_recipe",
        "folders: train and val number their classes each for itself",
    ),
    Mutant(
        "dataset/img2lmdb.py",
        "encoded if image_size is None else _resized(image, image_size)",
        "_resized(image, image_size or min(image.size))",
        "test_imagenet_recipe",
        "images encoded anew for the LMDB",
    ),
    Mutant(
        "dataset/img2lmdb.py",
        "Image.Resampling.BILINEAR",
        "Image.Resampling.NEAREST",
        "test_imagenet_recipe",
        "another filter in img2lmdb.py --image_size",
    ),
    Mutant(
        "dataset/img2lmdb.py",
        "QUALITY = 95",
        "QUALITY = 75",
        "test_imagenet_recipe",
        "JPEGs of less quality",
    ),
    Mutant(
        "dataset/img2lmdb.py",
        "scale = image_size / min(image.size)",
        "scale = image_size / max(image.size)",
        "test_imagenet_recipe",
        "--image_size for the longer side",
    ),
    Mutant(
        "dataset/lmdb_set.py",
        'struct.Struct("<H")',
        'struct.Struct(">H")',
        "test_lmdb",
        "labels big-endian",
    ),
    Mutant(
        "dataset/lmdb_set.py",
        "msgpack.packb(image + LABEL.pack(label), use_bin_type=True)",
        "msgpack.packb(LABEL.pack(label) + image, use_bin_type=True)",
        "test_lmdb",
        "the label before the image",
    ),
    Mutant(
        "dataset/pixel_statistics.py",
        "(0.24703233, 0.24348505, 0.26158768)",
        "(0.2023, 0.1994, 0.2010)",
        "test_image_recipe",
        "CIFAR-10's deviation as others have it",
    ),
    Mutant(
        "dataset/pixel_statistics.py",
        "(0.5071, 0.4867, 0.4408)",
        "(0.4914, 0.4822, 0.4465)",
        "test_image_recipe",
        "CIFAR-100's mean",
    ),
    Mutant(
        "dataset/pixel_statistics.py",
        "(0.229, 0.224, 0.225)",
        "(0.229, 0.225, 0.224)",
        "test_imagenet_recipe",
        "ImageNet's deviation",
    ),
    Mutant(
        "imagenet_data.py",
        "round(image_size * 256 / 224)",
        "image_size",
        "test_imagenet_recipe",
        "validation without resizing to 256 by default",
    ),
    Mutant(
        "imagenet_data.py",
        "        processes.rank,\n        processes.size,\n",
        "",
        "test_imagenet_recipe",
        "ImageNet: rank and size left out",
    ),
    Mutant(
        "train.py",
        "statistics, derive_seed(args.seed, epoch),",
        "statistics, derive_seed(args.seed, 0),",
        "test_image_recipe",
        "the same batches in each epoch",
    ),
    Mutant(
        "train.py",
        "statistics, derive_seed(args.seed, epoch),",
        "statistics, derive_seed(0, epoch),",
        "test_image_recipe",
        "--seed ignored for batches",
    ),
    Mutant(
        "train.py",
        "processes.device, processes.rank, processes.size, first_step,",
        "processes.device, 0, 1, first_step,",
        "test_image_recipe",
        "training: rank and size left out",
    ),
    Mutant(
        "train.py",
        "processes.device, processes.rank, processes.size\n",
        "processes.device, 0, 1\n",
        "test_image_recipe",
        "validation: rank and size left out",
    ),
    Mutant(
        "train.py",
        "args.cutout, args.cutout_length)",
        "args.cutout)",
        "test_image_recipe",
        "--cutout_length ignored",
    ),
    Mutant(
        "train.py",
        'test_set = load_image_set(args.set, args.data, "test", args.image_size)',
        "test_set = train_set",
        "test_image_recipe",
        "validated on the training images",
    ),
    Mutant(
        "train.py",
        "image_statistics(args.set, train_set,",
        "image_statistics(args.set, test_set,",
        "test_image_recipe",
        "statistics of the test images",
    ),
    Mutant(
        "train.py",
        "args.image_size)\n    test_set",
        "None)\n    test_set",
        "test_image_recipe",
        "--image_size ignored for training images",
    ),
    Mutant(
        "train_imagenet.py",
        "jitter=tuple(args.color_jitter),",
        "",
        "test_imagenet_recipe",
        "--color_jitter ignored",
    ),
    Mutant(
        "train_imagenet.py",
        "crop_scale=tuple(args.crop_scale), ",
        "",
        "test_imagenet_recipe",
        "--crop_scale not passed on",
    ),
    Mutant(
        "train_imagenet.py",
        "Statistics(tuple(args.mean), tuple(args.std))",
        "IMAGENET",
        "test_imagenet_recipe",
        "--mean and --std ignored",
    ),
    Mutant(
        "train_imagenet.py",
        "train_images, loading, derive_seed(args.seed, epoch), first_step",
        "train_images, loading, derive_seed(args.seed), first_step",
        "test_imagenet_recipe",
        "ImageNet: the same batches in each epoch",
    ),
    Mutant(
        "train_imagenet.py",
        "color_jitter=[0.4, 0.4, 0.4, 0.2],",
        "color_jitter=[0.4, 0.4, 0.4, 0.1],",
        "test_imagenet_recipe",
        "another jitter of the hue",
    ),
    Mutant(
        "train_imagenet.py",
        "crop_scale=[0.08, 1.0],",
        "crop_scale=[0.2, 1.0],",
        "test_imagenet_recipe",
        "another smallest crop",
    ),
    Mutant(
        "train_imagenet.py",
        "evaluation_batches(validation_images, loading)",
        "evaluation_batches(train_images, loading)",
        "test_imagenet_recipe",
        "ImageNet validated on the training images",
    ),
    Mutant(
        "train_imagenet.py",
        "args.image_size, args.validation_resize, statistics,",
        "args.image_size, None, statistics,",
        "test_imagenet_recipe",
        "--validation_resize ignored in training",
    ),
    Mutant(
        "test.py",
        "        statistics = statistics_from_dict(description)",
        '        statistics = PUBLISHED_STATISTICS["cifar10"]',
        "test_image_recipe",
        "test.py: a checkpoint's own mean and deviation ignored",
    ),
    Mutant(
        "test.py",
        "statistics = PUBLISHED_STATISTICS[name]",
        'statistics = PUBLISHED_STATISTICS["cifar10"]',
        "test_image_recipe",
        "test.py: CIFAR-100 normalised as CIFAR-10",
    ),
    Mutant(
        "test.py",
        "image_statistics(name, train_set)",
        "image_statistics(name, test_set)",
        "test_image_recipe",
        "test.py: statistics of the test images",
    ),
    Mutant(
        "test_imagenet.py",
        "        statistics = statistics_from_dict(description)",
        "        pass",
        "test_imagenet_recipe",
        "test_imagenet.py: a checkpoint's own mean and deviation ignored",
    ),
    Mutant(
        "test_imagenet.py",
        'description.get("image_size", 224)',
        "224",
        "test_imagenet_recipe",
        "test_imagenet.py: a checkpoint's image size ignored",
    ),
    Mutant(
        "test_imagenet.py",
        'resize = description.get("validation_resize")',
        "pass",
        "test_imagenet_recipe",
        "test_imagenet.py: a checkpoint's resize ignored",
    ),
    Mutant(
        "test_imagenet.py",
        "if resize is None and args.image_size is None:",
        "if resize is None:",
        "test_imagenet_recipe",
        "test_imagenet.py: a checkpoint's resize with another image size",
    ),
    Mutant(
        "hubconf.py",
        '_network("cifar", "cifar100", pretrained,',
        '_network("cifar", "cifar10", pretrained,',
        "test_image_recipe",
        "another set's mean and deviation in the hub's CIFAR-100",
    ),
    Mutant(
        "hubconf.py",
        '_network("imagenet", "imagenet", pretrained,',
        '_network("imagenet", "cifar10", pretrained,',
        "test_image_recipe",
        "another set's mean and deviation in the hub's ImageNet",
    ),
    Mutant(
        "hubconf.py",
        "            statistics = statistics_from_dict(description)",
        '            statistics = PUBLISHED_STATISTICS["cifar10"]',
        "test_image_recipe",
        "the hub ignores a checkpoint's own mean and deviation",
    ),
    Mutant(
        "export.py",
        "self.network((images - self.mean) / self.std)",
        "self.network(images)",
        "test_image_recipe",
        "exported without normalisation",
    ),
    Mutant(
        "export.py",
        "self.network((images - self.mean) / self.std)",
        "self.network(images / self.std - self.mean)",
        "test_image_recipe",
        "exported with the normalisation the other way round",
    ),
    Mutant(
        "export.py",
        'else f"cifar{classes}"',
        'else "cifar10"',
        "test_image_recipe",
        "exported with another set's mean and deviation",
    ),
]

MUTANTS = [*SEARCH, *TRAINING, *DATA]


def outcome(mutant: Mutant, copy: Path) -> str:
    """Try a mutant in a copy of the project, and put the copy right again."""
    path = copy / mutant.file
    source = path.read_text()
    if source.count(mutant.stands) != 1 or mutant.stands == mutant.becomes:
        return "no longer applies"
    path.write_text(source.replace(mutant.stands, mutant.becomes))
    try:
        status = run_tests(mutant.tests, copy)
    except subprocess.TimeoutExpired:
        return "did not run (too slow)"
    finally:
        path.write_text(source)
    return {0: "survived", 1: "killed"}.get(status, f"did not run (pytest's status {status})")


def run_tests(tests: str, copy: Path) -> int:
    """The exit status of pytest for some test files in a copy of the project."""
    files = [f"tests/{name}.py" for name in tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    # Without compiled files: a change within a second and of the same length would not be seen.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, timeout=TIME_LIMIT
    )
    return finished.returncode


def make_copy(parent: Path) -> Path:
    """A copy of the project's files as they stand in the working tree."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    copy = Path(tempfile.mkdtemp(dir=parent))
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def outcomes(mutants: list[Mutant], parent: Path) -> Iterator[str]:
    """The outcomes in the mutants' order, tried side by side, one for each core."""
    cores = len(os.sched_getaffinity(0))
    copies: Queue[Path] = Queue()
    for _ in range(cores):
        copies.put(make_copy(parent))

    def try_one(mutant: Mutant) -> str:
        copy = copies.get()
        try:
            return outcome(mutant, copy)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(cores) as pool:
        yield from pool.map(try_one, mutants)


def main(words: list[str]) -> int:
    chosen = [
        mutant
        for mutant in MUTANTS
        if not words or any(word in mutant.file + " " + mutant.why for word in words)
    ]
    alive = []
    with tempfile.TemporaryDirectory() as parent:
        tests = " ".join(sorted({name for mutant in chosen for name in mutant.tests.split()}))
        if chosen and run_tests(tests, make_copy(Path(parent))) != 0:
            print(f"the tests fail without any mutant: {tests}")
            return 1
        for mutant, result in zip(chosen, outcomes(chosen, Path(parent)), strict=True):
            print(f"{result:18} {mutant.file}: {mutant.why}", flush=True)
            if result != "killed":
                alive.append(mutant)
    print(f"{len(chosen)} mutants, {len(chosen) - len(alive)} killed")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
