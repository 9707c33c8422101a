"""The published search: all defaults, with candidates whose outcomes are made up."""

import math

import numpy as np
import pytest
import torch
from helpers import assert_same_tensors

import train_search
from dataset.augmentation import Augmentation
from dataset.image_set import ImageSet
from genotypes import PRIMITIVES, Genotype
from model_search import Supernet
from report.run import Run
from runtime.processes import Processes
from search import candidate, data
from search.candidate import Outcome, TrainingRecipe
from utils import derive_seed

CPU = torch.device("cpu")

CIFAR_MEAN = torch.tensor([0.49139968, 0.48215827, 0.44653124]).view(3, 1, 1)
CIFAR_STD = torch.tensor([0.24703233, 0.24348505, 0.26158768]).view(3, 1, 1)


def made_up_loss(genotype):
    """Some loss for each genotype; of some it is not finite."""
    if genotype.reduce[3][0] == "max_pool_3x3":
        return math.nan
    pairs = [*genotype.normal, *genotype.reduce]
    terms = [(PRIMITIVES.index(n) - 3) ** 2 * (i + 3) + s for i, (n, s) in enumerate(pairs)]
    return sum(terms) / 7


class InstantTrainer:
    """Stands in for the trainer: remembers what it was asked."""

    def __init__(self, supernet, data, precision, report_freq, recorder, interruption, budget):
        self.supernet, self.data, self.precision = supernet, data, precision
        self.turns, self.validated = [], []

    def take_turn(self, genotype, recipe, seed):
        self.turns.append((genotype, recipe, seed))
        return Outcome(genotype, made_up_loss(genotype), 50.0, {}, 1.0)

    def validate(self, genotype):
        self.validated.append(genotype)
        return made_up_loss(genotype), 50.0


HALVES = torch.tensor([255, 128], dtype=torch.uint8).repeat_interleave(16)
"""A row of each image: white to the left and grey to the right."""


