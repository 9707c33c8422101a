"""What a split's folder holds: the same for `--set folder`, the ImageNet scripts and the lists."""

import logging
import os
import pickle
import shutil

import pytest
from helpers import call_data_script, call_script, only_folder, write_image_folder
from PIL import Image

from dataset.class_folders import list_images
from dataset.decoding import decode_crop
from dataset.encoded_images import FolderImages, open_images
from dataset.image_list import read_list
from dataset.image_set import load_image_set
from runtime.errors import UserError

SPLITS = {"train": {"a": 2, "b": 2}, "val": {"a": 1, "b": 1}}


@pytest.fixture(autouse=True)
def log_is_captured(monkeypatch):
    """A run's own log, once begun, keeps its lines to itself."""
    monkeypatch.setattr(logging.getLogger("relativenas"), "propagate", True)


@pytest.fixture
def data(tmp_path):
    write_image_folder(tmp_path / "data", SPLITS)
    return tmp_path / "data"


def read_by_all(data, split="train"):
    """The keys and labels of a split, which all three readers give alike."""
    images = open_images(data, split)
    keys = [images.key(index) for index in range(len(images))]
    labels = [images.read(index)[1] for index in range(len(images))]
    in_memory = load_image_set("folder", str(data), "train" if split == "train" else "test", 8)
    assert in_memory.labels.tolist() == labels
    assert in_memory.num_classes == images.num_classes
    lists = data.parent / "lists"
    shutil.rmtree(lists, ignore_errors=True)
    call_data_script("mk_img_list", "--image_path", data, "--output_path", lists)
    assert read_list(lists / f"{split}_datalist.txt") == keys
    return keys, labels


def refused_by_all(data, match):
    for read in (
        lambda: load_image_set("folder", str(data), "train"),
        lambda: open_images(data, "train"),
        lambda: call_data_script(
            "mk_img_list", "--image_path", data, "--output_path", data / "lists"
        ),
    ):
        with pytest.raises(UserError, match=match) as caught:
            read()
        assert "\n" not in str(caught.value)


def save_image(path, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, kind)


def test_images_in_folders_within_a_class_are_of_it(data, caplog):
    save_image(data / "train" / "a" / "more" / "deep" / "x.png")
    save_image(data / "train" / "b" / "more" / "y.png")
    keys, labels = read_by_all(data)
    assert keys == [
        "a/0.png", "a/1.png", "a/more/deep/x.png", "b/0.png", "b/1.png", "b/more/y.png"
    ]  # fmt: skip
    assert labels == [0, 0, 0, 1, 1, 1]
    assert "folders within a class folder are of its class ('a', 'b')" in caplog.text


SUFFIXES = {"x.avif": "AVIF", "x.jfif": "JPEG", "x.jp2": "JPEG2000", "x.jpe": "JPEG",
            "x.tga": "TGA", "x": "PNG", "x.dat": "JPEG", "X.JPG": "JPEG"}  # fmt: skip


@pytest.mark.parametrize("name", SUFFIXES)
def test_images_are_known_by_their_content(name, data):
    save_image(data / "train" / "a" / name, SUFFIXES[name])
    keys, labels = read_by_all(data)
    assert f"a/{name}" in keys and labels == [0, 0, 0, 1, 1]


def test_files_that_are_no_images_are_left_out_aloud(data, caplog):
    (data / "train" / "a" / "notes.txt").write_text("text")
    (data / "train" / "b" / "boxes").write_text("0 0 8 8")
    (data / "train" / "b" / ".hidden.png").write_text("")
    (data / "train" / "readme").write_text("text")
    os.mkfifo(data / "train" / "b" / "pipe.png")
    for read in (
        lambda: load_image_set("folder", str(data), "train"),
        lambda: open_images(data, "train"),
        lambda: list_images(data / "train"),
    ):
        caplog.clear()
        read()
        (line,) = caplog.messages
        assert line.startswith("left out: 5 files ('readme', 'a/notes.txt', 'b/.hidden.png' and 2")
    assert len(read_by_all(data)[0]) == 4


