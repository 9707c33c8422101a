"""Batches of encoded images: what is drawn, in which order, and by whom."""

import shutil

import pytest
import torch
from helpers import write_image_folder, write_lmdb_set

from dataset.batching import Batching
from dataset.encoded_batches import Loading, evaluation_batches, training_batches
from dataset.encoded_images import open_images
from dataset.image_set import Statistics
from runtime.errors import UserError

COUNT = {"train": {"a": 13, "b": 12}, "val": {"a": 4, "b": 3}}

PLAIN = Statistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_lmdb_set(tmp_path_factory.mktemp("data"), COUNT)


@pytest.fixture
def images(data):
    train = open_images(data, "train")
    yield train
    train.close()


def loading(workers=0, rank=0, world_size=1, **options):
    batching = Batching(10, torch.device("cpu"), rank, world_size)
    return Loading(16, 18, PLAIN, batching, workers, **options)


def joined(batches):
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def assert_equal(first, second):
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_an_epoch_does_not_depend_on_the_workers(images):
    alone, helped = (joined(training_batches(images, loading(workers), 5)) for workers in (0, 2))
    assert alone[0].shape == (25, 3, 16, 16) and alone[0].dtype == torch.float32
    assert sorted(alone[1].tolist()) == [0] * 13 + [1] * 12
    assert_equal(alone, helped)
    other = joined(training_batches(images, loading(), 6))
    assert not torch.equal(alone[0], other[0])


@pytest.mark.parametrize("world_size", [2, 3])
def test_an_epoch_does_not_depend_on_the_processes(world_size, images):
    alone = list(training_batches(images, loading(), 5))
    parts = [
        list(training_batches(images, loading(rank=rank, world_size=world_size), 5))
        for rank in range(world_size)
    ]
    # 25 = 2·10 + 5: with three processes, five images are too few for two each.
    assert {len(part) for part in parts} == {3 if world_size == 2 else 2}
    for step in range(len(parts[0])):
        for rank, part in enumerate(parts):
            assert_equal(part[step], [whole[rank::world_size] for whole in alone[step]])


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_image_is_evaluated_once_and_in_order(world_size, data):
    validation = open_images(data, "val")
    whole = joined(evaluation_batches(validation, loading()))
    assert whole[1].tolist() == [0] * 4 + [1] * 3
    for rank in range(world_size):
        part = joined(evaluation_batches(validation, loading(rank=rank, world_size=world_size)))
        assert_equal(part, [tensor[rank::world_size] for tensor in whole])
    validation.close()


def test_lmdb_and_folder_give_the_same_batches(data, images):
    folder = open_images(data.parent / "images", "train")
    assert_equal(*(joined(training_batches(source, loading(), 5)) for source in (images, folder)))


def test_half_of_the_images_are_mirrored_and_colours_change(tmp_path):
    write_image_folder(tmp_path / "one", {"train": {"a": 1}}, 16)
    (tmp_path / "many" / "train" / "a").mkdir(parents=True)
    for number in range(200):
        copy = tmp_path / "many" / "train" / "a" / f"{number}.png"
        shutil.copy(tmp_path / "one" / "train" / "a" / "0.png", copy)
    one, images = (open_images(tmp_path / name, "train") for name in ("one", "many"))
    whole = {"crop_scale": (1.0, 1.0)}
    (original,) = (batch[0] for batch in evaluation_batches(one, loading()))
    mirrored = 0
    assert loading().batching.steps(1) == 0  # one image is too few for batch norm
    plain, _ = joined(training_batches(images, loading(jitter=(0, 0, 0, 0), **whole), 1))
    for image in plain:
        # An image is 16×16 whole, or a little less of it if its shape was drawn otherwise.
        mirrored += (image - image.flip(2)).abs().sum() > 0 and (
            (image.flip(2) - original[0]).abs().mean() < (image - original[0]).abs().mean()
        )
    assert 70 < mirrored < 130
    jittered, _ = joined(training_batches(images, loading(**whole), 1))
    difference = (jittered - plain).abs().mean(dim=(1, 2, 3))
    assert (difference > 0.005).float().mean() > 0.95
    assert difference.std() > 0.01  # each by another amount


def test_a_value_that_cannot_be_decoded_is_named_by_any_worker(tmp_path):
    write_image_folder(tmp_path, {"train": {"a": 5}})
    (tmp_path / "train" / "a" / "3.png").write_bytes(b"nothing")
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"a/3\.png: not an image") as error:
            list(training_batches(open_images(tmp_path, "train"), loading(workers), 0))
        assert "\n" not in str(error.value)
