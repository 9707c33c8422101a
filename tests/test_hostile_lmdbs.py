"""Lists and LMDBs of others: keys that lead elsewhere, values and states that lie."""

import os

import pytest
from helpers import assert_one_line, call_data_script, call_script, write_image_folder

from dataset.image_list import read_list
from dataset.lmdb_set import decode_value
from runtime.errors import UserError


@pytest.mark.parametrize(
    "key",
    ["../a/0.jpg", "a/../../b", "/etc/passwd", "a/\0.jpg", "a/" + "x" * 600, "a/" + "\u00fc" * 300,
     "a/\x1b[2J.jpg", "0.jpg", "a/..", "..", "x" * 1_000_000],
)  # fmt: skip
def test_a_key_that_leads_elsewhere_is_refused(key, tmp_path):
    path = tmp_path / "train_datalist.txt"
    path.write_text(f"a/1.jpg\n{key}\n")
    with pytest.raises(UserError, match=r"train_datalist\.txt: .* cannot be a key") as error:
        read_list(path)
    assert len(str(error.value)) < 400


LYING_VALUES = {
    "longer than it is": b"\xc6\x7f\xff\xff\xff" + bytes(100),
    "shorter than it is": b"\xc4\x05" + bytes(100),
    "a list of four billion": b"\xdd\xff\xff\xff\xff" + bytes(100),
    "lists in lists": b"\x91" * 100_000,
    "a dictionary of lists": b"\x81\x91\x01\x01",
    "an extension": b"\xc7\x0c\xff" + bytes(12),
    "only a label": b"\xc4\x02\x00\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", LYING_VALUES)
def test_a_value_of_an_lmdb_that_lies_is_refused(kind):
    with pytest.raises(ValueError, match=r"not an image and its label|truncated"):
        decode_value(LYING_VALUES[kind])


@pytest.mark.parametrize("state", ["{}", "[" * 100_000, '{"complete": 1}', "null", "\udcff"])
def test_a_hostile_state_beside_an_lmdb_is_named(state, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    write_image_folder(images, {"train": {"a": 2}}, 8, "jpg")
    call_data_script("mk_img_list", "--image_path", images, "--output_path", tmp_path)
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "img2lmdb.json").write_bytes(os.fsencode(state))
    capsys.readouterr()
    arguments = ["--image_path", images, "--list_path", tmp_path, "--split", "train"]
    status = call_script(
        "dataset.img2lmdb", [*arguments, "--output_path", tmp_path / "data"], monkeypatch
    )
    assert_one_line(status, capsys, "img2lmdb.json")
