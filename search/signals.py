"""What a search can know of a candidate without training it from scratch.

A signal gives a candidate's validation loss and accuracy, and leaves the weight set as it was. The
pairs of a search are compared by their losses after a turn of their own, and the final population,
as published, by those with the weights that they share (`train_search.py --choose_by`). How well
each signal ranks cells is measured by benchmarks/ranking.py.
"""

from collections.abc import Callable
from math import isfinite, nan

import torch

from genotypes import Genotype
from runtime.flat_tensors import FlatTensors
from search.candidate import CandidateTrainer, TrainingRecipe
from utils import autocast, derive_seed

Signal = Callable[[CandidateTrainer, Genotype, TrainingRecipe, int], tuple[float, float]]
"""Of a candidate, by the recipe of a turn and a seed of all random numbers."""


def with_shared_weights(
    trainer: CandidateTrainer, genotype: Genotype, recipe: TrainingRecipe, seed: int
) -> tuple[float, float]:
    """With the weight set as it is."""
    return trainer.validate(genotype)


def with_own_statistics(
    trainer: CandidateTrainer, genotype: Genotype, recipe: TrainingRecipe, seed: int
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


def after_turns(count: int) -> Signal:
    """After `count` turns of its own, one on top of the other, from the weight set on."""

    def signal(
        trainer: CandidateTrainer, genotype: Genotype, recipe: TrainingRecipe, seed: int
    ) -> tuple[float, float]:
        tensors = trainer.supernet.active_tensors(trainer.supernet.arch_info(genotype))
        before = FlatTensors(tensors)
        try:
            for turn in range(count):
                turn_seed = derive_seed(seed, turn) if turn else seed
                outcome = trainer.take_turn(genotype, recipe, turn_seed)
                if outcome.weights is None:
                    return nan, nan
                outcome.weights.copy_to(tensors)
        finally:
            before.copy_to(tensors)
        return (outcome.loss, outcome.accuracy) if isfinite(outcome.loss) else (nan, nan)

    return signal


SIGNALS: dict[str, Signal] = {
    "shared": with_shared_weights,
    "statistics": with_own_statistics,
    "turn": after_turns(1),
    "turns": after_turns(2),
    "middle": after_turns(1),
}
"""By name. "turns" are two; "middle" is a turn by the recipe of the search's middle generation."""


def generation_of_recipe(name: str, generation: int, generations: int) -> int:
    """By which generation's recipe the turns of a signal are taken.

    Args:
        name: of the signal.
        generation: the one that the search is in; after the last one, their number.
        generations: their number.
    """
    return min(generations // 2 if name == "middle" else generation, generations - 1)
