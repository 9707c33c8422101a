"""Average precision by hand, against the authors' code, and against pycocotools."""

import sys

import numpy as np
import pytest
import torch
from detection_reference import read_reference
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from runtime.errors import UserError
from transfer.detection.evaluation import (
    average_precisions,
    coco_average_precision,
    coco_results,
    judge_detections,
    mean_average_precision,
)


def boxes(*corners):
    return torch.tensor(corners, dtype=torch.float64).view(-1, 4)


def objects(corners, labels=None, ignored=None):
    count = len(corners)
    return {
        "boxes": boxes(*corners),
        "labels": torch.tensor(labels or [1] * count, dtype=torch.int64),
        "ignored": torch.tensor(ignored or [False] * count, dtype=torch.bool),
    }


def detections(corners, scores, labels=None):
    return {
        "boxes": boxes(*corners),
        "labels": torch.tensor(labels or [1] * len(corners), dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float64),
    }


@pytest.mark.parametrize("entry", read_reference("detection_parts")["average_precision"])
def test_average_precision_is_the_originals(entry):
    outcomes = []
    for image in sorted({*entry["truth"], *(found[0] for found in entry["detections"])}):
        corners = entry["truth"].get(image, [])
        difficult = [bool(flag) for flag in entry["difficult"].get(image, [])]
        found = [found[1:] for found in entry["detections"] if found[0] == image]
        outcomes.append(
            judge_detections(
                detections([box for _, box in found], [score for score, _ in found]),
                objects(corners, ignored=difficult),
            )
        )
    assert average_precisions(outcomes, 2)[1] == pytest.approx(entry["ap_2007"], abs=1e-6)


def test_average_precision_by_hand():
    # Five objects; right, wrong, right, right again of the same object.
    truth = objects([[10 * i, 0, 10 * i + 8, 8] for i in range(5)])
    found = detections(
        [[0, 0, 8, 8], [100, 0, 108, 8], [10, 0, 18, 8], [11, 0, 18, 8]], [0.9, 0.8, 0.7, 0.6]
    )
    outcome = judge_detections(found, truth)
    assert outcome.correct.tolist() == [True, False, True, False]
    # Recalls of 0, 0.1 and 0.2 with precision 1; 0.3 and 0.4 with 2/3; no higher ones.
    expected = (3 * 1 + 2 * 2 / 3) / 11
    assert average_precisions([outcome], 2) == {1: pytest.approx(expected)}


def test_recall_of_exactly_three_tenths_counts():
    # As floats 3 · 0.1 is more than 3 / 10.
    truth = objects([[10 * i, 0, 10 * i + 8, 8] for i in range(10)])
    found = detections([[10 * i, 0, 10 * i + 8, 8] for i in range(3)], [0.9, 0.8, 0.7])
    assert average_precisions([judge_detections(found, truth)], 2)[1] == pytest.approx(4 / 11)


def test_a_difficult_object_is_neither_missed_nor_found():
    truth = objects([[0, 0, 8, 8], [20, 0, 28, 8]], ignored=[False, True])
    found = detections([[20, 0, 28, 8], [20, 1, 28, 8], [0, 0, 8, 8]], [0.9, 0.8, 0.7])
    outcome = judge_detections(found, truth)
    assert outcome.correct.tolist() == [True]
    assert average_precisions([outcome], 2) == {1: 1.0}
    assert average_precisions([judge_detections(found, objects([[0, 0, 8, 8]]))], 2)[1] < 0.5


def test_a_perfect_detector_gets_one():
    truth = objects(
        [[0, 0, 8, 8], [20, 0, 28, 8], [3, 3, 9, 9]], labels=[1, 3, 3], ignored=[False, False, True]
    )
    empty = objects([])
    found = detections([[0, 0, 8, 8], [20, 0, 28, 8]], [0.9, 0.8], [1, 3])
    outcomes = [judge_detections(found, truth), judge_detections(detections([], []), empty)]
    assert mean_average_precision(outcomes, 4) == 1.0
    figures = coco_average_precision([found, detections([], [])], [truth, empty], 4)
    assert [figures[name] for name in ("ap", "ap50", "ap75")] == pytest.approx([1, 1, 1])
    assert figures["ap_large"] == -1


def test_only_objects_of_the_class_are_found():
    truth = objects([[0, 0, 8, 8], [0, 0, 8, 8]], labels=[1, 2])
    found = detections([[0, 0, 8, 8]], [0.9], [2])
    outcome = judge_detections(found, truth)
    assert average_precisions([outcome], 4) == {1: 0.0, 2: 1.0}
    truth = objects([[0, 0, 8, 8], [20, 0, 28, 8]], labels=[1, 2])
    wrong = judge_detections(detections([[20, 0, 28, 8]], [0.9], [1]), truth)
    assert wrong.correct.tolist() == [False]
    assert average_precisions([wrong], 4) == {1: 0.0, 2: 0.0}


