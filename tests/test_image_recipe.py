"""What train.py and test.py do to images, against plain code for one image at a time.

What they hand to the training is taken instead of trained on, so that the whole way from a flag to
a batch is seen.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import write_image_folder
from PIL import Image
from torchvision import datasets

import export
import hubconf
import test as test_script
import train
from dataset.batching import Batching
from dataset.image_list import class_labels
from dataset.image_set import STATISTICS_FILE, Statistics, load_image_set
from genotypes import RelativeNAS
from model import NetworkCIFAR
from report.run import Run
from training.trained_network import describe_network
from utils import derive_seed

CPU = torch.device("cpu")

PUBLISHED = {
    "cifar10": ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

COUNTS = {True: 43, False: 9}
"""Training and test images of the sets that stand in for CIFAR."""


class SmallCifar:
    """In place of torchvision's: random images, and labels that are their numbers."""

    def __init__(self, root, train):
        shape = (COUNTS[train], 32, 32, 3)
        self.data = np.random.default_rng(train).integers(0, 256, shape, dtype=np.uint8)
        self.targets = list(range(COUNTS[train]))
        self.classes = [f"class {number}" for number in self.targets]


@pytest.fixture(autouse=True)
def small_cifar(monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR10", SmallCifar)
    monkeypatch.setattr(datasets, "CIFAR100", SmallCifar)


def training_data(monkeypatch, *arguments, rank=0, size=1, folder=None, told=None):
    """The images that train.py trains and validates on, and what its checkpoints say of them.

    `told` is what another process, the main one, says of the statistics.
    """
    handed_over = []
    monkeypatch.setattr(train, "fit", lambda *values: handed_over.append(values))
    process = SimpleNamespace(device=CPU, rank=rank, size=size, is_main=True)
    process.broadcast = lambda value: value
    if told:
        process.is_main, process.broadcast = False, lambda _: told
    run = Run(folder, process)
    train.train(train.parse_arguments([*map(str, arguments)]), run)
    ((_, _, task, data),) = handed_over
    return data, task.description


def plain_batches(pixels, labels, epoch_seed, rank, size, recipe, statistics, batch_size=16):
    """Training batches of uint8 (N, H, W, 3), one image at a time, in float64."""
    padding, mirrored, cutout = recipe
    count, height, width, _ = pixels.shape
    shuffle = torch.Generator().manual_seed(derive_seed(epoch_seed))
    order = torch.randperm(count, generator=shuffle).tolist()
    for step in range(-(-count // batch_size)):
        together = order[step * batch_size : (step + 1) * batch_size]
        if len(together) < 2 * size:
            return
        own = together[rank::size]
        draws = torch.Generator().manual_seed(derive_seed(epoch_seed, rank, step))
        tops, lefts = torch.randint(2 * padding + 1, (2, len(own)), generator=draws).tolist()
        flips = torch.rand(len(own), generator=draws).tolist() if mirrored else [1.0] * len(own)
        rows, columns = (
            torch.randint(side, (len(own),), generator=draws).tolist() if cutout else None
            for side in (height, width)
        )
        batch = np.empty((len(own), 3, height, width))
        for place, number in enumerate(own):
            black_around = [(padding, padding), (padding, padding), (0, 0)]
            image = np.pad(pixels[number], black_around)
            image = image[tops[place] :, lefts[place] :][:height, :width]
            if flips[place] < 0.5:
                image = image[:, ::-1]
            image = (image / 255 - np.array(statistics[0])) / np.array(statistics[1])
            if cutout:
                image = image.copy()
                top, left = (max(0, centre[place] - cutout // 2) for centre in (rows, columns))
                bottom, right = (centre[place] + cutout // 2 for centre in (rows, columns))
                image[top:bottom, left:right] = 0
            batch[place] = image.transpose(2, 0, 1)
        yield batch, labels[own]


def assert_batches(found, expected):
    for (images, labels), (plain_images, plain_labels) in zip(found, expected, strict=True):
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_allclose(images.numpy(), plain_images, rtol=1e-4, atol=1e-5)
        assert labels.tolist() == plain_labels.tolist()


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        (["--set", "cifar10"], (4, True, 16)),
        (["--set", "cifar100"], (4, True, 16)),
        (["--set", "cifar10", "--no-cutout"], (4, True, 0)),
        (["--set", "cifar10", "--cutout_length", "7"], (4, True, 7)),
    ],
)
def test_training_batches_equal_images_augmented_one_by_one(arguments, recipe, monkeypatch):
    plain = SmallCifar("", train=True)
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        data, _ = training_data(
            monkeypatch, *arguments, "--batch_size", 16, "--seed", 3, rank=rank, size=size
        )
        for epoch in (0, 1):
            expected = plain_batches(
                plain.data, np.array(plain.targets), derive_seed(3, epoch), rank, size, recipe,
                PUBLISHED[arguments[1]],
            )  # fmt: skip
            assert_batches(data.training_batches(derive_seed(3, epoch)), expected)


def test_a_resumed_epoch_goes_on_with_the_same_batches(monkeypatch):
    data, _ = training_data(monkeypatch, "--set", "cifar10", "--batch_size", 10)
    whole = list(data.training_batches(4, 0))
    assert len(whole) == data.steps == 5  # 43 images: three remain for the last batch
    assert_batches(data.training_batches(4, 2), [(x.numpy(), y.numpy()) for x, y in whole[2:]])


def test_digits_are_cropped_by_two_and_never_mirrored(monkeypatch):
    pixels = load_image_set("digits", "", "train").images.permute(0, 2, 3, 1).numpy()
    labels = load_image_set("digits", "", "train").labels.numpy()
    measured = [(pixels / 255).mean((0, 1, 2)), (pixels / 255).std((0, 1, 2))]
    data, description = training_data(monkeypatch, "--set", "digits", "--batch_size", 500)
    expected = plain_batches(
        pixels, labels, derive_seed(0, 7), 0, 1, (2, False, 8), measured, batch_size=500
    )
    assert_batches(data.training_batches(derive_seed(0, 7)), expected)
    np.testing.assert_allclose([description["mean"], description["std"]], measured)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_validation_images_are_the_test_set_in_order_and_only_normalised(name, monkeypatch):
    data, description = training_data(monkeypatch, "--set", name, "--batch_size", 4)
    images, labels = map(torch.cat, zip(*data.validation_batches(), strict=True))
    mean, std = PUBLISHED[name]
    expected = (SmallCifar("", train=False).data / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(images.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)
    assert labels.tolist() == list(range(9))
    assert (description["mean"], description["std"]) == PUBLISHED[name]


def test_two_processes_share_the_validation_images_out(monkeypatch):
    labels = []
    for rank in (0, 1):
        data, _ = training_data(
            monkeypatch, "--set", "cifar10", "--batch_size", 4, rank=rank, size=2
        )
        batches = [batch for _, batch in data.validation_batches()]
        assert max(map(len, batches)) == 2  # the batch size is that of both together
        labels += batches
    assert sorted(torch.cat(labels).tolist()) == list(range(9))


def test_no_image_is_trained_on_twice_in_an_epoch_and_epochs_differ_in_order(monkeypatch):
    data, _ = training_data(monkeypatch, "--set", "cifar10", "--batch_size", 10)
    orders = [torch.cat([y for _, y in data.training_batches(epoch, 0)]) for epoch in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(43))
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_half_of_the_images_are_mirrored_and_all_places_of_a_crop_are_as_likely(monkeypatch):
    # Without cutout, each image is told by its one bright pixel, off the middle.
    pixels = np.zeros((5000, 32, 32, 3), dtype=np.uint8)
    pixels[:, 16, 10] = 255
    many = SimpleNamespace(data=pixels, targets=[0] * 5000, classes=["one"])
    monkeypatch.setattr(datasets, "CIFAR10", lambda root, train: many)
    data, _ = training_data(
        monkeypatch, "--set", "cifar10", "--batch_size", 5000, "--no-cutout", "--seed", 1
    )
    ((images, _),) = data.training_batches(0, 0)
    places = images[:, 0].flatten(1).argmax(1)
    rows, columns = places // 32, places % 32
    assert abs((columns > 16).float().mean() - 0.5) < 0.03
    for count in (*torch.bincount(rows - 12), *torch.bincount(columns[columns < 16] - 6)):
        assert count > 0.07 * (columns < 16).sum()
    assert len(torch.bincount(rows - 12)) == 9


@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_epoch_has_as_many_steps_as_it_yields_batches(size, monkeypatch):
    data, _ = training_data(monkeypatch, "--set", "cifar10", "--batch_size", 8, size=size)
    assert data.steps == len(list(data.training_batches(0, 0))) == (6 if size == 1 else 5)
    # A rest of two images a process is still a batch, of less it is not.
    assert Batching(8, CPU, 0, size).steps(8 + 2 * size) == 2
    assert Batching(8, CPU, 0, size).steps(8 + 2 * size - 1) == 1


def write_folder_set(root):
    """Class folders made in an order that is not the sorted one; the test images' in another."""
    write_image_folder(root, {"train": dict.fromkeys(["d", "a", "f", "c", "b", "e"], 2)}, 12)
    write_image_folder(root, {"test": dict.fromkeys(["b", "f", "a", "e", "c", "d"], 1)}, 12)


def test_labels_are_places_among_the_sorted_class_folders_in_both_splits(tmp_path, monkeypatch):
    write_folder_set(tmp_path)
    for split, each in (("train", 2), ("test", 1)):
        images = load_image_set("folder", str(tmp_path), split, 12)
        assert images.class_names == tuple("abcdef")
        for label, name in enumerate("abcdef"):
            file = tmp_path / split / name / "0.png"
            first = images.images[images.labels == label][0].permute(1, 2, 0)
            assert np.array_equal(first.numpy(), np.asarray(Image.open(file)))
        assert torch.bincount(images.labels).tolist() == [each] * 6
    assert class_labels(["n3", "n1", "n2", "n1"]) == {"n1": 0, "n2": 1, "n3": 2}


def test_statistics_are_those_of_the_training_images_and_kept(tmp_path, monkeypatch):
    write_folder_set(tmp_path)
    Image.new("RGB", (12, 12), "white").save(tmp_path / "test" / "a" / "white.png")
    arguments = ["--set", "folder", "--data", tmp_path, "--image_size", 12, "--batch_size", 6]
    folder = SimpleNamespace(path=tmp_path)
    _, description = training_data(monkeypatch, *arguments, folder=folder)
    files = (tmp_path / "train").glob("*/*.png")
    pixels = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
    np.testing.assert_allclose(description["mean"], pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(description["std"], pixels.std((0, 1, 2)))
    (tmp_path / STATISTICS_FILE).write_text('{"mean": [0, 0.1, 0.2], "std": [1, 2, 3]}')
    data, again = training_data(monkeypatch, *arguments, folder=folder)
    assert (again["mean"], again["std"]) == ((0, 0.1, 0.2), (1, 2, 3))
    white = next(iter(data.validation_batches()))[0][1]
    np.testing.assert_allclose(white.mean((1, 2)), [1, 0.45, 0.8 / 3], rtol=1e-6)


def test_all_processes_normalise_by_the_main_ones_statistics(monkeypatch):
    told = Statistics((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    data, description = training_data(monkeypatch, "--set", "digits", rank=1, size=2, told=told)
    assert data.statistics == told and description["mean"] == told.mean


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (41, 41), (7, 9)])
def test_a_folders_images_are_resized_bilinear_and_keep_their_middle(size, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    folder = tmp_path / "test" / "a"
    folder.mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "0.png")
    (image,) = load_image_set("folder", str(tmp_path), "test", 10).images
    left, top = ((side - min(size)) / 2 for side in size)
    middle = (left, top, left + min(size), top + min(size))
    expected = Image.fromarray(pixels).resize((10, 10), Image.Resampling.BILINEAR, middle)
    assert np.array_equal(image.permute(1, 2, 0), np.asarray(expected))


def test_grey_print_and_transparent_images_become_rgb(tmp_path):
    folder = tmp_path / "test" / "a"
    folder.mkdir(parents=True)
    Image.new("L", (8, 8), 90).save(folder / "0.png")
    Image.new("RGBA", (8, 8), (200, 100, 50, 0)).save(folder / "1.png")  # its colour is kept
    Image.new("CMYK", (8, 8), (255, 0, 51, 0)).save(folder / "2.tif")
    Image.new("1", (8, 8), 1).save(folder / "3.png")
    images = load_image_set("folder", str(tmp_path), "test", 8).images
    expected = [[90, 90, 90], [200, 100, 50], [0, 255, 204], [255, 255, 255]]
    assert images[:, :, 4, 4].tolist() == expected


def save_checkpoint(path, classes, **described):
    """A tiny network's checkpoint: our own if something is described, else published weights."""
    network = NetworkCIFAR(2, classes, 3, False, RelativeNAS)
    content = network.state_dict()
    if described:
        own = describe_network("cifar", RelativeNAS, 2, 3, False, classes)
        content = own | described | {"state_dict": content}
    torch.save(content, path)
    return network


def evaluated_images(monkeypatch, *arguments):
    """The images that test.py evaluates."""
    evaluated = []

    def record(network, batches, *_):
        evaluated.extend(batches)
        return {"count": 0, "top1": 0.0, "top5": 0.0}

    monkeypatch.setattr(test_script, "evaluate", record)
    small = ["--init_channels", 2, "--layers", 3, "--device", "cpu"]
    test_script.test(test_script.parse_arguments([*map(str, [*arguments, *small])]))
    return torch.cat([images for images, _ in evaluated]).numpy()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_published_networks_test_images_are_normalised_as_its_set(name, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "weights.pt", COUNTS[False])
    images = evaluated_images(monkeypatch, "--model_path", tmp_path / "weights.pt", "--set", name)
    mean, std = PUBLISHED[name]
    expected = (SmallCifar("", train=False).data / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(images, expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_a_checkpoints_test_images_are_normalised_and_sized_as_it_says(tmp_path, monkeypatch):
    write_folder_set(tmp_path)
    save_checkpoint(
        tmp_path / "own.pt", 6, set="folder", image_size=12, mean=[0.1, 0.2, 0.3], std=[1, 2, 4]
    )
    images = evaluated_images(monkeypatch, "--model_path", tmp_path / "own.pt", "--data", tmp_path)
    first = np.asarray(Image.open(tmp_path / "test" / "a" / "0.png"))
    expected = (first / 255 - np.array([0.1, 0.2, 0.3])) / np.array([1, 2, 4])
    np.testing.assert_allclose(images[0], expected.transpose(2, 0, 1), atol=1e-5)


def test_a_folders_test_images_are_normalised_by_its_training_images(tmp_path, monkeypatch):
    write_folder_set(tmp_path)
    save_checkpoint(tmp_path / "weights.pt", 6)
    images = evaluated_images(
        monkeypatch, "--model_path", tmp_path / "weights.pt", "--set", "folder",
        "--data", tmp_path, "--image_size", 12,
    )  # fmt: skip
    files = (tmp_path / "train").glob("*/*.png")
    trained_on = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
    first = np.asarray(Image.open(tmp_path / "test" / "a" / "0.png")) / 255
    expected = (first - trained_on.mean((0, 1, 2))) / trained_on.std((0, 1, 2))
    np.testing.assert_allclose(images[0], expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_hub_entry_has_its_own_sets_mean_and_deviation(name):
    network = getattr(hubconf, f"relativenas_{name}")(init_channels=2, layers=3)
    assert (network.mean, network.std) == PUBLISHED[name]


def test_the_hubs_digits_have_the_mean_and_deviation_of_the_training_digits():
    pixels = load_image_set("digits", "", "train").images.double() / 255
    network = hubconf.digits()
    assert network.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert network.std == pytest.approx(pixels.std((0, 2, 3)).tolist(), rel=1e-4)


@pytest.mark.parametrize(("classes", "name"), [(10, "cifar10"), (100, "cifar100")])
def test_an_exported_network_normalises_images_as_its_set(classes, name, tmp_path):
    network = save_checkpoint(tmp_path / "weights.pt", classes).eval()
    arguments = ["--model_path", tmp_path / "weights.pt", "--format", "onnx", "-o", "new"]
    arguments += ["--init_channels", 2, "--layers", 3]
    classifier = export.load_network(export.parse_arguments([*map(str, arguments)]))
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in PUBLISHED[name])
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), network((images - mean) / std)[0])
