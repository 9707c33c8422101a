"""What train_imagenet.py and test_imagenet.py do to images, against Pillow and torchvision.

What they hand to the training is taken instead of trained on, so that the whole way from a flag to
a batch is seen.
"""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import call_data_script
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

import test_imagenet
import train_imagenet
from dataset.encoded_images import open_images
from genotypes import RelativeNAS
from model import NetworkImageNet
from report.run import Run
from training.trained_network import describe_network
from utils import derive_seed

CPU = torch.device("cpu")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

CLASSES = {"train": {"n3": 6, "n1": 7, "n2": 6}, "val": {"n2": 3, "n3": 2}}
"""Class folders in the order in which they are made; one class has no validation images."""


def picture(seed, width, height):
    """Coloured noise, of which every resize and crop makes something else."""
    random = np.random.default_rng(seed)
    rough = random.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    smooth = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
    noise = random.normal(0, 12, (height, width, 3))
    return Image.fromarray((np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8))


def write_pictures(root, sizes, suffix="png"):
    """Write pictures whose sizes are taken from `sizes` in turn."""
    number = 0
    for split, classes in CLASSES.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for file in range(count):
                image = picture(number, *sizes[number % len(sizes)])
                image.save(root / split / name / f"{file}.{suffix}")
                number += 1
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Not JPEGs, so that decoding is exact; one in four is too long for any crop."""
    sizes = [(48, 36), (30, 44), (41, 41), (90, 8)]
    return write_pictures(tmp_path_factory.mktemp("pictures"), sizes)


def files_and_labels(root, split):
    files = sorted((root / split).glob("n*/*"))
    return files, [("n1", "n2", "n3").index(file.parent.name) for file in files]


def training_data(monkeypatch, root, *arguments, rank=0, size=1):
    """The images that train_imagenet.py trains and validates on, and what checkpoints say."""
    handed_over = []
    monkeypatch.setattr(train_imagenet, "fit", lambda *values: handed_over.append(values))
    arguments = ["--data_path", root, "--workers", 0, *arguments]
    process = SimpleNamespace(device=CPU, rank=rank, size=size)
    train_imagenet.train(train_imagenet.parse_arguments([*map(str, arguments)]), Run(None, process))
    ((_, _, task, data),) = handed_over
    return data, task.description


def plain_crop(width, height, draws, scale):
    """As torchvision's RandomResizedCrop; for each try: area, shape, left, top in [0, 1)."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for area, shape, left, top in draws:
        target = width * height * (scale[0] + area * (scale[1] - scale[0]))
        ratio = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return math.floor(left * (width - w + 1)), math.floor(top * (height - h + 1)), w, h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (width - w) // 2, (height - h) // 2, w, h


def plain_image(file, crop_draws, draws, order, image_size, scale, jitter, mean, std):
    """A training image by Pillow and torchvision; `draws`: of the flip, then of each change."""
    image = Image.open(file).convert("RGB")
    left, top, width, height = plain_crop(*image.size, crop_draws, scale)
    box = (left, top, left + width, top + height)
    image = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box)
    image = functional.to_tensor(image)
    if draws[0] < 0.5:
        image = functional.hflip(image)
    changes = [
        functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation,
        functional.adjust_hue,
    ]  # fmt: skip
    for change in order:
        amount = jitter[change] * (2 * draws[1 + change] - 1)
        image = changes[change](image, amount if change == 3 else 1 + amount)
    return functional.normalize(image, mean, std)


