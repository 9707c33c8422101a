"""train_imagenet.py and test_imagenet.py as a user runs them, and every mistake a user can make."""

import re
import shutil

import lmdb
import pytest
import torch
from helpers import (
    TINY_IMAGENET,
    assert_one_line,
    call_script,
    history_without_seconds,
    only_folder,
    start_script,
    write_image_folder,
    write_lmdb_set,
)

from dataset.lmdb_set import decode_value, encode_value
from genotypes import RelativeNAS
from model import NetworkImageNet
from train_imagenet import learning_rate

COUNTS = {"train": {"a": 8, "b": 8, "c": 8}, "val": {"a": 3, "b": 4, "c": 4}}


@pytest.fixture(scope="module")
def whole_data(tmp_path_factory):
    return write_lmdb_set(tmp_path_factory.mktemp("data"), COUNTS)


@pytest.fixture
def data(whole_data, tmp_path):
    return shutil.copytree(whole_data, tmp_path / "data")


def arguments_of(data, tmp_path):
    return [*TINY_IMAGENET, "--data_path", data, "--save", tmp_path / "runs" / "EXP"]


def test_learning_rate_at_its_corners():
    def published(epoch):
        return learning_rate(epoch, 250, 0.5, 5, 5)

    assert [published(epoch) for epoch in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert published(5) == pytest.approx(0.5 * 240 / 245)
    assert published(6) == pytest.approx(0.5 * 239 / 245)
    assert published(244) == pytest.approx(0.5 * 1 / 245)
    assert published(245) == pytest.approx(0.5 * 5 / (245 * 5))
    assert published(249) == pytest.approx(0.5 * 1 / (245 * 5))
    rates = [published(epoch) for epoch in range(250)]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(0, 1, 0.5, 0, 0) == 0.5
    assert learning_rate(2, 4, 1.0, 0, 0) == 0.5
    assert learning_rate(0, 2, 1.0, 1, 1) == learning_rate(1, 2, 1.0, 1, 1) == 1.0


def results(output):
    """What test_imagenet.py printed, but for the speed."""
    return [line for line in output.splitlines() if not line.startswith("speed")]


def test_train_and_test_on_lmdb_and_on_a_folder(whole_data, tmp_path, monkeypatch, capsys):
    folders = {}
    for name, data in (("lmdb", whole_data), ("folder", whole_data.parent / "images")):
        arguments = arguments_of(data, tmp_path / name)
        assert call_script("train_imagenet", arguments, monkeypatch) == 0
        folders[name] = only_folder(tmp_path / name / "runs")
    from_lmdb, from_folder = map(history_without_seconds, folders.values())
    assert from_lmdb == from_folder
    rates = [record["learning_rate"] for record in from_lmdb]
    assert rates == pytest.approx([0.05, 0.05 * 2 / 3, 0.05 / 3, 0.05 / 3])
    for record in from_lmdb:
        assert record["train"]["count"] == 24
        assert record["validation"]["count"] == 11
    best = folders["lmdb"] / "best.pt"
    capsys.readouterr()
    printed = []
    for data in (whole_data, whole_data.parent / "images"):
        arguments = ["--auxiliary", "--model_path", best, "--arch", "RelativeNAS"]
        arguments += ["--data_path", data, "--workers", "0"]
        assert call_script("test_imagenet", arguments, monkeypatch) == 0
        output = capsys.readouterr().out
        assert f"11 of {data}" in output
        assert re.search(r"speed +\d+\.\d images/s", output)
        printed.append(results(output)[1:])
    assert printed[0] == printed[1]
    error = float(re.search(r"top-1 error +(\d+\.\d+) %", output)[1])
    assert error == pytest.approx(100 - torch.load(best)["top1"], abs=0.005)
    assert re.search(r"top-5 error +0\.00 %", output)
    assert re.search(r"parameters +0\.0\d M", output)
    assert re.search(r"multiply-adds +\d+\.\d M at 16×16", output)


def test_a_published_state_dict_is_tested_with_flags(whole_data, tmp_path, monkeypatch, capsys):
    network = NetworkImageNet(4, 1000, 3, True, RelativeNAS)
    path = tmp_path / "published.pt"
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, path)
    arguments = ["--model_path", path, "--data_path", whole_data, "--layers", "3", "--auxiliary"]
    arguments += ["--init_channels", "4", "--image_size", "16", "--workers", "0"]
    status = call_script("test_imagenet", arguments, monkeypatch)
    assert_one_line(status, capsys, "1000 classes", "has 3", "--num_classes 1000")
    arguments += ["--num_classes", "1000"]
    assert call_script("test_imagenet", arguments, monkeypatch) == 0
    assert "test images     11" in capsys.readouterr().out


def change_value(data, key, change, split="train"):
    with lmdb.open(str(data / split)) as environment, environment.begin(write=True) as transaction:
        transaction.put(key, change(transaction.get(key)))


def relabel(label):
    return lambda value: encode_value(decode_value(value)[0], label)


