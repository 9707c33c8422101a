"""Image sets: digits, folders, their statistics, and batches over one or more processes."""

import numpy as np
import pytest
import torch
from helpers import write_image_folder
from PIL import Image

from dataset.augmentation import Augmentation
from dataset.batching import Batching
from dataset.image_batches import evaluation_batches, training_batches
from dataset.image_set import (
    ImageSet,
    Statistics,
    image_statistics,
    load_image_set,
    set_augmentation,
)
from runtime.errors import UserError

CPU = torch.device("cpu")


def test_digits_are_split_by_class_and_scaled():
    train, test = load_image_set("digits", "", "train"), load_image_set("digits", "", "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (3, 16, 16) and train.images.dtype == torch.uint8
    assert train.images.max() == 255
    assert torch.equal(train.images[:, 0], train.images[:, 2])
    share = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert share.min() > 0.19 and share.max() < 0.21
    both = torch.cat([train.images, test.images]).flatten(1)
    assert len(both.unique(dim=0)) > 1780  # nearly all 1,797 differ: no test image is trained on


def test_folder_is_read_in_sorted_order(tmp_path):
    write_image_folder(tmp_path, {"train": {"b": 3, "a": 2}, "val": {"a": 1, "b": 1}}, size=8)
    train = load_image_set("folder", str(tmp_path), "train", 8)
    assert train.labels.tolist() == [0, 0, 1, 1, 1]
    assert train.num_classes == 2
    expected = np.asarray(Image.open(tmp_path / "train" / "b" / "1.png"))
    assert np.array_equal(train.images[3].permute(1, 2, 0).numpy(), expected)
    assert len(load_image_set("folder", str(tmp_path), "test", 8)) == 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_folder_takes_every_image_mode_and_shape(mode, tmp_path):
    write_image_folder(tmp_path, {"train": {"a": 1}, "test": {"a": 1}})
    suffix = "tif" if mode in ("CMYK", "I;16") else "png"
    image = Image.new(mode, (31, 17))
    image.save(tmp_path / "train" / "a" / f"other.{suffix}")
    assert load_image_set("folder", str(tmp_path), "train").images.shape == (2, 3, 32, 32)


def test_statistics_are_measured_once_and_kept(tmp_path):
    images = torch.randint(256, (50, 3, 4, 4), dtype=torch.uint8)
    image_set = ImageSet(images, torch.zeros(50, dtype=torch.int64), 1)
    kept = tmp_path / "statistics.json"
    measured = image_statistics("folder", image_set, kept)
    pixels = images.double() / 255
    assert measured.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert measured.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist())
    other = ImageSet(torch.zeros_like(images), image_set.labels, 1)
    again = image_statistics("folder", other, kept)
    assert again.tensors(CPU)[0].tolist() == measured.tensors(CPU)[0].tolist()


def test_digits_are_not_mirrored_and_crops_scale():
    assert set_augmentation("digits", 16, cutout=False) == Augmentation(2, False, 0)
    assert set_augmentation("digits", 16, cutout=True) == Augmentation(2, False, 8)
    assert set_augmentation("cifar10", 32, cutout=True) == Augmentation(4, True, 16)
    assert set_augmentation("cifar10", 32, cutout=True, cutout_length=4) == Augmentation(4, True, 4)


def numbered_set(count):
    """Images whose every pixel is their number."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    return ImageSet(images.contiguous(), torch.arange(count), count)


STATISTICS = Statistics((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
PLAIN = Augmentation(0, False, 0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_out_each_training_batch(world_size):
    image_set = numbered_set(50)
    parts = [
        list(training_batches(image_set, PLAIN, STATISTICS, Batching(12, CPU, rank, world_size), 5))
        for rank in range(world_size)
    ]
    whole = list(training_batches(image_set, PLAIN, STATISTICS, Batching(12, CPU), 5))
    last_is_left_out = world_size > 1  # 50 = 4·12 + 2: two images are too few for two processes
    assert len(whole) == 5
    assert {len(part) for part in parts} == {4 if last_is_left_out else 5}
    for step in range(4):
        together = torch.cat([part[step][1] for part in parts])
        assert sorted(together.tolist()) == sorted(whole[step][1].tolist())
    for images, labels in parts[0]:
        torch.testing.assert_close(images[:, 0, 0, 0], labels.float())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_image_is_evaluated_once(world_size):
    labels = [
        label
        for rank in range(world_size)
        for _, batch in evaluation_batches(
            numbered_set(50), STATISTICS, Batching(8, CPU, rank, world_size)
        )
        for label in batch.tolist()
    ]
    assert sorted(labels) == list(range(50))


def test_missing_cifar_names_the_folder_and_the_way_out(tmp_path, monkeypatch):
    from torchvision import datasets

    def no_network(self):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.CIFAR10, "download", no_network)
    with pytest.raises(UserError, match=r"cifar-10-batches-py.*no route.*--set digits") as error:
        load_image_set("cifar10", str(tmp_path), "train")
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_image_size_goes_with_folders_only():
    with pytest.raises(UserError, match="--image_size"):
        load_image_set("digits", "", "train", 32)