def test_only_the_first_process_tells(data, caplog, monkeypatch):
    (data / "train" / "a" / "notes.txt").write_text("text")
    monkeypatch.setenv("RANK", "1")
    list_images(data / "train")
    assert not caplog.messages


@pytest.mark.parametrize(
    "name", ["Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", "__MACOSX/a/0.png", ".git/x.png"]
)
def test_what_systems_leave_lying_about_is_passed_over(name, data, caplog):
    for place in (data / "train" / name, data / "train" / "a" / name):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"a system's")
    assert read_by_all(data)[0] == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert not caplog.messages


@pytest.mark.parametrize("link", ["train/a/2.png", "train/a/more", "train/c", "train/a0"])
def test_links_to_nothing_are_refused_by_name(link, data):
    (data / link).symlink_to("../.git/annex/objects/X9")
    refused_by_all(data, rf"{link}: a link to \.\./\.git/annex/objects/X9, which is not there")


def test_a_split_that_is_a_link_to_nothing_is_not_passed_over(data):
    shutil.rmtree(data / "train")
    (data / "train").symlink_to("unmounted")
    with pytest.raises(UserError, match="train is a link to nothing"):
        load_image_set("folder", str(data), "test")
    with pytest.raises(UserError, match="train is a link to nothing"):
        open_images(data, "val")
    refused_by_all(data, "train")


def test_links_to_images_and_class_folders_are_followed(data, tmp_path):
    (data / "train" / "b").rename(tmp_path / "elsewhere")
    (data / "train" / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (data / "train" / "a" / "2.png").symlink_to("0.png")
    keys, labels = read_by_all(data)
    assert keys == ["a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png"]
    assert labels == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("link", "target"), [("a/up", ".."), ("a/here", "."), ("a/in/back", "../../a"), ("c", ".")]
)
def test_links_that_lead_back_are_refused_by_name(link, target, data):
    path = data / "train" / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target, target_is_directory=True)
    refused_by_all(data, "a link to a folder that it is in")


def test_a_link_to_itself_is_refused(data):
    (data / "train" / "a" / "x.png").symlink_to("x.png")
    refused_by_all(data, r"a/x\.png: a link to x\.png, which is not there")


