"""Class names: they travel with a checkpoint, and images of other classes are refused by name."""

import json
import re
import shutil

import pytest
import torch
from fuzzing import tiny_checkpoint
from helpers import (
    TINY_IMAGENET,
    TINY_SEARCH,
    assert_one_line,
    call_data_script,
    call_script,
    only_folder,
    write_image_folder,
    write_lmdb_set,
    write_small_set,
)

from dataset.class_names import names_by_label, with_labels_of_network
from dataset.image_set import ImageSet, load_image_set


@pytest.fixture(scope="module")
def trained_on_folder(tmp_path_factory):
    """The run folder of a training on cat, dog and eel, and its images."""
    parent = tmp_path_factory.mktemp("folder")
    with pytest.MonkeyPatch.context() as monkeypatch:
        arguments = [*write_small_set(parent / "data"), "--epochs", "1", "--no-cutout"]
        arguments += ["--save", parent / "runs" / "EXP"]
        assert call_script("train", arguments, monkeypatch) == 0
    return only_folder(parent / "runs"), parent / "data"


@pytest.fixture(scope="module")
def trained_on_imagenet(tmp_path_factory):
    """The run folder of a training on the classes a, b and c, and its LMDBs."""
    parent = tmp_path_factory.mktemp("imagenet")
    counts = {"train": {"a": 8, "b": 8, "c": 8}, "val": {"a": 3, "b": 4, "c": 4}}
    data = write_lmdb_set(parent / "data", counts)
    arguments = [*TINY_IMAGENET, "--epochs", "2", "--data_path", data]
    with pytest.MonkeyPatch.context() as monkeypatch:
        arguments += ["--save", parent / "runs" / "EXP"]
        assert call_script("train_imagenet", arguments, monkeypatch) == 0
    return only_folder(parent / "runs"), data


def test_checkpoints_name_their_classes(
    trained_on_folder, trained_on_imagenet, tmp_path, monkeypatch
):
    for (folder, _), names in (
        (trained_on_folder, ["cat", "dog", "eel"]), (trained_on_imagenet, ["a", "b", "c"])
    ):  # fmt: skip
        for name in ("last.pt", "best.pt"):
            assert torch.load(folder / name)["class_names"] == names
    lean = tmp_path / "lean.pt"
    arguments = ["--model_path", trained_on_folder[0] / "best.pt", "--format", "checkpoint"]
    assert call_script("export", [*arguments, "-o", lean], monkeypatch) == 0
    assert torch.load(lean)["class_names"] == ["cat", "dog", "eel"]


def test_a_search_names_its_classes_too(tmp_path, monkeypatch):
    arguments = [*TINY_SEARCH, "--pop_size", "2", "--epochs", "1", "--save", tmp_path / "EXP"]
    assert call_script("train_search", arguments, monkeypatch) == 0
    weight_set = torch.load(only_folder(tmp_path) / "weight_set.pt")
    assert weight_set["class_names"] == list("0123456789")


def test_images_of_other_classes_are_refused_by_name(
    trained_on_folder, tmp_path, monkeypatch, capsys
):
    write_image_folder(tmp_path, {"test": {"ant": 1, "cat": 1, "dog": 1}})
    arguments = ["--model_path", trained_on_folder[0] / "best.pt", "--data", tmp_path]
    status = call_script("test", arguments, monkeypatch)
    assert_one_line(
        status, capsys, "best.pt: was not trained on ant, but on cat, dog, eel", "class folders"
    )
    status = call_script("test", [*arguments, "--set", "digits"], monkeypatch)
    assert_one_line(status, capsys, "was not trained on 0, 1, 2, 3, 4 and 5 more classes")


@pytest.mark.parametrize("beside_training_images", [True, False])
@pytest.mark.parametrize("classes", [["dog"], ["eel", "dog"]])
def test_a_part_of_the_classes_keeps_its_labels(
    beside_training_images, classes, trained_on_folder, tmp_path, monkeypatch, capsys
):
    folder, data = trained_on_folder
    for name in classes:
        shutil.copytree(data / "test" / name, tmp_path / "test" / name)
    if beside_training_images:
        shutil.copytree(data / "train", tmp_path / "train")
    arguments = ["--model_path", folder / "best.pt", "--data", tmp_path]
    assert call_script("test", arguments, monkeypatch) == 0
    accuracy = float(re.search(r"top-1 accuracy +(\S+) %", capsys.readouterr().out)[1])
    confusion = json.loads((folder / "confusion.json").read_text())
    labels = [confusion["classes"].index(name) for name in classes]
    right = sum(confusion["counts"][label][label] for label in labels)
    images = sum(sum(confusion["counts"][label]) for label in labels)
    assert accuracy == pytest.approx(100 * right / images, abs=0.01)


