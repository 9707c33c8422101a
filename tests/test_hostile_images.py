"""Image files of others: truncated, fake, or larger than memory."""

import io
import zlib

import pytest
from helpers import assert_one_line, call_data_script, call_script, write_image_folder
from PIL import Image

from dataset.decoding import MAX_IMAGE_PIXELS, UNREADABLE, open_image


def png_of(width, height):
    """The beginning of a PNG that claims a size."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\x02\0\0\0") + pixels


def noise(kind):
    file = io.BytesIO()
    Image.effect_noise((40, 30), 50).convert("RGB").save(file, kind)
    return file.getvalue()


BAD_IMAGES = {
    "50,000 × 50,000": png_of(50_000, 50_000),
    "a little beyond the limit": png_of(MAX_IMAGE_PIXELS, 2)[:100],
    "truncated": noise("JPEG")[:-200],
    "half of a PNG": noise("PNG")[:1500],
    "empty": b"",
    "text": b"no image at all",
    "zeros": bytes(1000),
    "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_refused_by_its_name(kind, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    write_image_folder(images, {"train": {"a": 3, "b": 3}, "val": {"a": 1, "b": 1}}, 8, "jpg")
    bad = images / "train" / "b" / "1.jpg"
    bad.write_bytes(BAD_IMAGES[kind])
    save = ["--save", tmp_path / "EXP"]
    for script in ("train_search", "train"):
        folder = ["--set", "folder", "--data", images, *save]
        assert_one_line(call_script(script, folder, monkeypatch), capsys, str(bad))
    imagenet = ["--data_path", images, "--image_size", "8", "--layers", "3", "--workers", "0"]
    imagenet += ["--init_channels", "2", "--batch_size", "6", *save]
    assert_one_line(call_script("train_imagenet", imagenet, monkeypatch), capsys, str(bad))
    lists = ["--image_path", images, "--output_path", tmp_path / "lists"]
    call_data_script("mk_img_list", *lists)
    capsys.readouterr()
    to_lmdb = ["--image_path", images, "--list_path", tmp_path / "lists", "--split", "train"]
    to_lmdb += ["--output_path", tmp_path / "data"]
    assert_one_line(call_script("dataset.img2lmdb", to_lmdb, monkeypatch), capsys, str(bad))


def test_the_largest_image_is_opened():
    side = int(MAX_IMAGE_PIXELS**0.5)
    assert open_image(io.BytesIO(png_of(side, side))).size == (side, side)
    with pytest.raises(UNREADABLE, match="pixels"):
        open_image(io.BytesIO(png_of(side + 1, side + 1)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_image_is_taken(kind, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with open_image(file) as image:
        assert image.convert("RGB").getpixel((4, 4)) == (255, 255, 255)


def test_a_resize_beyond_the_limit_is_refused(tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    write_image_folder(images, {"train": {"a": 1}}, 8, "jpg")
    Image.new("L", (60_000, 1)).save(images / "train" / "a" / "long.jpg")
    call_data_script("mk_img_list", "--image_path", images, "--output_path", tmp_path)
    capsys.readouterr()
    arguments = ["--image_path", images, "--list_path", tmp_path, "--output_path", tmp_path / "d"]
    arguments += ["--split", "train", "--image_size", "256"]
    status = call_script("dataset.img2lmdb", arguments, monkeypatch)
    assert_one_line(status, capsys, "long.jpg", "pixels")
