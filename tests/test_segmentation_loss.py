"""Segmentation's loss, groups of parameters and rates against the original's, and by hand."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import FIXTURES

from genotypes import RelativeNAS
from model import NetworkImageNet
from transfer.segmentation.loss import (
    IGNORED,
    hard_pixel_loss,
    learning_rate,
    parameter_groups,
    segmentation_loss,
)
from transfer.segmentation.network import BiSeNet

REFERENCE = json.loads((FIXTURES / "transfer" / "segmentation_parts.json").read_text())


def reference_batch():
    random = np.random.RandomState(5)
    logits = torch.from_numpy(random.randn(2, 19, 16, 24) * 3)
    labels = torch.from_numpy(random.randint(0, 19, (2, 16, 24)))
    labels[0, :4] = IGNORED
    return logits, labels


def test_the_loss_is_the_originals():
    logits, labels = reference_batch()
    expected = REFERENCE["ohem"]["loss_by_n_min"]
    for least in (48, 500, 700):
        loss = hard_pixel_loss(logits, labels, least=least)
        assert loss.item() == pytest.approx(expected[str(least)], rel=1e-5)
    assert expected["48"] != expected["700"]
    # One pixel in 16 is 48.
    assert hard_pixel_loss(logits, labels).item() == pytest.approx(expected["48"], rel=1e-5)
    easy = 20 * F.one_hot(labels.clamp(max=18), 19).permute(0, 3, 1, 2)
    assert hard_pixel_loss(easy, labels, least=48).item() == pytest.approx(
        expected["easy, 48"], abs=1e-6
    )


def logits_with_losses(*losses):
    """Logits (1, 2, 1, n) that give class 0 such losses."""
    probabilities = torch.tensor(losses).neg().exp()
    return torch.stack([probabilities, 1 - probabilities]).log().view(1, 2, 1, -1)


def test_hard_pixels_by_hand():
    logits = logits_with_losses(0.1, 2.0, 0.3, 1.0).requires_grad_()
    labels = torch.zeros(1, 1, 4, dtype=torch.uint8)
    # -log 0.7 is 0.357: two are hard.
    assert hard_pixel_loss(logits, labels, least=1).item() == pytest.approx(1.5)
    assert hard_pixel_loss(logits, labels, least=3).item() == pytest.approx(3.3 / 3)
    assert hard_pixel_loss(logits, labels, 0.95, least=1).item() == pytest.approx(3.4 / 4)
    loss = hard_pixel_loss(logits, labels, 0.2, least=1)
    assert loss.item() == pytest.approx(2.0)
    loss.backward()
    assert logits.grad[0, 0, 0].nonzero().tolist() == [[1]]


def test_pixels_without_a_class():
    logits = logits_with_losses(2.0, 3.0, 0.1).requires_grad_()
    labels = torch.tensor([[[0, IGNORED, 0]]])
    assert hard_pixel_loss(logits, labels, least=1).item() == pytest.approx(2.0)
    assert hard_pixel_loss(logits, labels, least=3).item() == pytest.approx(2.1 / 3)
    # More than there are, as for images of a few pixels.
    assert hard_pixel_loss(logits, labels, least=9).item() == pytest.approx(2.1 / 3)
    labels[:] = IGNORED
    loss = segmentation_loss([logits] * 3, labels)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_a_loss_that_is_no_number_stays_none():
    logits = torch.zeros(1, 2, 4, 8)
    logits[0, 0, 0, 0] = math.nan
    assert hard_pixel_loss(logits, torch.zeros(1, 4, 8, dtype=torch.int64)).isnan()


def test_the_losses_of_all_outputs_are_added_up():
    logits, labels = reference_batch()
    outputs = [logits, 2 * logits, logits.flip(1)]
    expected = sum(hard_pixel_loss(output, labels) for output in outputs)
    torch.testing.assert_close(segmentation_loss(outputs, labels), expected)


@pytest.fixture(scope="module")
def published():
    with torch.device("meta"):
        return BiSeNet(NetworkImageNet(46, 1, 14, False, RelativeNAS))


def sizes(groups):
    return {
        (group["rate"], group["weight_decay"]): sum(p.numel() for p in group["params"])
        for group in groups
    }


def test_groups_are_the_originals_as_published(published):
    expected = REFERENCE["param_groups"]
    found = sizes(parameter_groups(published, 5e-4, as_published=True))
    assert found == {
        (1.0, 5e-4): expected["decay"],
        (1.0, 0.0): expected["no_decay"],
        (10.0, 5e-4): expected["times_10_decay"],
        (10.0, 0.0): expected["times_10_no_decay"],
    }


def test_all_parameters_are_in_one_group(published):
    groups = parameter_groups(published, 5e-4)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(map(id, published.parameters()))
    expected = REFERENCE["param_groups"]["no_decay"] + REFERENCE["in_no_param_group"]["numbers"]
    assert sizes(groups)[1.0, 0.0] == expected
    without_decay = parameter_groups(published, 0.0)
    assert sum(sizes(without_decay).values()) == 6_944_645


def test_rates_are_the_originals():
    expected = REFERENCE["learning_rate"]
    for step, rate in zip(expected["iterations"], expected["learning_rates"], strict=True):
        assert learning_rate(step, 80_000, 0.01, 1000) == pytest.approx(rate, rel=1e-5)


def test_a_training_that_ends_in_its_warm_up_or_has_none():
    assert learning_rate(9, 10, 0.01, 10) < 0.01
    assert learning_rate(0, 10, 0.01, 0) == 0.01
    assert learning_rate(0, 10, 0.0, 5) == 0
    assert learning_rate(5, 10, 0.01, 0) == pytest.approx(0.01 * 0.5**0.9)
