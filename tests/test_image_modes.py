"""Images of more than 8 bits, and what Pillow says of files: the same in every reader."""

import io
import struct
import sys
import warnings

import lmdb
import numpy as np
import pytest
from helpers import call_data_script, call_script, write_image_folder
from PIL import Image

from dataset.decoding import UNREADABLE, Box, decode_crop, grey_or_rgb, open_image
from dataset.image_folder import decode_image
from dataset.lmdb_set import decode_value
from runtime.errors import UserError

VALUES = np.array([[0, 1000, 0x8000], [0x8080, 60000, 0xFFFF]], dtype=np.uint16).repeat(2, 1)
IN_8_BITS = np.array([[0, 4, 128], [128, 233, 255]]).repeat(2, 1)


def pgm(largest):
    values = (VALUES.astype(np.uint32) * largest // 0xFFFF).astype(">u2").tobytes()
    return b"P5 6 2 %d\n" % largest + values


def tiff(bits, photometric, values):
    """A little-endian TIFF of one grey channel, as microscopes write it."""
    tags = [(256, 3, 6), (257, 3, 2), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
            (273, 4, 8), (277, 3, 1), (278, 3, 2), (279, 4, len(values))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    header = b"II*\0" + struct.pack("<I", 8 + len(values))
    return header + values + struct.pack("<H", len(tags)) + entries + bytes(4)


def in_12_bits():
    nibbles = "".join(f"{value >> 4:03x}" for value in VALUES.reshape(-1).tolist())
    return bytes.fromhex(nibbles)


def saved(values, kind):
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


SIXTEEN_BITS = {
    "PNG": saved(VALUES, "PNG"),
    "TIFF": saved(VALUES, "TIFF"),
    "TIFF, white is zero": tiff(16, 0, (0xFFFF - VALUES).astype("<u2").tobytes()),
    "TIFF of 12 bits": tiff(12, 1, in_12_bits()),
    "JPEG 2000": saved(VALUES, "JPEG2000"),
    "PGM": pgm(0xFFFF),
    "PGM of 12 bits": pgm(4095),
}


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_grey_of_up_to_16_bits_is_scaled_to_8(kind, tmp_path):
    encoded = SIXTEEN_BITS[kind]
    with open_image(io.BytesIO(encoded)) as image:
        grey = grey_or_rgb(image)
    assert grey.mode == "L"
    assert abs(np.asarray(grey).astype(int) - IN_8_BITS).max() <= ("12 bits" in kind)
    path = tmp_path / "image"
    path.write_bytes(encoded)
    # Both readers take the middle square at its own size: the four columns between the first and
    # the last, cut to two.
    from_folder = decode_image(path, 2)
    box = Box(2, 0, 2, 2)
    from_imagenet = decode_crop(encoded, lambda *_: box, 2, reduced=True)
    assert np.array_equal(from_folder, from_imagenet)
    assert np.array_equal(from_folder[..., 0], np.asarray(grey)[:, 2:4])


def test_a_stored_resize_keeps_16_bits_in_range(tmp_path):
    write_image_folder(tmp_path / "images", {"train": {"a": 1}})
    values = np.full((40, 40), 0x8080, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "images" / "train" / "a" / "grey.png")
    call_data_script("mk_img_list", "--image_path", tmp_path / "images", "--output_path", tmp_path)
    call_data_script(
        "img2lmdb", "--image_path", tmp_path / "images", "--list_path", tmp_path,
        "--output_path", tmp_path / "data", "--split", "train", "--image_size", "20",
    )  # fmt: skip
    with lmdb.open(str(tmp_path / "data" / "train"), readonly=True) as stored, stored.begin() as t:
        encoded, _ = decode_value(t.get(b"a/grey.png"))
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.size == (20, 20) and image.mode == "L"
        assert abs(np.asarray(image).astype(int) - 128).max() <= 1


NO_KNOWN_RANGE = {
    "floats": saved(np.ones((4, 4), dtype=np.float32), "TIFF"),
    "32 bits": saved(np.ones((4, 4), dtype=np.int32), "TIFF"),
}


@pytest.mark.parametrize("kind", NO_KNOWN_RANGE)
def test_values_of_no_known_range_are_refused_by_name(kind, tmp_path, monkeypatch, capsys):
    encoded = NO_KNOWN_RANGE[kind]
    with pytest.raises(UNREADABLE, match="no known range"):
        decode_crop(encoded, lambda *_: Box(0, 0, 4, 4), 4, reduced=False)
    folder = tmp_path / "images" / "train" / "a"
    folder.mkdir(parents=True)
    (folder / "grey.tif").write_bytes(encoded)
    with pytest.raises(UserError, match=r"a/grey\.tif.*no known range"):
        decode_image(folder / "grey.tif", 4)
    # Stored as they are, nobody could train on them either.
    call_data_script("mk_img_list", "--image_path", tmp_path / "images", "--output_path", tmp_path)
    arguments = ["--image_path", tmp_path / "images", "--list_path", tmp_path, "--split", "train"]
    arguments += ["--output_path", tmp_path / "data"]
    assert call_script("dataset.img2lmdb", arguments, monkeypatch) == 2
    error = capsys.readouterr().err
    assert "a/grey.tif" in error and "no known range" in error


def jpeg_with_corrupt_exif():
    file = io.BytesIO()
    # A directory that claims four entries, and then ends.
    exif = b"Exif\0\0II*\0\x08\0\0\0\x04\0\x1a\x01"
    Image.new("RGB", (8, 8), "white").save(file, "JPEG", exif=exif)
    # Without its JFIF header Pillow looks for the resolution in the EXIF data.
    content = file.getvalue()
    start = content.index(b"\xff\xe0")
    length = int.from_bytes(content[start + 2 : start + 4], "big")
    return content[:start] + content[start + 2 + length :]


def test_corrupt_exif_data_matters_to_nobody(tmp_path):
    encoded = jpeg_with_corrupt_exif()
    with pytest.warns(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(encoded)).close()
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decode_image(path, 4) == 255).all()
        assert (decode_crop(encoded, lambda *_: Box(0, 0, 8, 8), 4, reduced=False) == 255).all()


def test_what_is_no_image_is_not_named_by_its_address():
    with pytest.raises(UNREADABLE) as caught:
        open_image(io.BytesIO(b"hello"))
    assert str(caught.value) == "no image format that is known"


def test_pillow_says_nothing_on_its_own(tmp_path, capfd):
    # More samples a pixel than there are formats for: Pillow logs that, and refuses.
    path = tmp_path / "image.tif"
    one, many = (struct.pack("<HHII", 277, 3, 1, samples) for samples in (1, 99))
    path.write_bytes(tiff(16, 1, bytes(24)).replace(one, many))
    with pytest.raises(UserError):
        decode_image(path, 2)
    sys.stderr.flush()
    assert capfd.readouterr().err == ""
