"""OKS and its suppression against the original's; average precision by hand."""

import gzip
import json
import sys

import numpy as np
import pytest
from helpers import FIXTURES

from runtime.errors import UserError
from transfer.keypoints.evaluation import (
    FIGURES,
    SIGMAS,
    FoundPeople,
    average_precision,
    coco_results,
    keep_different_people,
    object_keypoint_similarity,
)

with gzip.open(FIXTURES / "transfer" / "keypoints_parts.json.gz", "rt") as file:
    REFERENCE = json.load(file)["oks"]


def reference_people():
    people = REFERENCE["people"]
    places = np.array([person["keypoints"] for person in people])[..., :2]
    return places, *(np.array([person[name] for person in people]) for name in ("score", "area"))


def test_similarities_are_the_originals():
    places, _, areas = reference_people()
    similarity = object_keypoint_similarity(places, places, areas, areas)
    np.testing.assert_allclose(similarity, REFERENCE["oks"], rtol=1e-5)


@pytest.mark.parametrize("most_similar", [0.9, 0.5])
def test_the_same_people_are_kept_as_in_the_original(most_similar):
    kept = keep_different_people(*reference_people(), most_similar)
    assert kept == REFERENCE[f"kept_at_{most_similar}"]


def found_people(places, joint_scores, image_ids, box_scores=None):
    count = len(places)
    return FoundPeople(
        np.array(image_ids),
        np.array(places),
        np.array(joint_scores),
        np.ones(count) if box_scores is None else np.array(box_scores),
        np.full(count, 1e4),
    )


def test_a_persons_score_is_the_boxs_times_that_of_the_joints_it_is_sure_of():
    joint_scores = np.full((3, 17), 0.2)
    joint_scores[0, :2] = 0.6, 0.4
    joint_scores[1] = 0.8
    found = found_people(np.zeros((3, 17, 2)), joint_scores, [1, 1, 1], [0.5, 1, 1])
    assert found.scores.tolist() == pytest.approx([0.25, 0.8, 0])


def test_results_are_in_cocos_form_and_nobody_is_in_them_twice():
    random = np.random.default_rng(0)
    places = random.uniform(0, 100, (2, 17, 2))
    joint_scores = np.array([0.5, 0.6, 0.7, 0.8]).repeat(17).reshape(4, 17)
    found = found_people(places[[0, 0, 1, 0]], joint_scores, [7, 7, 7, 3])
    results = coco_results(found)
    assert [(result["image_id"], result["category_id"]) for result in results] == [
        (7, 1), (7, 1), (3, 1)
    ]  # fmt: skip
    assert [result["score"] for result in results] == pytest.approx([0.7, 0.6, 0.8])
    joints = np.array(results[0]["keypoints"]).reshape(17, 3)
    np.testing.assert_allclose(joints[:, :2], places[1])
    np.testing.assert_allclose(joints[:, 2], 0.7)
    json.dumps(results)


def annotation(number, image_id, places, visible=2, **others):
    visible = np.broadcast_to(visible, 17)
    keypoints = np.column_stack([places, visible]).ravel().tolist()
    usual = {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0, "area": 4000.0}
    bounds = {"bbox": [0, 0, 100, 100], "num_keypoints": int((visible > 0).sum())}
    return usual | bounds | {"keypoints": keypoints} | others


IMAGES = [{"id": 3}, {"id": 7}]

PLACES = np.random.default_rng(1).uniform(0, 100, (3, 17, 2))


def result(image_id, places, score=1.0):
    found = found_people([places], np.full((1, 17), score), [image_id])
    return coco_results(found)[0]


def moved(places, similarity, area=4000.0):
    """`places`, so far off that COCO finds the given similarity."""
    distances = 2 * SIGMAS * np.sqrt(-2 * area * np.log(similarity))
    return places + np.column_stack([0.6 * distances, -0.8 * distances])