def test_labels_become_those_of_the_network():
    images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    image_set = ImageSet(images, torch.tensor([0, 1, 1, 0]), 2, ("b", "d"))
    network = with_labels_of_network(image_set, ["a", "b", "", "d"], 9, "--model_path x")
    assert network.labels.tolist() == [1, 3, 3, 1]
    assert network.num_classes == 9
    digits = load_image_set("digits", "", "test")
    same = with_labels_of_network(digits, digits.class_names, 10, "--model_path x")
    assert torch.equal(same.labels, digits.labels)


def test_names_stand_in_the_order_of_their_labels():
    assert names_by_label({"c": 0, "a": 3, "b": 1}) == ["c", "b", "", "a"]
    assert names_by_label({"cat": 0, "tiger": 0}) == []


def imagenet_errors(output):
    return re.findall(r"top-\d error +(\S+) %", output)


def test_imagenet_folders_with_a_part_of_the_classes_keep_their_labels(
    trained_on_imagenet, tmp_path, monkeypatch, capsys
):
    folder, data = trained_on_imagenet
    shutil.copytree(data.parent / "images" / "val" / "c", tmp_path / "val" / "c")
    common = ["--model_path", folder / "best.pt", "--workers", "0", "--data_path"]
    assert call_script("test_imagenet", [*common, tmp_path], monkeypatch) == 0
    alone = imagenet_errors(capsys.readouterr().out)
    # The same images with the training images beside them, which give them their labels.
    (tmp_path / "train").symlink_to(data.parent / "images" / "train")
    arguments = [*common, tmp_path, "--num_classes", "3"]
    assert call_script("test_imagenet", arguments, monkeypatch) == 0
    assert imagenet_errors(capsys.readouterr().out) == alone
    (tmp_path / "val" / "c").rename(tmp_path / "val" / "z")
    (tmp_path / "train").unlink()
    status = call_script("test_imagenet", [*common, tmp_path], monkeypatch)
    assert_one_line(status, capsys, "was not trained on z, but on a, b, c")


def test_an_lmdb_with_other_labels_is_refused(trained_on_imagenet, tmp_path, monkeypatch, capsys):
    folder, data = trained_on_imagenet
    images = tmp_path / "images"
    shutil.copytree(data.parent / "images" / "val" / "c", images / "val" / "c")
    call_data_script("mk_img_list", "--image_path", images, "--output_path", tmp_path)
    for lists, output in ((tmp_path, "alone"), (tmp_path / "with_train", "with_train")):
        if output == "with_train":
            lists.mkdir()
            shutil.copy(tmp_path / "val_datalist.txt", lists)
            shutil.copy(data / "train_datalist.txt", lists)
        call_data_script(
            "img2lmdb", "--image_path", images, "--list_path", lists, "--output_path",
            tmp_path / output, "--split", "val",
        )  # fmt: skip
    common = ["--model_path", folder / "best.pt", "--workers", "0", "--data_path"]
    status = call_script("test_imagenet", [*common, tmp_path / "alone"], monkeypatch)
    assert_one_line(status, capsys, "label of class c is 0, but 2 in", "train_datalist.txt")
    assert call_script("test_imagenet", [*common, tmp_path / "with_train"], monkeypatch) == 0


@pytest.mark.parametrize("names", [3, "ab", [1, 2], ["a", "b", "c"], ["a", "a"], [["a"]]])
def test_names_that_cannot_be_are_refused(names, tmp_path, monkeypatch, capsys):
    path = tmp_path / "odd.pt"
    torch.save({**tiny_checkpoint(), "class_names": names}, path)
    status = call_script("test", ["--model_path", path], monkeypatch)
    assert_one_line(status, capsys, "does not describe a network", "class_names")