def cut_image(value):
    image, label = decode_value(value)
    return encode_value(image[: len(image) // 2], label)


def not_an_lmdb(data):
    (data / "train" / "data.mdb").write_bytes(b"no LMDB" * 2000)


def cut_file(data):
    path = data / "train" / "data.mdb"
    path.write_bytes(path.read_bytes()[:-8192])


def no_lmdb_at_all(data):
    (data / "train" / "data.mdb").unlink()


def add_key(data):
    with open(data / "train_datalist.txt", "a") as file:
        file.write("c/missing.JPEG\n")


DAMAGES = {
    "missing list": (
        lambda d: (d / "train_datalist.txt").unlink(), ["train_datalist.txt", "No such file"]
    ),
    "missing list of the second split": (
        lambda d: (d / "val_datalist.txt").unlink(), ["val_datalist.txt", "No such file"]
    ),
    "key not in the LMDB": (add_key, ["c/missing.JPEG", "not in", "1 of 25"]),
    "truncated value": (
        lambda d: change_value(d, b"b/4.JPEG", lambda value: value[:-9]),
        ["b/4.JPEG", "damaged", "truncated"],
    ),
    "empty value": (lambda d: change_value(d, b"b/4.JPEG", lambda _: b""), ["b/4.JPEG", "damaged"]),
    "other value": (
        lambda d: change_value(d, b"b/4.JPEG", lambda _: b"\x01"), ["b/4.JPEG", "damaged"]
    ),
    "truncated image": (
        lambda d: change_value(d, b"b/4.JPEG", cut_image), ["b/4.JPEG", "not an image"]
    ),
    "not an LMDB": (not_an_lmdb, ["train", "not an LMDB", "img2lmdb.py"]),
    "LMDB cut short": (cut_file, ["train", "cut short"]),
    "neither LMDB nor folder": (no_lmdb_at_all, ["train/", "neither an LMDB"]),
    "no folder": (lambda d: shutil.rmtree(d / "val"), ["no folder val/"]),
    "label beyond the class count": (
        lambda d: change_value(d, b"b/4.JPEG", relabel(3)), ["b/4.JPEG", "label 3", "3 classes"]
    ),
    "validation label beyond the class count": (
        lambda d: change_value(d, b"b/0.JPEG", relabel(70), "val"),
        ["b/0.JPEG", "label 70", "3 classes"],
    ),
    "splits disagree": (
        lambda d: change_value(d, b"b/0.JPEG", relabel(0), "val"),
        ["label of class b is 0, but 1 in"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_data(damage, data, tmp_path, monkeypatch, capsys):
    make, expected = DAMAGES[damage]
    make(data)
    status = call_script("train_imagenet", arguments_of(data, tmp_path), monkeypatch)
    assert_one_line(status, capsys, *expected)


def test_a_damaged_value_is_one_line_from_a_worker_too(data, tmp_path):
    change_value(data, b"b/4.JPEG", lambda value: value[:-9])
    process = start_script("train_imagenet", [*arguments_of(data, tmp_path), "--workers", "1"])
    output = process.communicate()[0]
    assert process.returncode == 2
    (error,) = [line for line in output.splitlines() if "TensorBoard:" not in line]
    assert error.startswith("error: ") and "b/4.JPEG" in error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data_path", "nowhere"], ["nowhere", "train/"]),
        (["--epochs", "5"], ["--final_epochs 5", "--epochs 5"]),
        (["--num_classes", "0"], ["--num_classes: 0"]),
        (["--num_classes", "2"], ["c/", "label 2", "2 classes"]),
        (["--image_size", "0"], ["--image_size: 0"]),
        (["--workers", "-1"], ["--workers: -1"]),
        (["--crop_scale", "0.5", "0.1"], ["--crop_scale"]),
        (["--color_jitter", "0.4", "0.4", "0.4", "0.7"], ["--color_jitter", "0.5"]),
        (["--label_smoothing", "1"], ["--label_smoothing: 1"]),
        (["--std", "0", "1", "1"], ["--std"]),
        (["--validation_resize", "15"], ["--validation_resize 15", "16"]),
        (["--batch_size", "1"], ["--batch_size 1", "batch norm"]),
    ],
)
def test_arguments_out_of_range(arguments, expected, whole_data, tmp_path, monkeypatch, capsys):
    common = arguments_of(whole_data, tmp_path)
    if "--epochs" in arguments:
        common += ["--final_epochs", "5"]
    status = call_script("train_imagenet", [*common, *arguments], monkeypatch)
    assert_one_line(status, capsys, *expected)


def test_data_path_is_needed(tmp_path, monkeypatch, capsys):
    for script, arguments in (("train_imagenet", []), ("test_imagenet", ["--model_path", "x"])):
        status = call_script(script, arguments, monkeypatch)
        assert_one_line(status, capsys, "--data_path is missing")


def test_checkpoints_of_the_other_kind_are_refused(whole_data, tmp_path, monkeypatch, capsys):
    write_image_folder(tmp_path / "small", {"train": {"a": 4}, "test": {"a": 1}})
    arguments = ["--set", "folder", "--data", tmp_path / "small", "--layers", "3"]
    arguments += ["--init_channels", "2", "--epochs", "1", "--save", tmp_path / "cifar" / "EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    best = only_folder(tmp_path / "cifar") / "best.pt"
    arguments = ["--model_path", best, "--data_path", whole_data]
    status = call_script("test_imagenet", arguments, monkeypatch)
    assert_one_line(status, capsys, "not for imagenet", "test.py")


@pytest.mark.parametrize("image_size", [1, 8, 30, 64, 97])
def test_the_auxiliary_head_fits_any_image_size(image_size):
    with torch.device("meta"):
        network = NetworkImageNet(2, 7, 14, True, RelativeNAS)
        logits, logits_aux = network(torch.zeros(2, 3, image_size, image_size))
    assert logits.shape == logits_aux.shape == (2, 7)
