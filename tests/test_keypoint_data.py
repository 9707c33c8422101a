"""People cropped out of images, in batches; the made set."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_keypoint_annotations import read, write_coco

from dataset.batching import Batching
from dataset.pixel_statistics import PUBLISHED_STATISTICS
from genotypes import RelativeNAS
from runtime.errors import UserError
from transfer.keypoints.annotations import Annotations
from transfer.keypoints.data import (
    Augmentation,
    Crop,
    CropBatches,
    Loading,
    PeopleBatches,
    augment,
    cut_out,
    evaluation_batches,
    people_found,
    training_batches,
)
from transfer.keypoints.evaluation import average_precision, coco_results
from transfer.keypoints.made import IMAGE_SIZE, made_people, made_set
from transfer.keypoints.network import build_keypoint_network, describe_keypoint_network
from transfer.keypoints.targets import MIRRORED, heatmap_loss, heatmap_targets, map_places

CPU = torch.device("cpu")

STATISTICS = PUBLISHED_STATISTICS["imagenet"]


def loading(batch_size=4, rank=0, processes=1, workers=0, **others):
    batching = Batching(batch_size, CPU, rank, processes)
    return Loading((96, 128), STATISTICS, batching, workers, **others)


def test_a_crop_of_the_middle_is_the_middle_itself():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    crop = Crop(np.array([40.0, 30]), np.array([32.0, 32]))
    cut, affine = cut_out(Image.fromarray(pixels), crop, (32, 32))
    np.testing.assert_array_equal(cut, pixels[14:46, 24:56])
    assert map_places(affine, np.array([24, 14])).tolist() == [0, 0]


def test_a_crop_beyond_the_image_is_black_there():
    image = Image.new("RGB", (40, 40), (200, 100, 50))
    crop = Crop(np.array([0.0, 20]), np.array([32.0, 32]))
    cut, _ = cut_out(image, crop, (32, 32))
    assert not cut[:, :15].any()
    assert (cut[:, 16:] == (200, 100, 50)).all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 35.0, -80.0])
def test_pixels_and_joints_move_alike(degrees, mirrored):
    pixels = np.zeros((100, 120, 3), dtype=np.uint8)
    x, y = 70, 45
    pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
    crop = Crop(np.array([60.0, 50]), np.array([90.0, 120]), degrees, mirrored)
    cut, affine = cut_out(Image.fromarray(pixels), crop, (96, 128))
    weights = cut[..., 0].astype(float)
    rows, columns = np.mgrid[:128, :96]
    found = [(weights * each).sum() / weights.sum() for each in (columns, rows)]
    np.testing.assert_allclose(map_places(affine, np.array([x, y])), found, atol=0.1)


def test_a_mirrored_crop_is_the_mirrored_image():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    crop = Crop(np.array([32.0, 32]), np.array([64.0, 64]))
    mirrored, affine = cut_out(Image.fromarray(pixels), crop._replace(mirrored=True), (64, 64))
    # 32 mirrored is 31, which becomes the middle, so that the first column is beyond the image.
    np.testing.assert_array_equal(mirrored[:, 1:], pixels[:, :0:-1])
    assert map_places(affine, np.array([10.0, 5])).tolist() == [54, 5]


def test_augmentation_stays_within_its_bounds():
    crops = [Crop(np.array([5.0, 6]), np.array([30.0, 40]))] * 4000
    changed = augment(crops, Augmentation(), np.random.default_rng(0))
    factors = np.array([crop.size / crops[0].size for crop in changed])
    np.testing.assert_allclose(factors[:, 0], factors[:, 1])
    assert factors.min() == pytest.approx(0.7) and factors.max() == pytest.approx(1.3)
    assert np.median(factors) == pytest.approx(1, abs=0.02)
    degrees = np.array([crop.degrees for crop in changed])
    assert degrees.min() == -80 and degrees.max() == 80
    assert (degrees != 0).mean() == pytest.approx(0.6, abs=0.03)
    assert np.mean([crop.mirrored for crop in changed]) == pytest.approx(0.5, abs=0.03)
    assert np.abs(degrees[degrees != 0]).mean() == pytest.approx(40 * 0.79, abs=1.5)
    assert all((crop.centre == crops[0].centre).all() for crop in changed)


def flat(batch):
    images, people = batch
    return [images, *people]


def stacked(batches):
    return [torch.cat(tensors) for tensors in zip(*map(flat, batches), strict=True)]


def test_training_batches_are_the_same_whoever_makes_them():
    _, people = made_people(7, 0)
    whole = list(training_batches(people, loading(), seed=3))
    assert len(whole) == len(people) // 4 + (len(people) % 4 >= 2)
    images, cropped = whole[0]
    assert images.shape == (4, 3, 128, 96) and images.dtype == torch.float32
    assert cropped.joints.shape == (4, 17, 2) and cropped.joints.dtype == torch.float32
    indices = stacked(whole)[-1].tolist()
    assert len(set(indices)) == len(indices) > len(people) - 2
    by_workers = stacked(training_batches(people, loading(workers=2), seed=3))
    for tensor, expected in zip(by_workers, stacked(whole), strict=True):
        assert torch.equal(tensor, expected)
    later = next(training_batches(people, loading(), seed=3, first_step=1))
    assert all(map(torch.equal, flat(later), flat(whole[1])))
    for rank in (0, 1):
        part = next(training_batches(people, loading(rank=rank, processes=2), seed=3))
        for tensor, expected in zip(flat(part), flat(whole[0]), strict=True):
            assert torch.equal(tensor, expected[rank::2])
    other = next(training_batches(people, loading(), seed=4))
    assert not torch.equal(other[0], images)


def test_batches_are_what_the_training_loop_asks_for():
    (_, train), (_, validation) = made_people(5, 0), made_people(2, 1)
    batches = PeopleBatches(train, validation, loading())
    assert batches.steps == len(list(batches.training_batches(0)))
    images, cropped = next(batches.training_batches(0, 1))
    expected = next(training_batches(train, loading(), 0, 1))
    assert torch.equal(images, expected[0]) and torch.equal(cropped.joints, expected[1].joints)
    validated = stacked(batches.validation_batches())[-1].tolist()
    assert validated == list(range(len(validation)))


def test_everybody_is_evaluated_once_over_all_processes():
    _, people = made_people(5, 0)
    parts = [
        cropped.indices.tolist()
        for rank in (0, 1)
        for _, cropped in evaluation_batches(people, loading(rank=rank, processes=2))
    ]
    assert sorted(index for part in parts for index in part) == list(range(len(people)))
    assert max(map(len, parts)) == 2


def test_left_and_right_change_places_in_mirrored_crops():
    _, people = made_people(2, 0)
    people.visible[:, 5] = False  # the left shoulder
    always = loading(augmentation=Augmentation(scale=0, rotation=0, flipped=1))
    everybody = [np.arange(len(people))]
    _, plain, _, *crops = CropBatches(people, always, everybody, None)[0]
    _, joints, visible, *crops_of_mirrored = CropBatches(people, always, everybody, 0)[0]
    assert (visible.sum(1) == 16).all() and not visible[:, 6].any()
    order = list(MIRRORED)
    torch.testing.assert_close(joints[:, order, 0], 96 - plain[..., 0])
    torch.testing.assert_close(joints[:, order, 1], plain[..., 1])
    assert all(map(torch.equal, crops, crops_of_mirrored))


def test_blue_comes_first_as_in_the_published_training():
    _, people = made_people(2, 0)
    rgb, _ = next(evaluation_batches(people, loading()))
    bgr, _ = next(evaluation_batches(people, loading(bgr=True)))
    mean, std = (tensor.view(3, 1, 1) for tensor in STATISTICS.tensors(CPU))
    swapped = ((rgb * std + mean).flip(1) - mean) / std
    torch.testing.assert_close(bgr, swapped, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(96, 100), (0, 128), (90, 128)])
def test_sides_are_multiples_of_32(size):
    with pytest.raises(UserError, match="must be multiples of 32"):
        Loading(size, STATISTICS, Batching(4, CPU), 0)


def test_files_give_the_batches_of_the_pixels_in_them(tmp_path):
    write_coco(tmp_path, images=3)
    _, from_files = read(tmp_path)
    _, in_memory = made_people(3, 0)
    for first, second in zip(
        evaluation_batches(from_files, loading(workers=1)),
        evaluation_batches(in_memory, loading()),
        strict=True,
    ):
        assert all(map(torch.equal, flat(first), flat(second)))


def shrink(path):
    Image.new("RGB", (80, 60)).save(path)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("change", "expected", "workers"),
    [
        (shrink, "has 80×60 pixels, but its annotations are for 160×160", 0),
        (shrink, "has 80×60 pixels, but its annotations are for 160×160", 1),
        (cut_off, "not an image that can be read", 0),
        (lambda path: path.write_text("no image"), "no image format that is known", 0),
        (lambda path: path.unlink(), "No such file", 0),
    ],
)
def test_an_image_that_cannot_be_used_is_named(tmp_path, change, expected, workers):
    write_coco(tmp_path, images=2)
    _, people = read(tmp_path)
    change(people.images[-1])
    with pytest.raises(UserError) as failure:
        list(evaluation_batches(people, loading(workers=workers)))
    assert expected in str(failure.value) and "\n" not in str(failure.value)
    assert people.images[-1].name in str(failure.value)


def test_a_perfect_detector_gets_one_in_any_order():
    annotations, people = made_people(6, 0)
    order = np.random.default_rng(0).permutation(len(people))
    sizes = np.random.default_rng(1).uniform(50, 60, (len(people), 2))
    scores = np.arange(1.0, len(people) + 1)[:, None].repeat(17, axis=1)
    found = people_found(people, order, sizes, people.joints[order], scores[order])
    assert found.scores.tolist() == pytest.approx(scores[:, 0].tolist())
    assert found.image_ids.tolist() == people.image_ids.tolist()
    np.testing.assert_allclose(sorted(found.areas), sorted(sizes.prod(axis=1)))
    figures = precision(annotations, coco_results(found))
    assert figures["AP"] == figures["AR"] == pytest.approx(1)
    assert precision(annotations, coco_results(found)[1:])["AR"] < 1


def precision(annotations: Annotations, results):
    return average_precision(annotations.coco_images, annotations.people, results)


def test_made_figures_are_inside_their_boxes_and_images():
    pixels, content = made_set(30, 0)
    again, _ = made_set(31, 0)
    assert all(map(np.array_equal, pixels, again))
    assert not np.array_equal(pixels[0], made_set(1, 1)[0][0])
    per_image = [0] * 30
    for person in content["annotations"]:
        per_image[person["image_id"] - 1] += 1
        left, top, width, height = person["bbox"]
        joints = np.array(person["keypoints"]).reshape(17, 3)[:, :2]
        assert (joints >= (left, top)).all() and (joints <= (left + width, top + height)).all()
        assert left >= 0 and top >= 0
        assert left + width <= IMAGE_SIZE[0] and top + height <= IMAGE_SIZE[1]
        # All face the viewer; shoulders and hips tell.
        assert joints[5, 0] > joints[6, 0] and joints[11, 0] > joints[12, 0]
    assert set(per_image) == {1, 2}


def test_a_network_learns_figures():
    torch.manual_seed(0)
    description = describe_keypoint_network(RelativeNAS, 4, 3, upsampled_channels=16)
    network = build_keypoint_network(description)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    _, people = made_people(3, 0)
    small = Loading((64, 96), STATISTICS, Batching(8, CPU), 0)
    images, cropped = next(evaluation_batches(people, small))
    targets, weights = heatmap_targets(cropped.joints, cropped.visible, (16, 24))
    for _ in range(30):
        loss = heatmap_loss(network(images), targets, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.9 * heatmap_loss(torch.zeros_like(targets), targets, weights)


def test_targets_of_a_batch_are_where_its_joints_are():
    _, people = made_people(2, 0)
    _, cropped = next(evaluation_batches(people, loading()))
    targets, weights = heatmap_targets(cropped.joints, cropped.visible, (24, 32))
    assert (weights == 1).all()
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(24.0), indexing="ij")
    for axis, places in enumerate((columns, rows)):
        means = (targets * places).sum((2, 3)) / targets.sum((2, 3))
        assert (means - cropped.joints[..., axis] / 4).abs().max() < 1
