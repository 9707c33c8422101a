"""Lists, LMDBs written and read, and what is wrong with them."""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from helpers import (
    FIXTURES,
    ROOT,
    assert_one_line,
    call_data_script,
    call_script,
    kill_with_children,
    start_script,
    wait_until,
    write_image_folder,
)
from PIL import Image

from dataset import img2lmdb
from dataset.encoded_images import open_images
from dataset.image_list import read_list, write_list
from dataset.lmdb_set import decode_value, encode_value


def contents(folder):
    """All keys and values of an LMDB, with nothing but the lmdb library."""
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as t:
        return dict(t.cursor())


def noise(width, height, mode="RGB"):
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))


def test_round_trip_of_bytes_labels_and_order(tmp_path):
    images = tmp_path / "images"
    write_image_folder(images, {"train": {"n2": 2, "n1": 3}, "val": {"n1": 1, "n2": 1}}, 9, "JPEG")
    noise(31, 7).save(images / "train" / "n1" / "odd.JPEG")
    noise(5, 50, "L").save(images / "train" / "n2" / "grey.jpg")
    noise(6, 6).save(images / "train" / "n2" / "other.png")
    noise(8, 8).convert("CMYK").save(images / "train" / "n2" / "print.JPEG")
    (images / "train" / "n2" / "notes.txt").write_text("no image")
    (images / "train" / "n2" / ".hidden.jpg").write_text("no image")
    call_data_script("mk_img_list", "--image_path", images, "--output_path", tmp_path / "lists")
    for split in ("train", "val"):
        call_data_script(
            "img2lmdb", "--image_path", images, "--list_path", tmp_path / "lists",
            "--output_path", tmp_path / "data", "--split", split,
        )  # fmt: skip
    keys = (tmp_path / "data" / "train_datalist.txt").read_text().splitlines()
    assert keys == [
        "n1/0.JPEG", "n1/1.JPEG", "n1/2.JPEG", "n1/odd.JPEG",
        "n2/0.JPEG", "n2/1.JPEG", "n2/grey.jpg", "n2/other.png", "n2/print.JPEG",
    ]  # fmt: skip
    assert (tmp_path / "lists" / "train_datalist.txt").read_text().splitlines() == keys
    stored = contents(tmp_path / "data" / "train")
    assert sorted(stored) == sorted(key.encode() for key in keys)
    read, from_folder = open_images(tmp_path / "data", "train"), open_images(images, "train")
    assert read.num_classes == from_folder.num_classes == 2
    assert len(read) == len(from_folder) == len(keys)
    for index, key in enumerate(keys):
        original = (images / "train" / key).read_bytes()
        label = int(key.startswith("n2"))
        assert read.key(index) == from_folder.key(index) == key
        assert read.read(index) == from_folder.read(index) == (original, label)
        # The format itself: msgpack's bin 8, 16 or 32 of the file and a little-endian uint16.
        body = original + struct.pack("<H", label)
        assert stored[key.encode()].endswith(body)
        assert len(stored[key.encode()]) - len(body) in (2, 3, 5)
        assert (
            stored[key.encode()][0]
            == {2: 0xC4, 3: 0xC5, 5: 0xC6}[len(stored[key.encode()]) - len(body)]
        )
    read.close()


