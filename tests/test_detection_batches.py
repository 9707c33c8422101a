"""Batches of detection: the same for any number of processes and workers; sets, task, pictures."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from kill_harness import start_forks
from test_detection_data import sample

from dataset.batching import Batching
from runtime.errors import UserError
from runtime.interruption import Interrupted
from runtime.processes import Processes
from transfer.detection import data
from transfer.detection.annotations import Annotated, AnnotatedSet, Box
from transfer.detection.batches import DetectionBatches, evaluation_batches
from transfer.detection.data import augment
from transfer.detection.evaluation import judge_detections, mean_average_precision
from transfer.detection.made import IMAGES, MadeDigits
from transfer.detection.pictures import COLOURS, draw_objects
from transfer.detection.sets import AnnotatedImages, open_set
from transfer.detection.task import Detection, Found, LossSums, figures, find_objects
from utils import derive_seed

CPU = torch.device("cpu")


class Pictures:
    """Nine images of different sizes with as many objects as their number; one cannot be read."""

    class_names = ("a", "b", "c")

    def __init__(self, damaged=None):
        self.damaged = damaged

    def __len__(self):
        return 9

    def read(self, index, training):
        if index == self.damaged:
            raise UserError(f"image {index}: damaged")
        image, target = sample(index % 4, 60 + index, 40)
        target["ignored"][1:] = True
        return image, target


def training(processes=1, rank=0, workers=0, first=0, size=4, images=None, as_published=False):
    pictures = images or Pictures()
    batching = Batching(size, CPU, rank, processes)
    batches = DetectionBatches(pictures, pictures, 32, batching, workers, as_published)
    return list(batches.training_batches(5, first)), batches.steps


def assert_same(first, second):
    for (images, targets), (others, other_targets) in zip(first, second, strict=True):
        assert torch.equal(images, others)
        for target, other in zip(targets, other_targets, strict=True):
            assert target.keys() == other.keys() == {"boxes", "labels"}
            assert all(torch.equal(target[name], other[name]) for name in target)


def test_training_batches_are_those_of_the_seed_the_step_and_the_place():
    whole, steps = training()
    assert steps == 2 and [len(images) for images, _ in whole] == [4, 4]
    order = torch.randperm(9, generator=torch.Generator().manual_seed(derive_seed(5, 1)))
    for step, (images, targets) in enumerate(whole):
        assert images.shape == (4, 3, 32, 32) and images.dtype == torch.float32
        for place in range(4):
            part = Pictures().read(int(order[4 * step + place]), True)
            image, target = augment(*part, 32, derive_seed(5, 2, step, place))
            assert torch.equal(images[place], image.float() / 255)
            assert torch.equal(targets[place]["boxes"], target["boxes"].as_subclass(torch.Tensor))
            assert torch.equal(targets[place]["labels"], target["labels"])
    assert sorted({len(target["labels"]) for _, part in whole for target in part})[0] == 0


def test_processes_workers_and_a_resumed_epoch_have_the_same_batches():
    whole, _ = training()
    assert_same(training(workers=1)[0], whole)
    assert_same(training(first=1)[0], whole[1:])
    for rank in range(2):
        part, steps = training(processes=2, rank=rank)
        assert steps == 2
        expected = [(images[rank::2], targets[rank::2]) for images, targets in whole]
        assert_same(part, expected)


def test_an_image_that_cannot_be_read_is_told_of_by_workers_too():
    for workers in (0, 1):
        with pytest.raises(UserError, match="image 3: damaged"):
            training(images=Pictures(damaged=3), workers=workers, size=9)


def test_each_image_is_validated_once_over_all_processes():
    found = {}
    for rank in range(2):
        for images, targets in evaluation_batches(Pictures(), Batching(4, CPU, rank, 2), 0):
            assert len(images) == len(targets) <= 2
            for image, target in zip(images, targets, strict=True):
                number = int(target["number"])
                expected, objects = Pictures().read(number, False)
                assert torch.equal(image, expected.float() / 255)
                for name in ("boxes", "labels", "ignored", "area"):
                    assert torch.equal(target[name], objects[name].as_subclass(torch.Tensor))
                found[number] = found.get(number, 0) + 1
    assert found == dict.fromkeys(range(9), 1)


def test_as_published_the_options_are_no_crop_and_any_crop():
    assert data._crop(False).options == [1.0, 0.1, 0.3, 0.7, 0.9, 0.0]
    assert data._crop(True).options == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_as_published_reaches_the_batches():
    same = zip(training()[0], training(as_published=True)[0], strict=True)
    assert not all(torch.equal(one[0], other[0]) for one, other in same)


def test_a_set_of_ignored_or_empty_boxes_has_no_objects(tmp_path):
    def has_objects(box, ignored, size=None):
        image = Annotated(tmp_path / "a.png", 1, [Box(*box)], [1], [ignored], [0.0], size)
        return AnnotatedImages(AnnotatedSet([image], ["a"], [0, 1])).has_objects

    assert has_objects((0, 0, 2, 2), False)
    assert not has_objects((0, 0, 2, 2), True)
    assert not has_objects((0, 0, 0, 2), False)
    assert has_objects((4, 1, 9, 9), False, size=(5, 5))
    assert not has_objects((5, 1, 9, 9), False, size=(5, 5))
    assert not has_objects((1, -9, 9, 0), False, size=(5, 5))


def test_the_made_sets_differ_and_stay():
    train, test = (open_set(Namespace(set="made", data=""), split) for split in ("train", "val"))
    assert (len(train), len(test)) == (IMAGES["train"], IMAGES["val"])
    first, again = train.read(3, True)[0], MadeDigits("train").read(3, False)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, test.read(3, False)[0])
    assert train.digits.images.shape != test.digits.images.shape


class Fixed(torch.nn.Module):
    """Finds in each image what its pixels say: an object that is so many pixels higher than 10.

    Its width is 10, and more where this is not the main process.
    """

    def __init__(self, rank=0):
        super().__init__()
        self.register_buffer("width", torch.tensor(10.0 + rank))

    def forward(self, images):
        assert not self.training
        return [
            {
                "boxes": torch.tensor(
                    [[0.0, 0, self.width, 10 + round(255 * image[0, 0, 0].item())]]
                ),
                "labels": torch.tensor([1]),
                "scores": torch.tensor([0.9]),
            }
            for image in images
        ]


def target(number, label=1):
    boxes = torch.tensor([[0.0, 0, 10, 10 + number]])
    return {
        "boxes": boxes, "labels": torch.tensor([label]), "ignored": torch.tensor([False]),
        "area": torch.tensor([100.0]), "number": torch.tensor(number),
    }  # fmt: skip


def batches_of(*parts):
    for part in parts:
        yield [torch.full((3, 4, 4), n / 255) for n in part], [target(n) for n in part]


def found_by_fixed(processes):
    return find_objects(Fixed(), batches_of((4, 2), (0, 3), (1,)), processes, torch.float32)


def find_in_two_processes(rank, folder):
    processes = Processes(CPU)
    batches = batches_of((1, 3)) if rank else batches_of((0, 2), (4,))
    found = find_objects(Fixed(rank), batches, processes, torch.float32)
    torch.save([tuple(image) for image in found], folder / f"{rank}.pt")
    processes.close()


def test_all_processes_know_what_all_found_with_the_main_ones_statistics(tmp_path):
    for process in start_forks(2, lambda rank: find_in_two_processes(rank, tmp_path)):
        process.join()
        assert process.exitcode == 0
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert [number for number, _, _ in found] == [0, 1, 2, 3, 4]
        assert [detected["boxes"][0, 2] for _, detected, _ in found] == [10] * 5


def test_what_is_found_is_in_the_order_of_the_set():
    found = found_by_fixed(Processes(CPU))
    assert [image.number for image in found] == [0, 1, 2, 3, 4]
    for image in found:
        assert image.detected["boxes"][0, 3] == image.target["boxes"][0, 3] == 10 + image.number
    assert figures(found, "voc", 2) == {"map": 100.0, "count": 5}
    result = figures(found, "coco", 2)
    assert list(result) == ["map", "ap50", "ap75", "count"]
    assert [result["map"], result["ap75"], result["count"]] == pytest.approx([100, 100, 5])


def test_a_signal_ends_an_evaluation():
    processes = Processes(CPU)
    processes.interruption.signal = 15
    with pytest.raises(Interrupted):
        found_by_fixed(processes)


def test_vocs_measure_ignores_difficult_objects_and_cocos_is_stricter():
    shifted = {"boxes": torch.tensor([[0.0, 3, 10, 13]]), "labels": torch.tensor([1])}
    detected = shifted | {"scores": torch.tensor([0.5])}
    easy = {name: part for name, part in target(0).items() if name != "number"}
    found = [Found(0, detected, easy)]
    outcome = judge_detections(detected, easy)
    assert figures(found, "made", 2)["map"] == 100 * mean_average_precision([outcome], 2) == 100
    assert figures(found, "coco", 2)["map"] == pytest.approx(10)  # IoU 0.54: one level of ten
    difficult = easy | {"ignored": torch.tensor([True])}
    for name in ("voc", "coco"):
        with pytest.raises(UserError, match="no objects to find"):
            figures([Found(0, detected, difficult)], name, 2)


def test_the_loss_is_the_sum_of_both_and_is_counted_by_images():
    sums = LossSums(CPU)
    task = Detection(Namespace(learning_rate=0.4, epochs=8), {}, Pictures())
    losses = {"classification": torch.tensor(1.5), "bbox_regression": torch.tensor(0.5)}
    assert task.loss(lambda *_: losses, torch.zeros(3, 3, 8, 8), [], sums) == 2
    losses = {"classification": torch.tensor(5.0), "bbox_regression": torch.tensor(1.0)}
    task.loss(lambda *_: losses, torch.zeros(1, 3, 8, 8), [], sums)
    assert sums.result() == {"loss": 3.0, "count": 4}
    assert task.in_words(sums.result()) == "loss 3.0000"
    assert task.in_words({"map": 50.123, "count": 4}) == "mAP 50.12 %"
    rates = [task.learning_rate(epoch, 1) for epoch in (0, 2, 4, 8)]
    assert rates == pytest.approx([0.4, 0.2 + 0.2 * 0.5**0.5, 0.2, 0.0])


def test_all_parameters_have_the_momentum_and_the_decay():
    args = Namespace(learning_rate=0.4, momentum=0.7, weight_decay=0.2)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    (group,) = Detection(args, {}, Pictures()).optimizer(network).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.4, 0.7, 0.2)
    assert len(group["params"]) == 4


def test_sure_objects_are_drawn_where_they_are():
    image = torch.zeros(3, 120, 640, dtype=torch.uint8)
    detected = {
        "boxes": torch.tensor([[100.0, 60, 300, 100], [400, -50, 900, 300], [20, 10, 60, 50]]),
        "labels": torch.tensor([2, 1, 1]),
        "scores": torch.tensor([0.9, 0.6, 0.5]),
    }
    picture = draw_objects(image, detected, ["名", "b"])
    assert picture.size == (320, 60)  # half as large
    pixels = np.asarray(picture)
    assert (pixels[30:50, 50] == COLOURS[1]).all() and (pixels[30:50, 150] == COLOURS[1]).all()
    assert (pixels[50, 50:150] == COLOURS[1]).all()
    assert (pixels[20:, 200] == COLOURS[0]).all() and (pixels[20:, 319] == COLOURS[0]).all()
    assert not pixels[5:25, 10:30].any()  # not sure enough
    assert (pixels[18:29, 50:70] == COLOURS[1]).all(axis=2).any()  # its name, above
    assert (pixels[1:11, 202:220] == COLOURS[0]).all(axis=2).any()  # inside, for there is no room
    nothing = {name: part[:0] for name, part in detected.items()}
    assert not np.asarray(draw_objects(image, nothing, ["a", "b"])).any()
