"""What a search can know of a candidate without training it from scratch.

A signal gives a candidate's validation loss and accuracy, and leaves the weight set as it was. The
pairs of a search are compared by their losses after a turn of their own, and the final population,
as published, by those with the weights that they share (`train_search.py --choose_by`). How well
each signal ranks cells is measured by benchmarks/ranking.py.
"""

from collections.abc import Callable, Sequence
from math import nan

import torch

from genotypes import Genotype
from runtime.flat_tensors import FlatTensors
from search.candidate import CandidateTrainer, TrainingRecipe
from utils import autocast, derive_seed

Signal = Callable[[CandidateTrainer, Genotype, Sequence[TrainingRecipe], int], tuple[float, float]]
"""Of a candidate, by the recipes of its turns, if it gets any, and a seed of all random numbers."""


def with_shared_weights(
    trainer: CandidateTrainer, genotype: Genotype, recipes: Sequence[TrainingRecipe], seed: int
) -> tuple[float, float]:
    """With the weight set as it is."""
    return trainer.validate(genotype)


def with_own_statistics(
    trainer: CandidateTrainer, genotype: Genotype, recipes: Sequence[TrainingRecipe], seed: int
) -> tuple[float, float]:
    """With the weight set, and batch norm's statistics taken anew on the images to train on.

    Those in the weight set come from many candidates, each with other inputs to its operations.
    """
    supernet = trainer.supernet
    arch_info = supernet.arch_info(genotype)
    tensors = supernet.active_tensors(arch_info)
    before = FlatTensors(tensors)
    norms = {norm: norm.momentum for norm in supernet.batch_norms(arch_info)}
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
        supernet.train()
        supernet.drop_path_prob = 0.0
        with torch.no_grad(), autocast(trainer.device, trainer.precision):
            for images, _ in trainer.data.training_batches(seed):
                supernet(images, arch_info)
                trainer.interruption.check()
        return trainer.validate(genotype)
    finally:
        for norm, momentum in norms.items():
            norm.momentum = momentum
        before.copy_to(tensors)


def after_turns(
    trainer: CandidateTrainer, genotype: Genotype, recipes: Sequence[TrainingRecipe], seed: int
) -> tuple[float, float]:
    """After turns of its own by `recipes`."""
    return after_each_turn(trainer, genotype, recipes, seed)[-1]


def after_each_turn(
    trainer: CandidateTrainer, genotype: Genotype, recipes: Sequence[TrainingRecipe], seed: int
) -> list[tuple[float, float]]:
    """Loss and accuracy after each turn by `recipes`, one on top of the other.

    The first begins with the weight set. From one that diverges on there is only NaN.
    """
    tensors = trainer.supernet.active_tensors(trainer.supernet.arch_info(genotype))
    before = FlatTensors(tensors)
    results = [(nan, nan)] * len(recipes)
    try:
        for turn, recipe in enumerate(recipes):
            turn_seed = derive_seed(seed, turn) if turn else seed
            outcome = trainer.take_turn(genotype, recipe, turn_seed)
            if outcome.weights is None:
                break
            results[turn] = (outcome.loss, outcome.accuracy)
            outcome.weights.copy_to(tensors)
    finally:
        before.copy_to(tensors)
    return results


SIGNALS: dict[str, Signal] = {
    "shared": with_shared_weights,
    "statistics": with_own_statistics,
    "turn": after_turns,
    "turns": after_turns,
    "middle": after_turns,
    "annealed": after_turns,
}
"""By name. What the turns of the last four are: `generations_of_turns`."""


def generations_of_turns(name: str, generations: int, generation: int | None = None) -> list[int]:
    """By which generations' recipes a candidate takes the turns of a signal.

    At the end of a search the learning rate is so low that a turn changes little; the middle
    generation's is half of the first one's.

    Args:
        name: of the signal.
        generations: their number.
        generation: the one that the search is in; None: it has ended.
    """
    last, middle = generations - 1, generations // 2
    now = last if generation is None else min(generation, last)
    turns = {
        "turn": [now], "turns": [now, now], "middle": [middle], "annealed": [middle, now],
    }  # fmt: skip
    return turns.get(name, [])
