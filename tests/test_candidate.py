"""A candidate's turn: what reaches its optimizer, its network and its batches, and by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from recording import images_of, numbered_images, numbers_in, recorded
from torch import nn

from dataset.augmentation import Augmentation
from dataset.batching import Batching
from dataset.image_batches import ImageBatches
from dataset.image_set import ImageSet, Statistics
from genotypes import DARTS_V2, RelativeNAS
from model_search import Supernet
from search.candidate import CandidateTrainer, TrainingRecipe

RECIPE = TrainingRecipe(
    learning_rate=0.1, momentum=0.9, weight_decay=3e-4, grad_clip=5.0, drop_path_prob=0.2
)

# The third channel is not shifted, so that a square cut out of it is black.
MEAN, STD = torch.tensor([0.4, 0.5, 0.0]), torch.tensor([0.25, 0.2, 0.3])

PLAIN = Augmentation(0, False, 0)


def make_trainer(augmentation=PLAIN, precision=torch.float32):
    """A tiny supernet, images 0 to 19 to train on and 20 to 41 to validate on."""
    torch.manual_seed(0)
    images, labels = numbered_images(42), torch.arange(42) % 3
    train_set = ImageSet(images[:20], labels[:20], 3)
    validation_set = ImageSet(images[20:], labels[20:], 3)
    statistics = Statistics(tuple(MEAN.tolist()), tuple(STD.tolist()))
    device = torch.device("cpu")
    data = ImageBatches(train_set, validation_set, augmentation, statistics, Batching(8, device))
    return CandidateTrainer(Supernet(2, 3, 3), data, precision, 100)


def numbers(images):
    """Which images a batch has."""
    return numbers_in(images, MEAN[2].item(), STD[2].item())


def plain_images():
    """All images, normalised and not augmented."""
    return (numbered_images(42) / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)


def turn(recipe=RECIPE, **options):
    """What a candidate's turn came to, and what was seen of it."""
    trainer = make_trainer(**options)
    with recorded() as record:
        return trainer.take_turn(RelativeNAS, recipe, seed=3), record


def train_by_hand(network, arch_info, batches, recipe, seed):
    """SGD written out: clip the gradient, add the decay, add it to the momentum, step."""
    network.train()
    network.drop_path_prob = recipe.drop_path_prob
    torch.manual_seed(seed)
    momentum = {}
    for images, labels in batches:
        network.zero_grad()
        F.cross_entropy(network(images, arch_info), labels).backward()
        parameters = {n: p for n, p in network.named_parameters() if p.grad is not None}
        norm = sum(p.grad.square().sum() for p in parameters.values()).sqrt()
        for name, parameter in parameters.items():
            # The small number is PyTorch's.
            gradient = parameter.grad * min(1.0, recipe.grad_clip / (norm + 1e-6))
            gradient = gradient + recipe.weight_decay * parameter.detach()
            momentum[name] = recipe.momentum * momentum.get(name, 0.0) + gradient
            parameter.data -= recipe.learning_rate * momentum[name]
    network.eval()


def test_a_turn_is_three_steps_of_sgd_and_a_validation_by_hand():
    recipe = TrainingRecipe(0.1, 0.9, 0.01, grad_clip=1.0, drop_path_prob=0.3)
    trainer = make_trainer()
    network = trainer.supernet.double()
    network.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(), inputs[1]))
    arch_info = network.arch_info(RelativeNAS)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trainer.take_turn(DARTS_V2, recipe, seed=8)  # leaves nothing behind, no momentum either
    with recorded() as record:
        outcome = trainer.take_turn(RelativeNAS, recipe, seed=9)
    assert any(
        step.gradient_norm == pytest.approx(1.0) for step in record.steps
    )  # the clip was needed

    network = copy.deepcopy(network)
    seen = [forward.images for forward in record.training]
    batches = [(x, torch.tensor(numbers(x)) % 3) for x in seen]
    train_by_hand(network, arch_info, batches, recipe, seed=9)
    expected = network.state_dict()
    learned = {name for name in before if not torch.equal(expected[name], before[name])}
    assert learned <= outcome.weights.keys()
    assert network.get_buffer("stem.1.num_batches_tracked") == 3
    for name, tensor in outcome.weights.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-10, rtol=1e-8, msg=name)
    logits = network(plain_images()[20:], arch_info)
    labels = torch.arange(20, 42) % 3
    assert outcome.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert outcome.accuracy == pytest.approx(100 * (logits.argmax(1) == labels).sum().item() / 22)


