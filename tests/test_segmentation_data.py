"""Cityscapes as users have it on disk, in both layouts, and what can be wrong with it."""

import json

import numpy as np
import pytest
import torch
from helpers import FIXTURES
from PIL import Image

from runtime.errors import UserError
from transfer.segmentation.data import CITYSCAPES_CLASSES, Cityscapes, class_of_label, label_map
from transfer.segmentation.loss import IGNORED

REFERENCE = json.loads((FIXTURES / "transfer" / "segmentation_parts.json").read_text())

NAMES = ["aachen_000000_000019", "aachen_000001_000019", "bremen_000000_000019"]


def write_cityscapes(root, split="train", names=NAMES, in_cities=True, size=(6, 8)):
    """Write random images and label maps in Cityscapes' layout; returns the label maps."""
    random = np.random.default_rng(0)
    written = {}
    for name in names:
        city = name.partition("_")[0] if in_cities else ""
        image, labels = (
            root / folder / split / city / f"{name}_{suffix}.png"
            for folder, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds"))
        )
        for file, shape, values in ((image, (*size, 3), 256), (labels, size, 34)):
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, values, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(file)
            written[name] = pixels
        for other in ("color.png", "instanceIds.png", "polygons.json"):
            labels.with_name(f"{name}_gtFine_{other}").write_bytes(b"not read")
    return written


def label_file(root, name=NAMES[0]):
    return root / "gtFine" / "train" / "aachen" / f"{name}_gtFine_labelIds.png"


def image_file(root, name=NAMES[0]):
    return root / "leftImg8bit" / "train" / "aachen" / f"{name}_leftImg8bit.png"


@pytest.mark.parametrize("in_cities", [True, False])
def test_both_layouts_are_read(tmp_path, in_cities):
    written = write_cityscapes(tmp_path, in_cities=in_cities)
    write_cityscapes(tmp_path, "val", ["ulm_000000_000019"], in_cities)
    images = Cityscapes(tmp_path, "train")
    assert [images.name(index) for index in range(len(images))] == NAMES
    for index, name in enumerate(NAMES):
        image, labels = images.read(index)
        assert image.dtype == labels.dtype == torch.uint8
        assert image.shape == (3, 6, 8)
        expected = [
            [REFERENCE["label_to_class"][str(label)] for label in row] for row in written[name]
        ]
        assert labels.tolist() == expected
    assert len(Cityscapes(tmp_path, "val")) == 1


def test_the_pixels_are_those_of_the_file(tmp_path):
    write_cityscapes(tmp_path)
    image, _ = Cityscapes(tmp_path, "train").read(0)
    pixels = np.asarray(Image.open(image_file(tmp_path)))
    assert image[:, 2, 5].tolist() == pixels[2, 5].tolist()


def test_classes_are_the_originals():
    assert [pixel_class.name for pixel_class in CITYSCAPES_CLASSES] == REFERENCE["classes"]
    table = class_of_label(CITYSCAPES_CLASSES)
    for label in range(34):
        assert table[label] == REFERENCE["label_to_class"][str(label)]
    # Licence plates. The original has -1 for them, which its loss does not take.
    assert set(table[34:]) == {IGNORED}


def test_a_label_of_minus_one_is_ignored(tmp_path):
    write_cityscapes(tmp_path)
    Image.fromarray(np.full((6, 8), 255, dtype=np.uint8)).save(label_file(tmp_path))
    assert Cityscapes(tmp_path, "train").read(0)[1].unique().tolist() == [IGNORED]


def test_a_label_map_with_a_palette_is_read_by_its_labels(tmp_path):
    written = write_cityscapes(tmp_path)
    indexed = Image.fromarray(written[NAMES[0]])
    expected = Cityscapes(tmp_path, "train").read(0)[1]
    indexed.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    assert indexed.mode == "P"
    indexed.save(label_file(tmp_path))
    assert torch.equal(Cityscapes(tmp_path, "train").read(0)[1], expected)


def test_hidden_files_are_left_out(tmp_path):
    write_cityscapes(tmp_path)
    image_file(tmp_path).with_name(f"._{NAMES[0]}_leftImg8bit.png").write_bytes(b"macOS")
    assert len(Cityscapes(tmp_path, "train")) == len(NAMES)


def test_predictions_are_written_as_label_ids(tmp_path):
    predicted = torch.arange(19).view(1, 19)
    label_map(predicted, CITYSCAPES_CLASSES).save(tmp_path / "labels.png")
    labels = np.asarray(Image.open(tmp_path / "labels.png"))
    assert labels.tolist() == [[pixel_class.label for pixel_class in CITYSCAPES_CLASSES]]
    assert torch.equal(torch.from_numpy(class_of_label(CITYSCAPES_CLASSES)[labels]), predicted)


def remove_image(root):
    image_file(root).unlink()


def remove_labels(root):
    label_file(root).unlink()


def remove_all_images(root):
    for name in NAMES:
        city = name.partition("_")[0]
        (root / "leftImg8bit" / "train" / city / f"{name}_leftImg8bit.png").unlink()


def remove_label_folder(root):
    (root / "gtFine").rename(root / "gtCoarse")


def repeat_image(root):
    file = image_file(root)
    (file.parent.parent / file.name).write_bytes(file.read_bytes())


def cut_image(root):
    file = image_file(root)
    file.write_bytes(file.read_bytes()[:60])


def cut_labels(root):
    file = label_file(root)
    file.write_bytes(file.read_bytes()[:50])


def image_that_is_text(root):
    image_file(root).write_text("not an image")


def unknown_label(root):
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[3, 4] = 77
    Image.fromarray(labels).save(label_file(root))


def coloured_labels(root):
    Image.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(label_file(root))


def labels_of_16_bits(root):
    Image.fromarray(np.zeros((6, 8), dtype=np.uint16)).save(label_file(root))


def labels_of_another_size(root):
    Image.fromarray(np.zeros((8, 6), dtype=np.uint8)).save(label_file(root))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (remove_image, [f"{NAMES[0]}_gtFine_labelIds.png: has no image", "add it, or remove"]),
        (remove_labels, [f"{NAMES[0]}_leftImg8bit.png: has no label map", "add it, or remove"]),
        (remove_all_images, ["leftImg8bit/train: has no *_leftImg8bit.png"]),
        (remove_label_folder, ["gtFine/train: is not a folder"]),
        (repeat_image, [f"{NAMES[0]}_leftImg8bit.png: is in", "remove one"]),
        (cut_image, [f"{NAMES[0]}_leftImg8bit.png: not an image that can be read"]),
        (cut_labels, [f"{NAMES[0]}_gtFine_labelIds.png: not an image that can be read"]),
        (image_that_is_text, [f"{NAMES[0]}_leftImg8bit.png: not an image", "mend or remove"]),
        (unknown_label, [f"{NAMES[0]}_gtFine_labelIds.png: has the label 77", "0 to 33"]),
        (coloured_labels, ["is no label map", "mode RGB"]),
        (labels_of_16_bits, ["is no label map", "mode I;16"]),
        (labels_of_another_size, ["a label map of 6×8 pixels", "its image has 8×6"]),
    ],
)
def test_mistakes_are_one_line(tmp_path, damage, expected):
    write_cityscapes(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError) as caught:
        Cityscapes(tmp_path, "train").read(0)
    assert "\n" not in str(caught.value)
    assert all(text in str(caught.value) for text in [str(tmp_path), *expected]), caught.value
