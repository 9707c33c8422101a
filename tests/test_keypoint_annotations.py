"""COCO's files of people: what is read, what is left out, what is refused."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UserError
from transfer.keypoints.annotations import (
    detected_people,
    find_coco,
    parse_annotations,
    read_annotations,
    true_people,
)
from transfer.keypoints.made import made_people, made_set


def write_coco(root, images=3, seed=0, split="val", inside="", change=None):
    """Write a made set in COCO's layout; returns the content of its annotation file."""
    pixels, content = made_set(images, seed)
    folder = root / inside / f"{split}2017"
    folder.mkdir(parents=True)
    for entry, image in zip(content["images"], pixels, strict=True):
        entry["file_name"] = entry["file_name"].replace("jpg", "png")  # the very pixels
        Image.fromarray(image).save(folder / entry["file_name"])
    if change:
        change(content)
    (root / "annotations").mkdir(exist_ok=True)
    text = json.dumps(content | {"info": {}, "licenses": []})
    (root / "annotations" / f"person_keypoints_{split}2017.json").write_text(text)
    return content


def read(root, split="val"):
    file, folder = find_coco(root, split)
    annotations = read_annotations(file)
    return annotations, true_people(annotations, folder)


@pytest.mark.parametrize("inside", ["", "images"])
def test_a_set_in_cocos_layout_is_read(tmp_path, inside):
    content = write_coco(tmp_path, inside=inside)
    annotations, people = read(tmp_path)
    expected_annotations, expected = made_people(3, 0)
    assert annotations.people == expected_annotations.people == content["annotations"]
    assert annotations.coco_images == [{"id": 1}, {"id": 2}, {"id": 3}]
    for name in ("image_sizes", "image_ids", "boxes", "box_scores", "joints", "visible"):
        np.testing.assert_array_equal(getattr(people, name), getattr(expected, name))
    assert len(people) == len(content["annotations"]) > 3
    folder = tmp_path / inside / "val2017"
    assert [file.parent for file in people.images] == [folder] * len(people)
    assert people.left_out == {}


def person(number=1, **others):
    usual = {
        "id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 500.0,
        "bbox": [10.0, 20, 30, 40], "keypoints": [15, 25, 2, 20, 30, 1] + [0, 0, 0] * 15,
        "num_keypoints": 2,
    }  # fmt: skip
    return usual | others


def content_of(*people):
    images = [{"id": 1, "file_name": "1.png", "width": 100, "height": 80}]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}]
    return {"images": images, "categories": categories, "annotations": list(people)}


def people_of(tmp_path, *people):
    (tmp_path / "1.png").touch()
    return true_people(parse_annotations(content_of(*people), tmp_path / "file.json"), tmp_path)


def test_labelled_joints_are_known_hidden_or_not(tmp_path):
    people = people_of(tmp_path, person())
    assert people.visible.tolist() == [[True, True] + [False] * 15]
    assert people.joints[0, :3].tolist() == [[15, 25], [20, 30], [0, 0]]


def test_whom_training_leaves_out(tmp_path):
    nothing = [0, 0, 0] * 17
    people = people_of(
        tmp_path,
        person(1, iscrowd=1),
        person(2, category_id=2),
        person(3, keypoints=nothing),
        person(4, keypoints=nothing, num_keypoints=3),  # which is a lie
        person(5, bbox=[10, 20, 0, 40]),
        person(6, bbox=[10, 20, 30, -1]),
        person(7, area=0),
        person(8, bbox=[100, 20, 30, 40]),
        person(9, bbox=[10, -50, 30, 40]),
        person(10, bbox=[99.5, 20, 30, 40]),  # less than a pixel of it
        person(11),
    )
    assert len(people) == 1
    assert people.left_out == {
        "without labelled joints": 2, "without area": 4, "beyond the image": 2
    }  # fmt: skip


def test_true_boxes_are_cut_off_at_the_borders(tmp_path):
    people = people_of(
        tmp_path, person(1), person(2, bbox=[-10, -20, 50, 60]), person(3, bbox=[70, 50, 1e6, 1e6])
    )
    # From the middle of the first pixel to that of the last.
    assert people.boxes.tolist() == [[10, 20, 29, 39], [0, 0, 39, 39], [70, 50, 29, 29]]


def test_evaluation_knows_everybody():
    people = [person(1, iscrowd=1), person(2, keypoints=[0] * 51), person(3, category_id=2)]
    annotations = parse_annotations(content_of(*people), "file.json")
    counts = [(each["id"], each["iscrowd"], each["num_keypoints"]) for each in annotations.people]
    assert counts == [(1, 1, 2), (2, 0, 0)]


def change_image(content, **fields):
    content["images"][0] |= fields


def change_person(content, **fields):
    content["annotations"][0] |= fields


