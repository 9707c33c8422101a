"""What a search can know of a candidate: each signal by hand, and the weight set left as it was."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same_tensors
from recording import recorded
from test_candidate import RECIPE, make_trainer

from genotypes import RelativeNAS
from search.signals import after_turns, with_own_statistics, with_shared_weights
from utils import derive_seed


@pytest.fixture
def trainer():
    """A trainer whose weight set has been trained, so that its statistics mean something."""
    trainer = make_trainer()
    arch_info = trainer.supernet.arch_info(RelativeNAS)
    trainer.take_turn(RelativeNAS, RECIPE, 1).weights.copy_to(
        trainer.supernet.active_tensors(arch_info)
    )
    return trainer


@pytest.mark.parametrize(
    ("signal", "turns"),
    [(with_shared_weights, 0), (with_own_statistics, 0), (after_turns, 1), (after_turns, 2)],
)
def test_a_signal_leaves_the_weight_set_and_can_be_repeated(signal, turns, trainer):
    recipes = [RECIPE] * turns
    before = copy.deepcopy(trainer.supernet.state_dict())
    first = signal(trainer, RelativeNAS, recipes, 5)
    assert_same_tensors(trainer.supernet.state_dict(), before)
    assert first == signal(trainer, RelativeNAS, recipes, 5)
    assert all(map(math.isfinite, first))
    assert {norm.momentum for norm in trainer.supernet.batch_norms(
        trainer.supernet.arch_info(RelativeNAS))} == {0.1}  # fmt: skip


def test_shared_weights_are_validated_as_they_are(trainer):
    with recorded() as record:
        result = with_shared_weights(trainer, RelativeNAS, [], 5)
    assert result == trainer.validate(RelativeNAS) and not record.training


def test_own_statistics_are_the_mean_over_the_batches_to_train_on(trainer):
    network = copy.deepcopy(trainer.supernet)
    arch_info = network.arch_info(RelativeNAS)
    with recorded() as record:
        loss, _ = with_own_statistics(trainer, RelativeNAS, [], 5)
    assert not record.steps
    batches = list(trainer.data.training_batches(5))
    assert len(record.training) == len(batches) == 3
    # By hand: the plain mean over batches of each one's statistics, through the whole network.
    norms = network.batch_norms(arch_info)
    seen = {norm: [] for norm in norms}
    for norm in norms:
        norm.register_forward_pre_hook(lambda norm, inputs: seen[norm].append(inputs[0]))
    network.train()
    network.drop_path_prob = 0.0
    with torch.no_grad():
        for images, _ in batches:
            network(images, arch_info)
        for norm, inputs in seen.items():
            norm.running_mean.copy_(
                torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
            )
            norm.running_var.copy_(torch.stack([x.var(dim=(0, 2, 3)) for x in inputs]).mean(dim=0))
        network.eval()
        losses, count = 0.0, 0
        for images, labels in trainer.data.validation_batches():
            losses += F.cross_entropy(network(images, arch_info), labels, reduction="sum").item()
            count += len(labels)
    assert loss == pytest.approx(losses / count, rel=1e-4)
    assert loss != pytest.approx(trainer.validate(RelativeNAS)[0], rel=1e-3)


def test_turns_are_as_in_the_search_one_on_top_of_the_other(trainer):
    gentler = replace(RECIPE, learning_rate=RECIPE.learning_rate / 10)
    outcome = trainer.take_turn(RelativeNAS, RECIPE, 5)
    assert after_turns(trainer, RelativeNAS, [RECIPE], 5) == (outcome.loss, outcome.accuracy)
    twice = after_turns(trainer, RelativeNAS, [RECIPE, gentler], 5)
    tensors = trainer.supernet.active_tensors(trainer.supernet.arch_info(RelativeNAS))
    outcome.weights.copy_to(tensors)
    second = trainer.take_turn(RelativeNAS, gentler, derive_seed(5, 1))
    assert twice == (second.loss, second.accuracy) != (outcome.loss, outcome.accuracy)


def test_a_candidate_that_diverges_says_nothing(trainer):
    with torch.no_grad():
        trainer.supernet.classifier.weight.fill_(1e38)
    before = copy.deepcopy(trainer.supernet.state_dict())
    assert all(map(math.isnan, after_turns(trainer, RelativeNAS, [RECIPE] * 2, 5)))
    assert_same_tensors(trainer.supernet.state_dict(), before)