def test_perfect_results_get_one_and_no_results_get_zero():
    annotations = [annotation(1, 3, PLACES[0]), annotation(2, 7, PLACES[1], area=20000.0)]
    results = [result(3, PLACES[0]), result(7, PLACES[1])]
    figures = average_precision(IMAGES, annotations, results)
    assert figures == pytest.approx(dict.fromkeys(FIGURES, 1.0))
    assert average_precision(IMAGES, annotations, []) == dict.fromkeys(FIGURES, 0.0)
    medium = average_precision(IMAGES, annotations[:1], results[:1])
    assert set(FIGURES) - medium.keys() == {"AP_large", "AR_large"}


def test_average_precision_by_hand():
    annotations = [annotation(1, 3, PLACES[0]), annotation(2, 7, PLACES[1])]
    first, second = moved(PLACES[0], 0.77), moved(PLACES[1], 0.57)
    results = [result(3, first, 0.9), result(7, second, 0.8), result(7, PLACES[2], 0.7)]
    figures = average_precision(IMAGES, annotations, results)
    # The thresholds are 0.5, 0.55, ..., 0.95: the first is found at six of them, the second at two.
    # Where one of the two is found, precision is 1 up to a recall of 1/2: 51 of 101 steps.
    assert figures["AP50"] == pytest.approx(1)
    assert figures["AP75"] == pytest.approx(51 / 101)
    assert figures["AP"] == pytest.approx((2 * 1 + 4 * 51 / 101) / 10)
    assert figures["AR"] == pytest.approx((2 * 1 + 4 * 1 / 2) / 10)
    worse = [results[2] | {"score": 0.95}, *results[:2]]
    # Now the one that is wrong comes first: precisions 1/2 and 2/3, made monotonous.
    assert average_precision(IMAGES, annotations, worse)["AP50"] == pytest.approx(2 / 3)


def test_similarity_is_that_of_pycocotools():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = COCO(), COCO()
    truth.dataset = {"images": IMAGES[:1], "categories": [{"id": 1}]}
    found.dataset = dict(truth.dataset)
    truth.dataset["annotations"] = [annotation(n, 3, PLACES[n]) for n in (0, 1, 2)]
    places = np.stack([moved(PLACES[n], 0.6 + 0.1 * n) for n in (0, 1, 2)])
    found.dataset["annotations"] = [
        annotation(n, 3, places[n]) | {"score": 0.9 - n / 10} for n in (0, 1, 2)
    ]
    truth.createIndex()
    found.createIndex()
    evaluation = COCOeval(truth, found, "keypoints")
    evaluation.evaluate()
    ours = object_keypoint_similarity(places, PLACES, np.full(3, 4000.0), np.full(3, 4000.0))
    np.testing.assert_allclose(evaluation.ious[3, 1], ours, rtol=1e-9)
    np.testing.assert_allclose(np.diag(ours), [0.6, 0.7, 0.8])


def test_crowds_and_people_without_labelled_joints_do_not_count():
    crowd = annotation(1, 3, PLACES[0], iscrowd=1)
    unlabelled = annotation(2, 3, np.zeros((17, 2)), visible=0)
    annotations = [crowd, unlabelled, annotation(3, 7, PLACES[1])]
    results = [result(7, PLACES[1], 0.5), result(3, PLACES[0], 0.9)]
    assert average_precision(IMAGES, annotations, results)["AP"] == pytest.approx(1)
    assert average_precision(IMAGES, annotations, results[:1])["AR"] == pytest.approx(1)
    # Nobody is where this one is found.
    results[1] = result(3, PLACES[2] + 1000, 0.9)
    assert average_precision(IMAGES, annotations, results)["AP"] == pytest.approx(0.5)


def test_joints_that_are_not_labelled_do_not_count():
    visible = np.array([2, 1] + [0] * 15)
    places = PLACES[1].copy()
    places[:2] = PLACES[0, :2]
    annotations = [annotation(1, 3, PLACES[0], visible)]
    assert average_precision(IMAGES, annotations, [result(3, places)])["AP"] == pytest.approx(1)


def test_it_says_what_pycocotools_is_missing_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(UserError, match="needs pycocotools; install it"):
        average_precision(IMAGES, [], [])