def instant_search(*flags):
    """The trainer of a search on 1,000 images like CIFAR's, whose labels are their numbers."""
    images = HALVES.expand(1000, 3, 32, 32).contiguous()
    image_set = ImageSet(images, torch.arange(1000), 10)
    trainers = []

    def load(name, data, split, image_size):
        assert (name, split) == ("cifar10", "train")  # never the test images
        return image_set

    def make(*arguments):
        trainers.append(InstantTrainer(*arguments))
        return trainers[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_image_set", load)
        patch.setattr(candidate, "CandidateTrainer", make)
        args = train_search.parse_arguments(["--device", "cpu", *flags])
        train_search.search(args, Run(None, Processes(CPU)))
    return trainers[0]


SHORT = ("--layers", "3", "--init_channels", "2", "--pop_size", "2", "--epochs", "1")


@pytest.fixture(scope="module")
def published():
    return instant_search()


def decode_by_hand(vector, upper):
    numbers = np.minimum(np.floor(vector), upper - 1).astype(int).tolist()
    pairs = [(PRIMITIVES[o], i) for i, o in zip(numbers[::2], numbers[1::2], strict=True)]
    return Genotype(pairs[:8], [2, 3, 4, 5], pairs[8:], [2, 3, 4, 5])


def search_by_hand():
    """Algorithm 1 in NumPy: the genotypes in the order of their turns, and those at the end."""
    upper = np.array([2, 7, 2, 7, 3, 7, 3, 7, 4, 7, 4, 7, 5, 7, 5, 7] * 2, dtype=np.float64)
    random = np.random.default_rng(7)
    positions = random.uniform(0, upper, (20, 32))
    velocities = np.zeros((20, 32))
    asked = []
    for _ in range(50):
        for pair in random.permutation(20).reshape(10, 2):
            genotypes = [decode_by_hand(positions[member], upper) for member in pair]
            asked += genotypes
            losses = np.array([made_up_loss(genotype) for genotype in genotypes])
            if np.isnan(losses).all():
                continue
            fast = pair[np.nanargmin(losses)]
            (slow,) = pair[pair != fast]
            r1, r2 = random.random((2, 32))
            velocities[slow] = r1 * velocities[slow] + r2 * (positions[fast] - positions[slow])
            positions[slow] = np.clip(positions[slow] + velocities[slow], 0, upper)
    return asked, [decode_by_hand(vector, upper) for vector in positions]


def test_the_population_takes_the_path_of_algorithm_1(published):
    asked, final = search_by_hand()
    assert [genotype for genotype, _, _ in published.turns] == asked
    assert published.validated == final
    losses = [made_up_loss(genotype) for genotype in asked]
    both = list(zip(map(math.isnan, losses[::2]), map(math.isnan, losses[1::2]), strict=True))
    assert {(True, True), (True, False), (False, False)} <= set(both)  # every rule was needed


def test_learning_rate_falls_as_a_cosine_and_drop_path_rises_with_the_generations(published):
    for generation in range(50):
        cosine = (1 + math.cos(math.pi * generation / 50)) / 2
        for _, recipe, _ in published.turns[20 * generation : 20 * (generation + 1)]:
            assert recipe.learning_rate == pytest.approx(0.001 + (0.1 - 0.001) * cosine)
            assert recipe.drop_path_prob == pytest.approx(0.3 * generation / 50)
            assert (recipe.momentum, recipe.weight_decay, recipe.grad_clip) == (0.9, 3e-4, 5.0)
    first, middle = published.turns[0][1], published.turns[500][1]
    assert (first.learning_rate, first.drop_path_prob) == (0.1, 0.0)
    assert (middle.learning_rate, middle.drop_path_prob) == pytest.approx((0.0505, 0.15))


def test_a_pair_shares_its_seed_and_no_two_pairs_do(published):
    seeds = [seed for _, _, seed in published.turns]
    assert seeds[::2] == seeds[1::2]
    assert len(set(seeds)) == 500
    assert seeds[::2] == [derive_seed(7, g, pair) for g in range(50) for pair in range(10)]


def test_half_of_the_images_are_trained_and_the_others_validated_on(published):
    batches = [labels for _, labels in published.data.training_batches(0)]
    train = torch.cat(batches).tolist()
    validation = torch.cat([y for _, y in published.data.validation_batches()]).tolist()
    assert [len(batch) for batch in batches] == [256, 244]
    assert published.data.steps == 2
    assert len(validation) == 500
    assert sorted(train + validation) == list(range(1000))
    assert sorted(train) not in (list(range(500)), list(range(500, 1000)))  # at random
    # The same images for all candidates of a search.
    again = torch.cat([y for _, y in published.data.training_batches(1)]).tolist()
    assert again != train and sorted(again) == sorted(train)


def test_the_images_are_divided_by_the_seed():
    def train_numbers(*flags):
        return set(instant_search(*SHORT, *flags).data.train_set.labels.tolist())

    assert train_numbers("--seed", "8") == train_numbers("--seed", "8") != train_numbers()


def test_images_are_validated_on_as_they_are(published):
    plain = (HALVES.expand(3, 32, 32) / 255 - CIFAR_MEAN) / CIFAR_STD
    for images, _ in published.data.validation_batches():
        torch.testing.assert_close(images, plain.expand_as(images))


def test_images_are_trained_on_cropped_mirrored_and_cut_out(published):
    images = torch.cat([images for images, _ in published.data.training_batches(0)])
    cut = (images == 0).all(dim=1)
    # A square of 16, or what is left of it at the border.
    assert cut.flatten(1).sum(dim=1).max() == 256 and cut.any(dim=(1, 2)).all()
    assert cut.any(dim=1).sum(dim=1).max() == cut.any(dim=2).sum(dim=1).max() == 16
    pixels = ((images * CIFAR_STD + CIFAR_MEAN) * 255).round()[:, 0]
    black = (pixels == 0) | cut
    above = black.all(dim=2).cumprod(dim=1).sum(dim=1)
    assert above.max() == 4  # black rows, by the crop of 32 from 40
    assert (above == 0).sum() > 200  # and as many where the crop lies lower
    mirrored = ((pixels == 128) & ~cut)[:, :, 5:10].any(dim=(1, 2))
    assert 200 < mirrored.sum() < 300


def test_the_supernet_has_16_channels_8_cells_and_as_many_outputs_as_classes(published):
    network = published.supernet
    assert [cell.reduction for cell in network.cells] == [i in (2, 5) for i in range(8)]
    assert network.stem[0].weight.shape == (48, 3, 3, 3)
    assert network.classifier.weight.shape == (10, 4 * 64)
    assert not network.recompute
    assert instant_search(*SHORT, "--save_memory").supernet.recompute


def test_the_first_weights_are_the_seeds(published):
    torch.manual_seed(7)
    assert_same_tensors(published.supernet.state_dict(), Supernet(16, 10, 8).state_dict())


def test_flags_change_the_images_and_the_recipe():
    trainer = instant_search(
        *SHORT, "--train_portion", "0.3", "--batch_size", "100", "--no-cutout",
        "--learning_rate", "0.2", "--momentum", "0.8", "--weight_decay", "0.01",
        "--grad_clip", "3", "--precision", "bf16",
    )  # fmt: skip
    assert [len(y) for _, y in trainer.data.training_batches(0)] == [100] * 3
    assert [len(y) for _, y in trainer.data.validation_batches()] == [100] * 7
    assert trainer.data.augmentation == Augmentation(4, True, 0)
    assert trainer.turns[0][1] == TrainingRecipe(0.2, 0.8, 0.01, 3.0, 0.0)
    assert trainer.precision == torch.bfloat16
    assert instant_search(*SHORT, "--cutout_length", "6").data.augmentation.cutout_length == 6


def test_the_shuffled_learner_is_another_one(published):
    shuffled = instant_search("--learner", "shuffled", "--epochs", "1", *SHORT[:4])
    assert [turn[0] for turn in shuffled.turns] != [turn[0] for turn in published.turns[:20]]