def plain_batches(root, epoch_seed, rank, size, batch_size=8, **recipe):
    """Training batches, one image at a time."""
    files, labels = files_and_labels(root, "train")
    order = np.random.default_rng(derive_seed(epoch_seed, 1)).permutation(len(files))
    for step in range(-(-len(files) // batch_size)):
        together = order[step * batch_size : (step + 1) * batch_size]
        if len(together) < 2 * size:
            return
        crop_seed = derive_seed(derive_seed(epoch_seed, 2), step)
        crop_draws = np.random.default_rng(crop_seed).random((batch_size, 10, 4)).tolist()
        generator = torch.Generator().manual_seed(derive_seed(epoch_seed, 3, step))
        draws = torch.rand(batch_size, 5, generator=generator).tolist()
        changes = torch.randperm(4, generator=generator).tolist()
        own = range(rank, len(together), size)
        images = [
            plain_image(files[together[place]], crop_draws[place], draws[place], changes, **recipe)
            for place in own
        ]
        yield torch.stack(images), [labels[together[place]] for place in own]


PUBLISHED = {"scale": (0.08, 1.0), "jitter": (0.4, 0.4, 0.4, 0.2), "mean": MEAN, "std": STD}

OTHER = {
    "scale": (0.3, 0.4), "jitter": (0.1, 0.3, 0.5, 0.05), "mean": (0.1, 0.2, 0.3),
    "std": (0.5, 1.0, 2.0),
}  # fmt: skip

OTHER_ARGUMENTS = [
    "--crop_scale", 0.3, 0.4, "--color_jitter", 0.1, 0.3, 0.5, 0.05, "--mean", 0.1, 0.2, 0.3,
    "--std", 0.5, 1, 2,
]  # fmt: skip


@pytest.mark.parametrize("processes", [[(0, 1)], [(0, 2), (1, 2)]])
@pytest.mark.parametrize(("arguments", "recipe"), [([], PUBLISHED), (OTHER_ARGUMENTS, OTHER)])
def test_training_batches_equal_images_augmented_one_by_one(
    arguments, recipe, processes, pictures, monkeypatch
):
    for rank, size in processes:
        data, _ = training_data(
            monkeypatch, pictures, "--image_size", 24, "--batch_size", 8, "--seed", 3, *arguments,
            rank=rank, size=size,
        )  # fmt: skip
        for epoch in (0, 1):
            expected = plain_batches(
                pictures, derive_seed(3, epoch), rank, size, image_size=24, **recipe
            )
            for (images, labels), (plain_images, plain_labels) in zip(
                data.training_batches(derive_seed(3, epoch)), expected, strict=True
            ):
                assert images.is_contiguous(memory_format=torch.channels_last)
                # Weights of grey differ in the fourth digit from torchvision's, and the contrast
                # and the hue carry that on.
                torch.testing.assert_close(images, plain_images, atol=0.02, rtol=0.002)
                assert labels.tolist() == plain_labels


def test_without_jitter_colours_are_kept(pictures, monkeypatch):
    data, _ = training_data(
        monkeypatch, pictures, "--image_size", 24, "--batch_size", 8, "--color_jitter", 0, 0, 0, 0
    )
    expected = plain_batches(
        pictures, derive_seed(0, 2), 0, 1, image_size=24, **PUBLISHED | {"jitter": (0, 0, 0, 0)}
    )
    for (images, _), (plain_images, _) in zip(
        data.training_batches(derive_seed(0, 2)), expected, strict=True
    ):
        torch.testing.assert_close(images, plain_images, atol=1e-5, rtol=1e-5)


def test_a_resumed_epoch_goes_on_with_the_same_batches(pictures, monkeypatch):
    data, _ = training_data(monkeypatch, pictures, "--image_size", 24, "--batch_size", 8)
    whole, rest = (list(data.training_batches(4, first)) for first in (0, 1))
    assert len(whole) == data.steps == 3  # 19 images: three remain for the last batch
    for (images, labels), (same_images, same_labels) in zip(whole[1:], rest, strict=True):
        assert torch.equal(images, same_images) and torch.equal(labels, same_labels)


@pytest.mark.parametrize(
    ("size", "batch_size", "steps"), [(1, 8, 3), (1, 9, 2), (2, 8, 2), (2, 5, 4)]
)
def test_a_rest_of_less_than_two_images_a_process_is_left_out(
    size, batch_size, steps, pictures, monkeypatch
):
    data, _ = training_data(
        monkeypatch, pictures, "--image_size", 8, "--batch_size", batch_size, size=size
    )
    assert data.steps == len(list(data.training_batches(0, 0))) == steps  # of 19 images


def plain_validation(files, resize, size, mean=MEAN, std=STD):
    """As torchvision's recipe does, decoded in full."""
    transform = transforms.Compose([
        transforms.Resize(resize), transforms.CenterCrop(size), transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ])  # fmt: skip
    return torch.stack([transform(Image.open(file).convert("RGB")) for file in files])


def assert_nearly_the_same(images, expected, std=STD):
    """Equal but for a rounding of pixels."""
    assert images.shape == expected.shape
    assert ((images - expected).abs().amax((0, 2, 3)) <= 1.01 / 255 / torch.tensor(std)).all()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """JPEGs that are large enough to be decoded at a part of their size."""
    return write_pictures(tmp_path_factory.mktemp("photographs"), [(301, 202), (160, 257)], "jpg")


def test_validation_images_are_the_middle_of_fully_decoded_images(photographs, monkeypatch):
    for arguments, resize in (([], 37), (["--validation_resize", 45], 45)):
        data, description = training_data(
            monkeypatch, photographs, "--image_size", 32, "--batch_size", 2, *arguments
        )
        images, labels = map(torch.cat, zip(*data.validation_batches(), strict=True))
        files, expected_labels = files_and_labels(photographs, "val")
        assert_nearly_the_same(images, plain_validation(files, resize, 32))
        assert labels.tolist() == expected_labels == [1, 1, 1, 2, 2]
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert (description["image_size"], description["validation_resize"]) == (32, resize)
        assert (description["mean"], description["std"]) == (MEAN, STD)


def test_published_sizes_are_224_out_of_256(photographs, monkeypatch):
    data, description = training_data(monkeypatch, photographs, "--batch_size", 4)
    images = torch.cat([images for images, _ in data.validation_batches()])
    files, _ = files_and_labels(photographs, "val")
    assert_nearly_the_same(images, plain_validation(files, 256, 224))
    assert next(iter(data.training_batches(0, 0)))[0].shape == (4, 3, 224, 224)
    assert (description["image_size"], description["validation_resize"]) == (224, 256)


def test_two_processes_share_the_validation_images_out(photographs, monkeypatch):
    parts = []
    for rank in (0, 1):
        data, _ = training_data(
            monkeypatch, photographs, "--image_size", 32, "--batch_size", 4, rank=rank, size=2
        )
        batches = [images for images, _ in data.validation_batches()]
        assert max(map(len, batches)) == 2  # the batch size is that of both together
        parts.append(torch.cat(batches))
    files, _ = files_and_labels(photographs, "val")
    for rank, part in enumerate(parts):
        assert_nearly_the_same(part, plain_validation(files[rank::2], 37, 32))


def evaluated_images(monkeypatch, root, checkpoint, *arguments):
    """The images that test_imagenet.py evaluates."""
    evaluated = []

    def record(network, batches, *_):
        evaluated.extend(batches)
        return {"count": 0, "top1": 0.0, "top5": 0.0}

    monkeypatch.setattr(test_imagenet, "evaluate", record)
    arguments = ["--data_path", root, "--model_path", checkpoint, "--workers", 0, *arguments]
    arguments += ["--init_channels", 2, "--layers", 3, "--batch_size", 4]
    args = test_imagenet.parse_arguments([*map(str, arguments)])
    test_imagenet.test(args, SimpleNamespace(device=CPU, rank=0, size=1, is_main=False))
    return torch.cat([images for images, _ in evaluated])


@pytest.mark.parametrize(
    ("described", "arguments", "resize", "size", "mean", "std"),
    [
        ({}, [], 256, 224, MEAN, STD),
        ({}, ["--image_size", 32], 37, 32, MEAN, STD),
        ({"image_size": 40, "validation_resize": 44}, [], 44, 40, MEAN, STD),
        ({"image_size": 40, "validation_resize": 44}, ["--image_size", 32], 37, 32, MEAN, STD),
        ({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 4]}, ["--image_size", 32, "--validation_resize",
          33], 33, 32, (0.1, 0.2, 0.3), (1, 2, 4)),
    ],
)  # fmt: skip
def test_test_images_are_sized_and_normalised_as_the_checkpoint_or_the_flags_say(
    described, arguments, resize, size, mean, std, photographs, tmp_path, monkeypatch
):
    content = NetworkImageNet(2, 3, 3, False, RelativeNAS).state_dict()
    if described:
        own = describe_network("imagenet", RelativeNAS, 2, 3, False, 3)
        content = own | described | {"state_dict": content}
    torch.save(content, tmp_path / "weights.pt")
    images = evaluated_images(monkeypatch, photographs, tmp_path / "weights.pt", *arguments)
    files, _ = files_and_labels(photographs, "val")
    assert_nearly_the_same(images, plain_validation(files, resize, size, mean, std), std)


def write_lists(data, order):
    """Lists with the classes in an order that need not be the sorted one."""
    data.mkdir()
    for split, classes in CLASSES.items():
        keys = [f"{name}/{number}.png" for name in order for number in range(classes.get(name, 0))]
        (data / f"{split}_datalist.txt").write_text("".join(f"{key}\n" for key in keys))


def test_labels_are_places_among_the_sorted_training_classes(pictures, tmp_path):
    write_lists(tmp_path / "lmdb", ["n2", "n3", "n1"])
    for split in CLASSES:
        call_data_script(
            "img2lmdb", "--image_path", pictures, "--list_path", tmp_path / "lmdb",
            "--output_path", tmp_path / "lmdb", "--split", split,
        )  # fmt: skip
    for root in (pictures, tmp_path / "lmdb"):
        for split, classes in CLASSES.items():
            images = open_images(root, split)
            assert images.num_classes == 3 and len(images) == sum(classes.values())
            for index in range(len(images)):
                encoded, label = images.read(index)
                assert encoded == (pictures / split / images.key(index)).read_bytes()
                assert images.key(index).startswith(f"n{label + 1}/")
            images.close()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_images_resized_into_an_lmdb_are_bilinear_jpegs(mode, tmp_path):
    image = picture(5, 61, 40).convert(mode)
    (tmp_path / "train" / "n1").mkdir(parents=True)
    image.save(tmp_path / "train" / "n1" / "0.jpg", quality=90)
    (tmp_path / "train_datalist.txt").write_text("n1/0.jpg")
    call_data_script(
        "img2lmdb", "--image_path", tmp_path, "--list_path", tmp_path, "--output_path",
        tmp_path / "lmdb", "--split", "train", "--image_size", 20,
    )  # fmt: skip
    images = open_images(tmp_path / "lmdb", "train")
    encoded, _ = images.read(0)
    images.close()
    decoded = Image.open(tmp_path / "train" / "n1" / "0.jpg")
    expected = decoded.convert("L" if mode == "L" else "RGB")
    expected = expected.resize((30, 20), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    expected.save(file, "JPEG", quality=95)
    assert encoded == file.getvalue()