@pytest.mark.parametrize("content", [[], ["notes.txt"], ["deep/deeper/"]])
def test_a_class_folder_without_images_is_refused_by_name(content, data):
    (data / "train" / "aa").mkdir()
    for name in content:
        (data / "train" / "aa" / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            (data / "train" / "aa" / name).write_text("text")
    refused_by_all(data, r"train/aa: no images in it")


def test_a_damaged_image_is_not_left_out(data):
    (data / "train" / "a" / "2.png").write_text("no image")
    assert "a/2.png" in list_images(data / "train")
    whole = (data / "train" / "a" / "0.png").read_bytes()
    (data / "train" / "a" / "no_suffix").write_bytes(whole[:-30])
    assert "a/no_suffix" in list_images(data / "train")


# Tiny ImageNet.


@pytest.fixture
def tiny_imagenet(tmp_path):
    """As it comes from its archive, but smaller; the validation images are of one colour each."""
    root = tmp_path / "tiny-imagenet-200"
    for wnid in ("n02", "n01"):
        for number in range(3):
            save_image(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", "JPEG")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
    lines = []
    for number, (wnid, grey) in enumerate([("n02", 200), ("n01", 100), ("n02", 201)]):
        path = root / "val" / "images" / f"val_{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), grey).save(path, "JPEG")
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    save_image(root / "test" / "images" / "test_0.JPEG", "JPEG")
    (root / "wnids.txt").write_text("n02\nn01\n")
    return root


def test_tiny_imagenet_is_read_as_it_comes(tiny_imagenet, caplog):
    keys, labels = read_by_all(tiny_imagenet)
    assert keys == [f"{n}/images/{n}_{number}.JPEG" for n in ("n01", "n02") for number in range(3)]
    assert labels == [0, 0, 0, 1, 1, 1]
    assert "left out: 2 files ('n01/n01_boxes.txt', 'n02/n02_boxes.txt')" in caplog.text
    keys, labels = read_by_all(tiny_imagenet, "val")
    assert keys == ["n01/val_1.JPEG", "n02/val_0.JPEG", "n02/val_2.JPEG"]
    assert labels == [0, 1, 1]
    images = pickle.loads(pickle.dumps(FolderImages(tiny_imagenet, "val")))
    in_memory = load_image_set("folder", str(tiny_imagenet), "test", 8)
    for index, grey in enumerate((100, 200, 201)):
        pixels = decode_crop(images.read(index)[0], lambda w, h: (0, 0, w, h), 8, reduced=False)
        assert (pixels == grey).all() and (in_memory.images[index] == grey).all()
    assert images.name(0) == str(tiny_imagenet / "val" / "images" / "val_1.JPEG")


def test_tiny_imagenet_goes_into_an_lmdb(tiny_imagenet, tmp_path):
    lists = ["--image_path", tiny_imagenet, "--output_path", tmp_path / "lmdb"]
    call_data_script("mk_img_list", *lists)
    for split in ("train", "val"):
        call_data_script("img2lmdb", *lists, "--list_path", tmp_path / "lmdb", "--split", split)
    for split in ("train", "val"):
        stored, plain = open_images(tmp_path / "lmdb", split), open_images(tiny_imagenet, split)
        assert stored.num_classes == plain.num_classes == 2
        assert len(stored) == len(plain)
        for index in range(len(plain)):
            assert stored.key(index) == plain.key(index)
            assert stored.read(index) == plain.read(index)
        stored.close()


def test_sorted_into_folders_its_annotations_are_another_file(tiny_imagenet):
    val = tiny_imagenet / "val"
    for number, wnid in enumerate(("n02", "n01", "n02")):
        (val / wnid).mkdir(exist_ok=True)
        (val / "images" / f"val_{number}.JPEG").rename(val / wnid / f"val_{number}.JPEG")
    (val / "images").rmdir()
    assert list_images(val) == ["n01/val_1.JPEG", "n02/val_0.JPEG", "n02/val_2.JPEG"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("val_7.JPEG\tn01\t0\t0\t1\t1\n", r"val_7\.JPEG: is in val_annotations\.txt, but not"),
        ("val_0.JPEG\tn01\n", "line 4"),
        ("../val_9.JPEG\tn01\n", "line 4"),
        ("val_9.JPEG\n", "line 4"),
    ],
)
def test_annotations_that_cannot_be(line, expected, tiny_imagenet):
    with open(tiny_imagenet / "val" / "val_annotations.txt", "a") as file:
        file.write(line)
    with pytest.raises(UserError, match=expected):
        list_images(tiny_imagenet / "val")


def test_validation_images_without_annotation_are_left_out_aloud(tiny_imagenet, caplog):
    save_image(tiny_imagenet / "val" / "images" / "val_9.JPEG", "JPEG")
    assert len(list_images(tiny_imagenet / "val")) == 3
    assert "left out: 1 file ('images/val_9.JPEG')" in caplog.text


def test_tiny_imagenet_trains(tiny_imagenet, tmp_path, monkeypatch):
    arguments = ["--layers", "3", "--init_channels", "2", "--batch_size", "6", "--epochs", "1"]
    folder = ["--set", "folder", "--data", tiny_imagenet, "--image_size", "8"]
    save = ["--save", tmp_path / "runs" / "EXP"]
    assert call_script("train", [*arguments, *folder, *save], monkeypatch) == 0
    log = (only_folder(tmp_path / "runs") / "log.txt").read_text()
    assert log.count("left out: 2 files ('n01/n01_boxes.txt', ") == 1
