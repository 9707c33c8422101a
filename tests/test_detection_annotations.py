"""Annotations and images in the real layouts of PASCAL VOC and COCO, and all that can be wrong."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection

from runtime.errors import UserError
from transfer.detection.annotations import VOC_CLASSES, VOC_TEST, VOC_TRAINING, read_coco, read_voc
from transfer.detection.data import read_sample

OBJECT = """
<object><name>{}</name><pose>Left</pose><truncated>1</truncated><difficult>{}</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>
</part></object>"""

PERSON = ("person", 0, 11, 6, 31, 26)

CAT = ("cat", 1, 1, 1, 21, 11)


def save_image(path, width=40, height=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(path.name))
    Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def write_voc(root, year, name, images):
    """A list of VOC: its images have such objects."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    for part in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{i}\n" for i in images))
    for image, objects in images.items():
        save_image(folder / "JPEGImages" / f"{image}.jpg")
        text = "".join(OBJECT.format(*part) for part in objects)
        size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
        annotation = f"<annotation><filename>{image}.jpg</filename>{size}{text}</annotation>"
        (folder / "Annotations" / f"{image}.xml").write_text(annotation)
    return folder


@pytest.fixture
def voc(tmp_path):
    write_voc(tmp_path, 2007, "trainval", {"000005": [PERSON, CAT], "000007": []})
    write_voc(tmp_path, 2012, "trainval", {"2008_000002": [CAT, ("tvmonitor", 0, 1, 1, 41, 31)]})
    write_voc(tmp_path, 2007, "test", {"000001": [PERSON, CAT]})
    return tmp_path


def test_several_years_are_read_at_once(voc):
    images = read_voc(voc, VOC_TRAINING).images
    assert [image.image_id for image in images] == ["000005", "000007", "2008_000002"]
    assert [image.labels for image in images] == [[15, 8], [], [8, 20]]
    assert [image.ignored for image in images] == [[False, True], [], [True, False]]
    assert images[0].boxes == [(10, 5, 30, 25), (0, 0, 20, 10)]
    assert images[2].boxes[1] == (0, 0, 40, 30)
    assert [image.image_id for image in read_voc(voc, VOC_TEST).images] == ["000001"]


def test_torchvision_reads_the_same_objects(voc):
    image, annotation = VOCDetection(voc, "2007", "trainval")[0]
    assert image.size == (40, 30)
    names = [part["name"] for part in annotation["annotation"]["object"]]
    (first, *_) = read_voc(voc, VOC_TRAINING).images
    assert names == [VOC_CLASSES[label - 1] for label in first.labels]


def test_difficult_objects_are_left_out_of_training_only(voc):
    (image,) = read_voc(voc, VOC_TEST).images
    pixels, target = read_sample(image, training=True)
    assert pixels.shape == (3, 30, 40) and pixels.dtype == torch.uint8
    assert target["labels"].tolist() == [15] and target["boxes"].tolist() == [[10, 5, 30, 25]]
    _, target = read_sample(image, training=False)
    assert target["labels"].tolist() == [15, 8] and target["ignored"].tolist() == [False, True]
    assert target["area"].tolist() == [400, 200]


def test_empty_lines_of_a_list_are_no_images(voc):
    path = voc / "VOCdevkit/VOC2007/ImageSets/Main/test.txt"
    path.write_text("000001\n\n  \n")
    assert len(read_voc(voc, VOC_TEST).images) == 1


def test_boxes_beyond_the_image_are_cut_and_those_without_area_left_out(tmp_path, caplog):
    objects = [("dog", 0, -5, -5, 11, 11), ("dog", 0, 21, 3, 99, 99), ("dog", 0, 5, 5, 5, 9)]
    write_voc(tmp_path, 2007, "test", {"000001": [*objects, ("dog", 0, 50, 3, 60, 9)]})
    with caplog.at_level(logging.WARNING, "relativenas"):
        (image,) = read_voc(tmp_path, VOC_TEST).images
    assert "1 boxes without area" in caplog.text and "000001.jpg" in caplog.text
    for training in (False, True):
        _, target = read_sample(image, training)
        assert target["boxes"].tolist() == [[0, 0, 10, 10], [20, 2, 40, 30]]
        assert len(target["labels"]) == len(target["ignored"]) == len(target["area"]) == 2