def test_without_objects_there_is_no_precision():
    for outcomes in ([], [judge_detections(detections([[0, 0, 8, 8]], [0.5]), objects([]))]):
        with pytest.raises(UserError, match="no objects to find"):
            mean_average_precision(outcomes, 3)


def random_images(count=30, seed=0):
    """Images with objects of two classes, and detections near them and elsewhere."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        corner = random.uniform(0, 200, (random.integers(0, 5), 2))
        corners = np.hstack([corner, corner + random.uniform(20, 120, corner.shape)])
        labels = random.integers(1, 3, len(corners))
        near = corners.repeat(2, axis=0) + random.normal(0, 8, (2 * len(corners), 4))
        start = random.uniform(0, 200, (3, 2))
        found = np.vstack([near, np.hstack([start, start + 60])])
        found_labels = [*labels.repeat(2), *random.integers(1, 3, 3)]
        images.append(
            (
                objects(corners.tolist(), labels.tolist()),
                detections(found.tolist(), random.uniform(size=len(found)).tolist(), found_labels),
            )
        )
    return images


def test_it_is_pycocotools_precision_at_eleven_recalls():
    images = random_images()
    outcomes = [judge_detections(found, truth) for truth, found in images]
    counts = np.bincount(torch.cat([outcome.objects for outcome in outcomes]).numpy())
    assert (counts[1:] % 10 > 0).all()  # else the recalls could be equal to a level
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number} for number in range(len(images))],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [
            annotation | {"id": 100 * number + index + 1, "area": 1, "iscrowd": 0}
            for number, (target, _) in enumerate(images)
            for index, annotation in enumerate(
                coco_results(target | {"scores": torch.ones(len(target["labels"]))}, number)
            )
        ],
    }
    truth.createIndex()
    results = [r for n, (_, found) in enumerate(images) for r in coco_results(found, n)]
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.params.recThrs = np.linspace(0, 1, 11)
    evaluation.evaluate()
    evaluation.accumulate()
    expected = evaluation.eval["precision"][0, :, :, 0, -1].mean(axis=0)
    found = average_precisions(outcomes, 3)
    assert 0.2 < found[1] < 0.9
    # pycocotools compares a detection with the best object that is still free, VOC with the best.
    assert [found[1], found[2]] == pytest.approx(expected, abs=0.005)


def test_the_order_of_the_images_does_not_matter():
    images = random_images()
    for _, found in images:
        found["scores"] = found["scores"].mul(4).round() / 4  # many are equal
    outcomes = [judge_detections(found, truth) for truth, found in images]
    assert average_precisions(outcomes, 3) == average_precisions(outcomes[::-1], 3)


def test_coco_precision_is_pycocotools_of_the_written_results(capsys):
    images = random_images()
    figures = coco_average_precision(*zip(*[(f, t) for t, f in images], strict=True), 3)
    assert capsys.readouterr().out == ""
    assert 0 < figures["ap"] < figures["ap50"] < 1
    assert figures["ap75"] < figures["ap50"]
    mean = mean_average_precision([judge_detections(found, truth) for truth, found in images], 3)
    assert figures["ap50"] == pytest.approx(mean, abs=0.05)


def test_coco_precision_ignores_crowds():
    truth = objects([[0, 0, 8, 8], [20, 0, 90, 90]], ignored=[False, True])
    inside = [[25, 5, 35, 15], [60, 60, 70, 70]]
    found = detections([*inside, [0, 0, 8, 8]], [0.9, 0.8, 0.7])
    assert coco_average_precision([found], [truth], 2)["ap"] == pytest.approx(1)
    assert coco_average_precision([found], [objects([[0, 0, 8, 8]])], 2)["ap"] < 0.5


def test_the_area_decides_what_is_small():
    truth = objects([[0, 0, 100, 100]])
    found = detections([[0, 0, 100, 100]], [0.9])
    assert coco_average_precision([found], [truth], 2)["ap_large"] == pytest.approx(1)
    truth["area"] = torch.tensor([100.0])
    figures = coco_average_precision([found], [truth], 2)
    assert figures["ap_small"] == pytest.approx(1) and figures["ap_large"] == -1


def test_nothing_detected_is_zero():
    truth = objects([[0, 0, 8, 8]])
    assert coco_average_precision([detections([], [])], [truth], 2)["ap"] == 0
    assert mean_average_precision([judge_detections(detections([], []), truth)], 2) == 0


def test_without_pycocotools_a_user_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(UserError, match="needs pycocotools; install it"):
        coco_average_precision([], [], 2)


def test_results_have_cocos_format():
    found = detections([[1, 2, 11, 22.12345]], [0.5], [2])
    assert coco_results(found, "000001", [0, 18, 44]) == [
        {"image_id": "000001", "category_id": 44, "bbox": [1, 2, 10, 20.123], "score": 0.5}
    ]