def test_each_image_is_trained_or_validated_on_once_in_that_mode():
    _, record = turn(augmentation=Augmentation(1, True, 2))
    assert [forward.training for forward in record.forwards] == [{True}] * 3 + [{False}] * 3
    assert [len(forward.images) for forward in record.forwards] == [8, 8, 4, 8, 8, 6]
    seen = numbers(images_of(record.forwards))
    assert sorted(seen[:20]) == list(range(20)) != seen[:20]  # in random order
    assert seen[20:] == list(range(20, 42))


def test_images_to_train_on_are_augmented_and_those_to_validate_on_are_not():
    _, record = turn(augmentation=Augmentation(0, False, 4))
    plain = plain_images()
    for forward in record.forwards:
        expected = plain[numbers(forward.images)]
        same = torch.isclose(forward.images, expected, atol=1e-5).all(dim=1).flatten(1).all(dim=1)
        assert not same.any() if forward.training == {True} else same.all()


def test_the_recipe_reaches_the_optimizer_and_every_active_parameter():
    trainer = make_trainer()
    with recorded() as record:
        trainer.take_turn(RelativeNAS, RECIPE, seed=3)
    active = trainer.supernet.active_tensors(trainer.supernet.arch_info(RelativeNAS))
    parameters = {id(t) for t in active.values() if isinstance(t, nn.Parameter)}
    assert len(record.steps) == 3
    for group in (step.group for step in record.steps):
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 3e-4)
        assert not group["nesterov"] and group["dampening"] == 0
        assert {id(parameter) for parameter in group["params"]} == parameters


@pytest.mark.parametrize("largest", [0.5, 100.0])
def test_gradients_are_clipped_to_a_norm_and_smaller_ones_left(largest):
    # Without learning the gradients before clipping are the same in both; 0 means no clipping.
    free = turn(TrainingRecipe(0.0, 0.9, 3e-4, 0.0, 0.0))[1].steps
    clipped = turn(TrainingRecipe(0.0, 0.9, 3e-4, largest, 0.0))[1].steps
    for before, after in zip(free, clipped, strict=True):
        assert 0.5 < before.gradient_norm < 100
        assert after.gradient_norm == pytest.approx(min(largest, before.gradient_norm), rel=1e-3)


def test_each_candidate_begins_without_momentum():
    trainer = make_trainer()
    with recorded() as record:
        for genotype in (RelativeNAS, RelativeNAS):
            trainer.take_turn(genotype, RECIPE, seed=3)
    assert [step.is_first for step in record.steps] == [True, False, False] * 2


def test_the_network_drops_paths_with_the_recipes_probability_in_training():
    outcomes = []
    for probability in (0.0, 0.4):
        outcome, record = turn(TrainingRecipe(0.1, 0.9, 3e-4, 5.0, probability))
        assert {forward.drop_path_prob for forward in record.training} == {probability}
        outcomes.append(outcome)
    assert outcomes[0].loss != outcomes[1].loss


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_convolutions_run_in_the_precision_asked_for_and_weights_stay_float32(precision):
    trainer = make_trainer(precision=precision)
    with recorded() as training:
        trainer.train(RelativeNAS, RECIPE, seed=3)
    with recorded() as validation:
        trainer.validate(RelativeNAS)
    assert training.dtypes == validation.dtypes == {precision}
    assert {parameter.dtype for parameter in trainer.supernet.parameters()} == {torch.float32}


def test_another_seed_gives_other_batches():
    orders = []
    trainer = make_trainer(augmentation=Augmentation(1, True, 2))
    for seed in (3, 3, 4):
        with recorded() as record:
            trainer.take_turn(DARTS_V2, RECIPE, seed)
        orders.append(images_of(record.training))
    assert torch.equal(orders[0], orders[1])
    assert numbers(orders[0]) != numbers(orders[2])