def replace_xml(root, old, new):
    path = root / "VOCdevkit/VOC2007/Annotations/000001.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def voc_mistake(name):
    """What a user did to the test list, and what the line must say."""
    folder = "VOCdevkit/VOC2007/"
    xml = folder + "Annotations/000001.xml"
    bomb = '<!DOCTYPE a [<!ENTITY b "ha">]><annotation>'
    change = lambda old, new: lambda root: replace_xml(root, old, new)  # noqa: E731
    return {
        "no data": (
            lambda r: (r / "VOCdevkit").rename(r / "x"),
            ["no VOCdevkit/VOC2007", "folder"],
        ),
        "no list": (lambda r: (r / folder / "ImageSets/Main/test.txt").unlink(), ["Main/test.txt"]),
        "empty list": (
            lambda r: (r / folder / "ImageSets/Main/test.txt").write_text("\n"),
            ["test.txt", "names no images"],
        ),
        "binary list": (
            lambda r: (r / folder / "ImageSets/Main/test.txt").write_bytes(b"\xff\xfe\x80"),
            ["test.txt", "no text"],
        ),
        "no image": (lambda r: (r / folder / "JPEGImages/000001.jpg").unlink(), ["000001.jpg"]),
        "no annotation": (lambda r: (r / xml).unlink(), ["000001.xml", "No such file"]),
        "no XML": (lambda r: (r / xml).write_text("{}"), ["000001.xml", "no XML"]),
        "empty XML": (lambda r: (r / xml).write_text(""), ["000001.xml", "no XML"]),
        "cut XML": (change("</annotation>", ""), ["000001.xml", "no XML"]),
        "strange encoding": (
            change("<annotation>", '<?xml version="1.0" encoding="x"?><annotation>'),
            ["000001.xml", "no XML"],
        ),
        "entities": (change("<annotation>", bomb), ["000001.xml", "entities"]),
        "large XML": (lambda r: (r / xml).write_bytes(b" " * (1 << 21)), ["larger than 1 MiB"]),
        "another class": (change("person", "unicorn"), ["'unicorn'", "none of VOC's 20 classes"]),
        "no name": (change("<name>person</name>", ""), ["''", "none of VOC's"]),
        "no corner": (change("<xmin>11</xmin>", ""), ["xmin is ''", "no number"]),
        "no number": (change("<ymax>26<", "<ymax>six<"), ["ymax is 'six'"]),
        "not finite": (change("<ymax>26<", "<ymax>nan<"), ["box of person"]),
        "infinite": (change("<ymax>26<", "<ymax>1e999<"), ["box of person"]),
        "reversed": (change("<xmax>31<", "<xmax>3<"), ["person ends before it begins"]),
        "difficult": (change("<difficult>0<", "<difficult>yes<"), ["'yes', neither 0 nor 1"]),
    }[name]


VOC_MISTAKES = (
    "no data", "no list", "empty list", "binary list", "no image", "no annotation", "no XML",
    "empty XML", "cut XML", "strange encoding", "entities", "large XML", "another class", "no name",
    "no corner", "no number", "not finite", "infinite", "reversed", "difficult",
)  # fmt: skip


@pytest.mark.parametrize("name", VOC_MISTAKES)
def test_a_mistake_in_voc_is_one_line(voc, name):
    make, texts = voc_mistake(name)
    make(voc)
    assert_one_line(lambda: read_voc(voc, VOC_TEST), texts)


def assert_one_line(action, texts):
    with pytest.raises(UserError) as caught:
        action()
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    assert all(text in line for text in texts), line


COCO = {
    "info": {"year": 2017},
    "images": [
        {"id": 9, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 4, "file_name": "b/c.png", "width": 20, "height": 20},
    ],
    "categories": [{"id": 44, "name": "fork"}, {"id": 18, "name": "dog", "supercategory": "pet"}],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 44, "bbox": [10, 5, 20.5, 20], "area": 300.5,
         "iscrowd": 0, "segmentation": []},
        {"id": 2, "image_id": 9, "category_id": 18, "bbox": [0, 0, 40, 30], "area": 9,
         "iscrowd": 1},
        {"id": 3, "image_id": 9, "category_id": 18, "bbox": [3, 3, 4, 5]},
    ],
}  # fmt: skip


@pytest.fixture
def coco(tmp_path):
    save_image(tmp_path / "val2017" / "a.jpg")
    save_image(tmp_path / "val2017" / "b" / "c.png", 20, 20)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(COCO))
    return tmp_path


def test_coco_is_read(coco):
    read = read_coco(coco, "val")
    assert read.class_names == ["dog", "fork"] and read.category_ids == [0, 18, 44]
    first, second = read.images
    assert (first.image_id, second.image_id, second.labels) == (9, 4, [])
    assert first.labels == [2, 1, 1] and first.ignored == [False, True, False]
    assert first.boxes == [(10, 5, 30.5, 25), (0, 0, 40, 30), (3, 3, 7, 8)]
    assert first.areas == [300.5, 9, 20]
    pixels, target = read_sample(first, training=True)
    assert pixels.shape == (3, 30, 40) and target["labels"].tolist() == [2, 1]
    pixels, target = read_sample(second, training=True)
    assert pixels.shape == (3, 20, 20) and target["boxes"].shape == (0, 4)