@pytest.fixture
def original_lmdb(tmp_path):
    """LMDBs that the original's scripts wrote, each photograph in them then exchanged, in place,
    for a pattern that is as many bytes long."""
    folder = tmp_path / "original"
    shutil.copytree(FIXTURES / "original_lmdb", folder)
    for packed in folder.glob("*/data.mdb.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    return folder


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_originals_lmdb_is_read_as_it_is(split, original_lmdb):
    expected = json.loads((original_lmdb / "expected.json").read_text())[split]
    images = open_images(original_lmdb, split)
    assert images.num_classes == 5
    assert [images.key(index) for index in range(len(images))] == (
        (original_lmdb / f"{split}_datalist.txt").read_text().splitlines()
    )
    found = {}
    for index in range(len(images)):
        encoded, label = images.read(index)
        Image.open(io.BytesIO(encoded)).load()
        found[images.key(index)] = {
            "label": label, "jpeg_sha256": hashlib.sha256(encoded).hexdigest()
        }  # fmt: skip
    images.close()
    assert found == expected


def test_our_values_are_the_originals(original_lmdb):
    for value in contents(original_lmdb / "train").values():
        assert encode_value(*decode_value(value)) == value


@pytest.fixture
def pictures(tmp_path):
    """A folder of 40 small JPEGs in two classes."""
    write_image_folder(tmp_path / "images", {"train": {"a": 20, "b": 20}}, 8, "JPEG")
    call_data_script("mk_img_list", "--image_path", tmp_path / "images", "--output_path", tmp_path)
    return tmp_path


def arguments_of(pictures, output="data", **flags):
    flags = {
        "image_path": pictures / "images", "list_path": pictures, "output_path": pictures / output,
        "split": "train", **flags,
    }  # fmt: skip
    return [word for name, value in flags.items() for word in (f"--{name}", value)]


def test_killed_half_way_and_run_again(pictures):
    call_data_script("img2lmdb", *arguments_of(pictures, "whole"))
    # The script waits at a named pipe, which nobody writes to, with the images before it stored.
    keys = read_list(pictures / "train_datalist.txt")
    more = [f"b/more{number}.JPEG" for number in range(img2lmdb.BATCH_SIZE)]
    late = pictures / "images" / "train" / "b" / "z.JPEG"
    for key in more:
        shutil.copy(pictures / "images" / "train" / "b" / "0.JPEG", late.parent / key[2:])
    (pictures / "long").mkdir()
    write_list(pictures / "long" / "train_datalist.txt", [*keys, *more, "b/z.JPEG"])
    arguments = arguments_of(pictures, list_path=pictures / "long")
    os.mkfifo(late)
    process = start_script("dataset/img2lmdb", arguments)
    folder = pictures / "data" / "train"

    def has_a_batch():
        return (folder / "data.mdb").exists() and len(contents(folder)) == img2lmdb.BATCH_SIZE

    wait_until(has_a_batch, process)
    kill_with_children(process)
    late.unlink()
    shutil.copy(late.with_name("0.JPEG"), late)
    assert not (pictures / "data" / "train_datalist.txt").exists()
    call_data_script("img2lmdb", *arguments)
    call_data_script("img2lmdb", *arguments_of(pictures, "again", list_path=pictures / "long"))
    assert contents(folder) == contents(pictures / "again" / "train")
    assert len(contents(folder)) == len(keys) + len(more) + 1
    assert read_list(pictures / "data" / "train_datalist.txt") == [*keys, *more, "b/z.JPEG"]
    for key, value in contents(pictures / "whole" / "train").items():
        assert contents(folder)[key] == value


def test_ctrl_c_ends_it_in_one_line_and_it_goes_on(pictures):
    late = pictures / "images" / "train" / "b" / "19.JPEG"
    content = late.read_bytes()
    late.unlink()
    os.mkfifo(late)
    process = start_script("dataset/img2lmdb", arguments_of(pictures), preexec_fn=listen_to_ctrl_c)
    # It waits at the named pipe, which this opens and closes again.
    with open(late, "wb"):
        process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130
    assert output == "stopped by SIGINT\n"
    late.unlink()
    late.write_bytes(content)
    call_data_script("img2lmdb", *arguments_of(pictures))
    assert len(contents(pictures / "data" / "train")) == 40


def listen_to_ctrl_c():
    """What a shell starts in the background does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_run_again_on_a_finished_one_changes_nothing(pictures, capsys):
    call_data_script("img2lmdb", *arguments_of(pictures))
    before = (pictures / "data" / "train" / "data.mdb").read_bytes()
    call_data_script("img2lmdb", *arguments_of(pictures))
    assert "was complete already, 40 images, all read back" in capsys.readouterr().out
    assert (pictures / "data" / "train" / "data.mdb").read_bytes() == before


def test_the_map_grows(pictures, monkeypatch):
    monkeypatch.setattr(img2lmdb, "INITIAL_MAP_BYTES", 1 << 15)
    monkeypatch.setattr(img2lmdb, "BATCH_SIZE", 16)
    call_data_script("img2lmdb", *arguments_of(pictures))
    assert len(contents(pictures / "data" / "train")) == 40
    assert (pictures / "data" / "train" / "data.mdb").stat().st_size > 1 << 15


@pytest.mark.parametrize(("size", "expected"), [((40, 30), (21, 16)), ((10, 30), (16, 48))])
def test_image_size_resizes_the_shorter_side(size, expected, pictures):
    noise(*size).save(pictures / "images" / "train" / "a" / "0.JPEG")
    call_data_script("img2lmdb", *arguments_of(pictures, image_size=16))
    encoded, label = decode_value(contents(pictures / "data" / "train")[b"a/0.JPEG"])
    assert Image.open(io.BytesIO(encoded)).size == expected
    assert label == 0


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_a_bad_image_is_named(pictures, monkeypatch, capsys):
    bad = pictures / "images" / "train" / "b" / "3.JPEG"
    truncate(bad)
    status = call_script("dataset.img2lmdb", arguments_of(pictures), monkeypatch)
    assert_one_line(status, capsys, str(bad), "cannot be decoded", "--skip_bad")


def test_bad_images_are_left_out_and_listed(pictures, monkeypatch, capsys):
    (pictures / "images" / "train" / "a" / "1.JPEG").write_text("hello")
    truncate(pictures / "images" / "train" / "b" / "3.JPEG")
    arguments = [*arguments_of(pictures), "--skip_bad"]
    for _ in range(2):  # the second time it is complete, and says the same
        call_data_script("img2lmdb", *arguments)
        out, err = capsys.readouterr()
        assert "38 images" in out
        assert "left out: a/1.JPEG (" in err and "left out: b/3.JPEG (" in err
    skipped = (pictures / "data" / "train_skipped.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in skipped] == ["a/1.JPEG", "b/3.JPEG"]
    keys = read_list(pictures / "data" / "train_datalist.txt")
    assert sorted(key.encode() for key in keys) == sorted(contents(pictures / "data" / "train"))
    assert len(read_list(pictures / "train_datalist.txt")) == 40
    images = open_images(pictures / "data", "train")
    assert len(images) == 38
    # The list that it was made from stays; there is no place for a second one of that name.
    arguments = [*arguments_of(pictures, output_path=pictures), "--skip_bad"]
    status = call_script("dataset.img2lmdb", arguments, monkeypatch)
    assert_one_line(status, capsys, "--skip_bad", "--output_path")


def refused_key(pictures, key):
    (pictures / "train_datalist.txt").write_text(f"a/0.JPEG\n{key}\n")


WRITING_MISTAKES = {
    "no list": (lambda p: (p / "train_datalist.txt").unlink(), ["train_datalist.txt", "No such"]),
    "empty list": (lambda p: (p / "train_datalist.txt").write_text("\n"), ["no images"]),
    "no file": (lambda p: refused_key(p, "a/none.JPEG"), ["a/none.JPEG", "No such file"]),
    "outside": (lambda p: refused_key(p, "../a/0.JPEG"), ["'../a/0.JPEG'", "within"]),
    "hidden outside": (lambda p: refused_key(p, "a/../../b"), ["'a/../../b'", "within"]),
    "absolute": (lambda p: refused_key(p, "/etc/passwd"), ["'/etc/passwd'", "within"]),
    "no class": (lambda p: refused_key(p, "0.JPEG"), ["'0.JPEG'", "<class>/<name>"]),
    "not printable": (lambda p: refused_key(p, "a/\u200b.JPEG"), ["printable", "rename"]),
    "twice": (lambda p: refused_key(p, "a/0.JPEG"), ["a/0.JPEG", "more than once"]),
}


@pytest.mark.parametrize("mistake", WRITING_MISTAKES)
def test_mistakes_in_a_list(mistake, pictures, monkeypatch, capsys):
    make, expected = WRITING_MISTAKES[mistake]
    make(pictures)
    status = call_script("dataset.img2lmdb", arguments_of(pictures), monkeypatch)
    assert_one_line(status, capsys, *expected)


def test_another_lmdb_is_never_written_into(pictures, monkeypatch, capsys):
    (pictures / "data" / "train").mkdir(parents=True)
    lmdb.open(str(pictures / "data" / "train")).close()
    status = call_script("dataset.img2lmdb", arguments_of(pictures), monkeypatch)
    assert_one_line(status, capsys, "did not write")


def test_a_begun_lmdb_keeps_its_list_and_size(pictures, monkeypatch, capsys):
    call_data_script("img2lmdb", *arguments_of(pictures))
    capsys.readouterr()
    status = call_script("dataset.img2lmdb", arguments_of(pictures, image_size=8), monkeypatch)
    assert_one_line(status, capsys, "another --image_size")
    (pictures / "short").mkdir()
    write_list(pictures / "short" / "train_datalist.txt", ["a/0.JPEG"])
    arguments = arguments_of(pictures, list_path=pictures / "short")
    status = call_script("dataset.img2lmdb", arguments, monkeypatch)
    assert_one_line(status, capsys, "train_datalist.txt", "other keys")
    (pictures / "data" / "train_datalist.txt").unlink()
    status = call_script("dataset.img2lmdb", arguments, monkeypatch)
    assert_one_line(status, capsys, "another list")


def test_damage_is_found_when_reading_back(pictures, monkeypatch, capsys):
    call_data_script("img2lmdb", *arguments_of(pictures))
    capsys.readouterr()
    with (
        lmdb.open(str(pictures / "data" / "train")) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"b/7.JPEG", transaction.get(b"b/7.JPEG")[:-1])
    status = call_script("dataset.img2lmdb", arguments_of(pictures), monkeypatch)
    assert_one_line(status, capsys, "b/7.JPEG does not read back")


def test_lists_are_not_overwritten(pictures, monkeypatch, capsys):
    (pictures / "train_datalist.txt").write_text("a/0.JPEG\n")
    arguments = ["--image_path", pictures / "images", "--output_path", pictures]
    status = call_script("dataset.mk_img_list", arguments, monkeypatch)
    assert_one_line(status, capsys, "train_datalist.txt", "never overwritten")
    assert (pictures / "train_datalist.txt").read_text() == "a/0.JPEG\n"


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({}, ["neither a train/ nor a val/"]),
        ({"train": {"a": 1, "b": 0}}, ["b: no images"]),
        ({"train": {"a": 1}, "val": {"a": 1, "b": 1}}, ["b/0.png", "no training images"]),
    ],
)
def test_folders_that_cannot_be_listed(splits, expected, tmp_path, monkeypatch, capsys):
    write_image_folder(tmp_path / "images", splits)
    arguments = ["--image_path", tmp_path / "images", "--output_path", tmp_path / "lists"]
    status = call_script("dataset.mk_img_list", arguments, monkeypatch)
    assert_one_line(status, capsys, *expected)
    assert not (tmp_path / "lists").exists()


def test_data_scripts_run_from_anywhere(tmp_path):
    write_image_folder(tmp_path / "images", {"train": {"a": 1}})
    command = [sys.executable, ROOT / "dataset" / "mk_img_list.py", "--image_path", "images"]
    subprocess.run([*command, "--output_path", "lists"], cwd=tmp_path, check=True)
    assert Path(tmp_path / "lists" / "train_datalist.txt").read_text() == "a/0.png\n"


def test_keys_beyond_ascii_are_utf8_and_said_once(tmp_path, capsys):
    images = tmp_path / "images"
    write_image_folder(images, {"train": {"größe": 2, "犬": 1}}, 8, "JPEG")
    arguments = ["--image_path", images, "--output_path", tmp_path]
    call_data_script("mk_img_list", *arguments)
    note = capsys.readouterr().err
    assert note.count("\n") == 1 and "3 of the keys" in note and "original" in note
    call_data_script("img2lmdb", *arguments, "--list_path", tmp_path, "--split", "train")
    assert capsys.readouterr().err == note
    read = open_images(tmp_path, "train")
    assert [read.key(index) for index in range(3)] == ["größe/0.JPEG", "größe/1.JPEG", "犬/0.JPEG"]
    assert [read.read(index)[1] for index in range(3)] == [0, 0, 1]
    read.close()
    assert "größe/0.JPEG".encode() in contents(tmp_path / "train")


def test_spaces_at_the_ends_of_names_are_kept(tmp_path):
    images = tmp_path / "images"
    write_image_folder(images, {"train": {" a": 1, "b ": 1}}, 8, "JPEG")
    (images / "train" / "b " / "0.JPEG").rename(images / "train" / "b " / "x.jpg ")
    call_data_script("mk_img_list", "--image_path", images, "--output_path", tmp_path)
    list_file = tmp_path / "train_datalist.txt"
    assert read_list(list_file) == [" a/0.JPEG", "b /x.jpg "]
    call_data_script(
        "img2lmdb", "--image_path", images, "--list_path", tmp_path, "--output_path", tmp_path,
        "--split", "train",
    )  # fmt: skip
    assert sorted(contents(tmp_path / "train")) == [b" a/0.JPEG", b"b /x.jpg "]
    # As editors on Windows save it.
    list_file.write_bytes(b"\xef\xbb\xbf a/0.JPEG\r\n\r\nb /x.jpg \r\n")
    assert read_list(list_file) == [" a/0.JPEG", "b /x.jpg "]


def test_a_full_disk_is_named(pictures, monkeypatch, capsys):
    def fail(*_):
        raise lmdb.DiskError("mdb_txn_commit: Input/output error")

    monkeypatch.setattr(img2lmdb, "_commit", fail)
    status = call_script("dataset.img2lmdb", arguments_of(pictures), monkeypatch)
    assert_one_line(status, capsys, "disk is full", "MiB free", "make room", "Input/output error")
