"""Keypoints as a task: its recipe, its first weights, its figures, its pictures."""

import io
from argparse import Namespace

import numpy as np
import pytest
import torch
from helpers import assert_same_tensors
from PIL import Image

from dataset.batching import Batching
from dataset.pixel_statistics import PUBLISHED_STATISTICS
from genotypes import DARTS_V2
from model import NetworkImageNet
from runtime.errors import UserError
from runtime.processes import Processes
from transfer.keypoints.data import Loading, evaluation_batches
from transfer.keypoints.made import made_people
from transfer.keypoints.network import describe_keypoint_network
from transfer.keypoints.pictures import draw_results
from transfer.keypoints.targets import heatmap_targets
from transfer.keypoints.task import Keypoints, evaluate

CPU = torch.device("cpu")


def task_of(**flags):
    annotations, people = made_people(2, 1)
    usual = {
        "learning_rate": 1.0, "learning_rate_factor": 0.1, "milestones": [90, 120],
        "weight_decay": 0.0, "as_published": False, "resume": None, "model_path": None,
        "pictures": 0,
    }  # fmt: skip
    description = describe_keypoint_network(DARTS_V2, 2, 3, 17, 8)
    return Keypoints(Namespace(**usual | flags), description, annotations, people)


def test_the_learning_rate_falls_but_never_as_published():
    default = task_of()
    rates = [default.learning_rate(epoch, 1) for epoch in (0, 89, 90, 119, 120, 139)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    published = task_of(as_published=True)
    assert {published.learning_rate(epoch, 1) for epoch in range(140)} == {1.0}


def test_the_optimizer_is_adam_with_the_flags_numbers():
    adam = task_of(learning_rate=0.3, weight_decay=0.2)
    network = adam.build()
    optimizer = adam.optimizer(network)
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.3, 0.2, (0.9, 0.999))
    assert len(group["params"]) == len(list(network.parameters()))


def test_the_backbone_begins_with_the_weights_of_model_path(tmp_path):
    torch.manual_seed(1)
    network = NetworkImageNet(2, 10, 3, True, DARTS_V2)
    torch.save(network.state_dict(), tmp_path / "imagenet.pt")
    built = task_of(model_path=tmp_path / "imagenet.pt").build()
    theirs = network.state_dict()
    own = built.backbone.network.state_dict()
    assert_same_tensors(own, {name: theirs[name] for name in own})
    other = NetworkImageNet(4, 10, 3, True, DARTS_V2)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    with pytest.raises(UserError, match="another architecture"):
        task_of(model_path=tmp_path / "other.pt").build()


class Perfect(torch.nn.Module):
    """Gives the targets of the batch that `batches` has handed out last, mirrored if asked to."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def batches(self, people, loading):
        for images, cropped in evaluation_batches(people, loading):
            height, width = images.shape[2] // 4, images.shape[3] // 4
            self.targets, _ = heatmap_targets(cropped.joints, cropped.visible, (width, height))
            yield images, cropped

    def forward(self, images):
        self.calls += 1
        return self.targets


def test_a_perfect_network_has_100_percent():
    annotations, people = made_people(6, 3)
    loading = Loading((96, 128), PUBLISHED_STATISTICS["imagenet"], Batching(4, CPU), 0)
    network = Perfect()
    evaluation = evaluate(
        network,
        network.batches(people, loading),
        people,
        annotations,
        Processes(CPU),
        torch.float32,
        flip=False,
    )
    batches = -(-len(people) // 4)
    assert network.calls == batches
    assert evaluation.figures["AP50"] == pytest.approx(100)
    assert evaluation.figures["AP"] > 95  # heatmaps are coarse
    assert evaluation.joints == {"loss": 0.0, "found": 100.0, "count": len(people)}
    assert len(evaluation.results) == len(people)
    # The mirrored image's heatmaps, which are wrong here, count half.
    figures = evaluate(
        network,
        network.batches(people, loading),
        people,
        annotations,
        Processes(CPU),
        torch.float32,
    ).figures
    assert network.calls == 3 * batches
    assert figures["AP"] < 90


def test_drawn_people_are_those_of_their_images():
    _, people = made_people(3, 0)
    ids = people.image_ids.tolist()
    results = [
        {"image_id": image_id, "keypoints": [70.0, 20.0 * image_id, 1.0] + [0.0] * 48}
        for image_id in (2, 3, 1)
    ]
    sheet = np.asarray(Image.open(io.BytesIO(draw_results(people, results, 2))))
    assert sheet.shape == (160, 324, 3)
    for left, image_id in ((0, 2), (164, 3)):
        drawn = sheet[:, left : left + 160]
        assert drawn[20 * image_id, 70].tolist() == [255, 255, 80]
        pixels = people.images[ids.index(image_id)]
        changed = np.argwhere((drawn != pixels).any(axis=2))
        assert (abs(changed - (20 * image_id, 70)) <= 1).all()