def coco_with(**changes):
    """COCO's file with some fields of its last records changed; None takes a field out."""
    content = json.loads(json.dumps(COCO))
    for place, value in changes.items():
        part, _, field = place.partition("_of_")
        if field:
            content[field][-1] |= {part: value}
        elif value is None:
            del content[part]
        else:
            content[part] = value
    return json.dumps(content)


COCO_MISTAKES = {
    "no JSON": ("{", ["instances_val2017.json"]),
    "a list": ("[]", ["no list 'categories'"]),
    "a key twice": ('{"images": [], "images": []}', ["'images' is in it twice"]),
    "no images": (coco_with(images=None), ["no list 'images'"]),
    "images are none": (coco_with(images=[3]), ["no list 'images' of records"]),
    "empty": (coco_with(images=[], annotations=[]), ["has no images"]),
    "no categories": (coco_with(categories=[], annotations=[]), ["has no categories"]),
    "category without name": (coco_with(name_of_categories=3), ["a category needs"]),
    "category twice": (coco_with(id_of_categories=44), ["two categories have the id 44"]),
    "name twice": (coco_with(name_of_categories="fork"), ["the name 'fork'"]),
    "image without id": (coco_with(id_of_images=None), ["an image needs an 'id'"]),
    "image twice": (coco_with(id_of_images=9), ["two images have the id 9"]),
    "no file name": (coco_with(file_name_of_images=""), ["image 4 needs a 'file_name'"]),
    "outside": (coco_with(file_name_of_images="../a.jpg"), ["outside of val2017/"]),
    "absolute": (coco_with(file_name_of_images="/etc/passwd"), ["outside of val2017/"]),
    "no size": (coco_with(width_of_images=0), ["image 4 needs a 'width'"]),
    "missing image": (coco_with(file_name_of_images="d.jpg"), ["d.jpg", "missing"]),
    "no such image": (coco_with(image_id_of_annotations=5), ["annotation 3", "image", "(5)"]),
    "image is a list": (coco_with(image_id_of_annotations=[]), ["annotation 3", "([])"]),
    "no such category": (coco_with(category_id_of_annotations=1), ["category", "(1)"]),
    "category is text": (coco_with(category_id_of_annotations="18"), ["category", "(18)"]),
    "three numbers": (coco_with(bbox_of_annotations=[1, 2, 3]), ["'bbox' of four numbers"]),
    "no box": (coco_with(bbox_of_annotations=None), ["'bbox' of four numbers"]),
    "text in a box": (coco_with(bbox_of_annotations=[1, 2, 3, "4"]), ["four numbers"]),
    "infinite": (coco_with(bbox_of_annotations=[1, 2, 3, float("inf")]), ["four numbers"]),
    "negative": (coco_with(bbox_of_annotations=[1, 2, 3, -4]), ["width or height is negative"]),
    "crowd": (coco_with(iscrowd_of_annotations=2), ["'iscrowd'"]),
    "area": (coco_with(area_of_annotations="9"), ["'area'"]),
}


@pytest.mark.parametrize("name", COCO_MISTAKES)
def test_json_that_lies_is_one_line(coco, name):
    text, texts = COCO_MISTAKES[name]
    (coco / "annotations" / "instances_val2017.json").write_text(text)
    assert_one_line(lambda: read_coco(coco, "val"), texts)


def test_a_mistake_in_cocos_folders_is_one_line(coco):
    assert_one_line(lambda: read_coco(coco, "train"), ["has no annotations/instances_train*.json"])
    path = coco / "annotations" / "instances_val2014.json"
    path.write_text("{}")
    assert_one_line(lambda: read_coco(coco, "val"), ["more than one", "instances_val*.json"])
    path.unlink()
    (coco / "val2017").rename(coco / "val")
    assert_one_line(lambda: read_coco(coco, "val"), ["no folder val2017/"])


def test_an_image_that_is_none_or_of_another_size_is_one_line(coco):
    first, second = read_coco(coco, "val").images
    first.file.write_bytes(b"no image")
    assert_one_line(lambda: read_sample(first, True), ["a.jpg", "cannot be read"])
    save_image(second.file, 20, 10)
    assert_one_line(lambda: read_sample(second, True), ["c.png", "20×10 pixels, not 20×20"])