def drop(content, kind, field):
    del content[kind][0][field]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.pop("images"), "no list 'images'"),
        (lambda content: content.update(annotations={}), "no list 'annotations'"),
        (lambda content: content.update(categories=[{"id": 1, "name": "cat"}]), "category 1"),
        (lambda content: content.update(images=[5]), "image at 0: is no object"),
        (lambda content: drop(content, "images", "id"), "image at 0: 'id'"),
        (lambda content: drop(content, "images", "width"), "image 1: 'width'"),
        (lambda content: change_image(content, height=0), "image 1: 'width' and 'height'"),
        (lambda content: change_image(content, width=99999, height=99999), "more than can be read"),
        (lambda content: change_image(content, file_name=3), "image 1: 'file_name'"),
        (lambda content: change_image(content, file_name="../1.png"), "leads out of the folder"),
        (lambda content: change_image(content, file_name="/etc/passwd"), "leads out of the folder"),
        (lambda content: change_image(content, file_name="none.png"), "none.png: no such file"),
        (lambda content: change_image(content, id=2), "image 2 is in it twice"),
        (lambda content: change_person(content, image_id=9), "annotation 1 is of image 9"),
        (lambda content: change_person(content, id=2), "annotation 2 is in it twice"),
        (lambda content: change_person(content, id=True), "annotation at 0: 'id'"),
        (lambda content: change_person(content, iscrowd="no"), "annotation 1: 'iscrowd'"),
        (lambda content: change_person(content, area=-1), "annotation 1: 'area'"),
        (lambda content: change_person(content, area=math.nan), "annotation 1: 'area'"),
        (lambda content: change_person(content, bbox=[1, 2, 3]), "annotation 1: 'bbox'"),
        (lambda content: change_person(content, bbox=[1, 2, 3, 1e300]), "annotation 1: 'bbox'"),
        (lambda content: change_person(content, bbox=[1, 2, 3, math.inf]), "annotation 1: 'bbox'"),
        (lambda content: drop(content, "annotations", "keypoints"), "annotation 1: 'keypoints'"),
        (lambda content: change_person(content, keypoints=[1] * 50), "51 numbers"),
        (lambda content: change_person(content, keypoints=["1"] * 51), "51 numbers"),
        (lambda content: change_person(content, keypoints=[3] * 51), "must be 0, 1 or 2"),
        (lambda content: content.update(annotations=[]), "nobody in it has labelled joints"),
    ],
)
def test_what_is_wrong_with_an_annotation_file_is_one_line(tmp_path, change, expected):
    write_coco(tmp_path, change=change)
    with pytest.raises(UserError) as failure:
        read(tmp_path)
    assert expected in str(failure.value) and "\n" not in str(failure.value)
    assert "person_keypoints_val2017.json" in str(failure.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no JSON"),
        ("[1, 2", "no JSON"),
        ("[]", "holds no annotations"),
        ('{"images": [], "images": []}', "twice"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_no_annotation_file_is_one_line(tmp_path, text, expected):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(UserError, match=expected) as failure:
        read_annotations(tmp_path / "file.json")
    assert "\n" not in str(failure.value)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"person_keypoints_val2017\.json: No such file"):
        read(tmp_path)
    write_coco(tmp_path)
    with pytest.raises(UserError, match=r"train2017: No such file.*should hold the images"):
        true_people(read_annotations(find_coco(tmp_path, "val")[0]), tmp_path / "train2017")
    (tmp_path / "val2017" / f"{2:012}.png").unlink()
    (tmp_path / "val2017" / f"{3:012}.png").unlink()
    with pytest.raises(UserError, match=r"000002.png and 1 others: no such file"):
        read(tmp_path)


def test_images_in_folders_of_their_own_are_found(tmp_path):
    def move(content):
        (tmp_path / "val2017" / "deeper").mkdir()
        name = content["images"][0]["file_name"]
        (tmp_path / "val2017" / name).rename(tmp_path / "val2017" / "deeper" / name)
        content["images"][0]["file_name"] = f"deeper/{name}"

    write_coco(tmp_path, change=move)
    assert read(tmp_path)[1].images[0].parent.name == "deeper"


def detection(**others):
    return {"image_id": 1, "category_id": 1, "bbox": [10.0, 20, 30, 40], "score": 0.5} | others


def detected(tmp_path, content):
    (tmp_path / "1.png").touch()
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    annotations = parse_annotations(content_of(person()), tmp_path / "file.json")
    return detected_people(annotations, tmp_path, tmp_path / "boxes.json")


def test_detected_boxes_are_read(tmp_path):
    people = detected(tmp_path, [
        detection(),
        detection(bbox=[-10, -20, 50, 60], score=0.9),
        detection(bbox=[10, 20, 30, 0]),
        detection(bbox=[200, 20, 30, 10]),
        detection(category_id=2),
    ])  # fmt: skip
    # As they are: a detector may see that a person goes on beyond the border.
    assert people.boxes.tolist() == [[10, 20, 30, 40], [-10, -20, 50, 60]]
    assert people.box_scores.tolist() == [0.5, 0.9]
    assert people.image_ids.tolist() == [1, 1]
    assert not people.visible.any()
    assert people.left_out == {"without area": 1, "beyond the image": 1}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "no list of detected boxes"),
        ([], "no detected person"),
        ([detection(category_id=2)], "no detected person"),
        ([detection(), 7], "detection at 1: is no object"),
        ([detection(image_id="1")], "detection at 0: 'image_id'"),
        ([detection(image_id=5)], "image 5, which is not in"),
        ([detection(bbox=[])], "detection at 0: 'bbox'"),
        ([detection(score=None)], "detection at 0: 'score'"),
        ([detection(score=math.nan)], "detection at 0: 'score'"),
    ],
)
def test_what_is_wrong_with_detected_boxes_is_one_line(tmp_path, content, expected):
    with pytest.raises(UserError) as failure:
        detected(tmp_path, content)
    assert expected in str(failure.value) and "\n" not in str(failure.value)
    assert "boxes.json" in str(failure.value)
