"""Annotations in the real layouts of PASCAL VOC and COCO, images, augmentation, the made set."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection

from dataset.image_set import load_image_set
from runtime.errors import UserError
from transfer.detection import data
from transfer.detection.annotations import VOC_CLASSES, VOC_TEST, VOC_TRAINING, read_coco, read_voc
from transfer.detection.data import augment, make_batch, read_sample
from transfer.detection.made import CANVAS, CLASS_NAMES, LARGEST, SMALLEST, made_sample
from transfer.detection.network import new_detector

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


def sample(objects=3, width=60, height=40):
    """An image that is black but for bright objects, so that boxes can be seen."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    boxes = [[4, 4, 16, 16], [24, 6, 44, 20], [6, 22, 30, 38]][:objects]
    for x1, y1, x2, y2 in boxes:
        image[:, y1:y2, x1:x2] = 200
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    target = {
        "boxes": data._bounding_boxes(corners, height, width),
        "labels": torch.arange(1, objects + 1),
        "ignored": torch.zeros(objects, dtype=torch.bool),
        "area": torch.ones(objects),
    }
    return data.tv_tensors.Image(image), target


def test_augmentation_is_a_function_of_its_seed():
    before = torch.random.get_rng_state()
    first, again, other = (augment(*sample(), 64, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first[0], again[0]) and torch.equal(first[1]["boxes"], again[1]["boxes"])
    assert not torch.equal(first[0], other[0])


def test_augmented_boxes_stay_around_their_objects():
    counts, sizes, colours = set(), [], []
    for seed in range(200):
        image, target = augment(*sample(), 64, seed)
        assert image.shape == (3, 64, 64) and image.dtype == torch.uint8
        boxes = target["boxes"]
        assert (boxes >= 0).all() and (boxes <= 64).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(boxes) == len(target["labels"]) >= 1
        assert sorted(target) == ["boxes", "labels"]
        counts.add(len(boxes))
        sizes.append((boxes[:, 2] - boxes[:, 0]).max().item())
        colours.append(image.float().mean().item())
        for box in boxes.round().int().tolist():
            inside = image[:, box[1] : box[3], box[0] : box[2]].float()
            if inside.numel() > 3 * 100:
                # Bright in at least one channel, whatever happened to the colours.
                assert inside.mean(dim=(1, 2)).max() > 60
    assert counts == {1, 2, 3}
    assert min(sizes) < 8 and max(sizes) > 50  # zoomed out, and cropped
    assert np.std(colours) > 20


@pytest.mark.parametrize(("objects", "width"), [(0, 60), (0, 1), (1, 3)])
def test_images_without_objects_and_tiny_ones_are_augmented(objects, width):
    for seed in range(30):
        image, target = augment(*sample(objects, width, 40), 32, seed)
        assert image.shape == (3, 32, 32) and target["boxes"].shape[1] == 4


def test_brightness_is_added(monkeypatch):
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    found = set()
    torch.manual_seed(0)
    for _ in range(300):
        changed, _ = data.RandomBrightness()(data.tv_tensors.Image(image), {})
        (value,) = changed.unique().tolist()
        found.add(value)
    assert min(found) < 75 and max(found) > 125
    assert min(found) >= 68 and max(found) <= 132
    white = data.tv_tensors.Image(torch.full((3, 4, 4), 250, dtype=torch.uint8))
    assert max(int(data.RandomBrightness()(white, {})[0].max()) for _ in range(50)) == 255


def test_a_batch_trains_and_tests_the_network():
    network = new_detector(init_channels=2, layers=2, num_classes=11, image_size=64)
    digits = load_image_set("digits", "", "train")
    samples = [augment(*made_sample(digits, 0, index), 64, index) for index in range(4)]
    images, targets = make_batch(samples, torch.device("cpu"))
    assert all(image.dtype == torch.float32 and image.max() <= 1 for image in images)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(12):
        loss = sum(network(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert [sorted(found) for found in network.eval()(images)] == [
        ["boxes", "labels", "scores"]
    ] * 4


def test_made_digits_are_inside_their_boxes_and_the_same_each_time():
    digits = load_image_set("digits", "", "test")
    labels, counts = set(), set()
    for index in range(40):
        image, target = made_sample(digits, 3, index)
        again, target_again = made_sample(digits, 3, index)
        assert torch.equal(image, again)
        assert torch.equal(target["boxes"], target_again["boxes"])
        assert image.shape == (3, CANVAS, CANVAS) and image.dtype == torch.uint8
        outside = image.clone()
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            assert 0 <= x1 < x2 <= CANVAS and 0 <= y1 < y2 <= CANVAS
            assert x2 - x1 == y2 - y1 and SMALLEST <= x2 - x1 <= LARGEST
            assert image[:, y1:y2, x1:x2].max() > 100
            outside[:, y1:y2, x1:x2] = 0
        assert outside.max() == 0
        labels |= set(target["labels"].tolist())
        counts.add(len(target["labels"]))
    assert labels == set(range(1, len(CLASS_NAMES) + 1)) and counts == {1, 2, 3, 4}
    assert not torch.equal(image, made_sample(digits, 4, index)[0])
