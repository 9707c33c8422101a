"""A candidate's turn in the search: one pass of training, then one of validation.

A candidate trains in place, in the supernet's own tensors. When its turn is over it has copies of
what it learned, and the supernet holds the weight set again: both networks of a pair start from
the same, and a pair's results are merged only when both are known.
"""

import copy
import logging
import math
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.batching import Batches
from genotypes import Genotype
from model_search import ArchInfo, Supernet
from report.run import Run
from runtime.flat_tensors import FlatTensors
from runtime.interruption import Interruption
from runtime.out_of_memory import is_out_of_memory
from search.budget import Budget
from search.data import load_search_data
from search.graph_check import (
    DROP_PATH_PROB,
    STEPS,
    FirstBatches,
    Learned,
    check_agreement,
    relative_rounding,
)
from speed.batch_counts import counted_together
from speed.cuda_graphs import CudaGraphs, GraphsFailed, Recorder, ReplayedStep, Step, first_line
from utils import Meter, all_finite, autocast, choose_precision, clip_gradients

GIVEN_UP = "going on without CUDA graphs: %s"

Result = TypeVar("Result")


@dataclass(frozen=True)
class TrainingRecipe:
    """How a candidate is trained: SGD, its momentum fresh for each candidate."""

    learning_rate: float
    momentum: float
    weight_decay: float
    grad_clip: float
    drop_path_prob: float


@dataclass(frozen=True)
class Outcome:
    """What a candidate's turn came to.

    Attributes:
        genotype: the candidate.
        loss: mean validation loss; NaN if a trained weight is not finite, whatever it came to.
        accuracy: validation accuracy in percent.
        weights: copies of the trained parameters and buffers, by name, on the supernet's device;
            None if the loss is not finite, for such weights must not spread.
        seconds: how long the turn took.
        excess: by how much the candidate is outside the budget. If it is, there was no turn:
            loss and accuracy are NaN.
    """

    genotype: Genotype
    loss: float
    accuracy: float
    weights: FlatTensors | None
    seconds: float
    excess: float = 0.0


class CandidateTrainer:
    """Gives candidates their turns in the supernet.

    Args:
        supernet: holds the weight set; a turn leaves it as it was.
        data: what to train and validate on.
        precision: dtype of the computation, float32 or bfloat16.
        report_freq: log every so many training steps.
        recorder: replays steps as CUDA graphs, as long as these work; None: all of them run as
            they are.
        interruption: looked at after each step; a turn can be left there.
        budget: what is outside it gets no turn; None: everything gets one.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: Batches,
        precision: torch.dtype,
        report_freq: int,
        recorder: Recorder | None = None,
        interruption: Interruption | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.supernet = supernet
        self.data = data
        self.device = next(supernet.parameters()).device
        self.precision = precision
        self.report_freq = report_freq
        self.recorder = recorder
        self.interruption = interruption or Interruption()
        self.graphs_checked = False
        self.budget = budget
        self.log = logging.getLogger("relativenas")

    def take_turn(self, genotype: Genotype, recipe: TrainingRecipe, seed: int) -> Outcome:
        """Train and validate `genotype` from the weight set; `seed` fixes all random numbers.

        Raises:
            Interrupted: a signal asked to stop. The supernet then holds what was learned so far.
        """
        if self.budget and (excess := self.budget.excess(genotype)):
            return Outcome(genotype, math.nan, math.nan, None, 0.0, excess)
        self._unless_graphs_fail(lambda: self.check_graphs(genotype, recipe, seed))
        started = time.monotonic()
        tensors = self.supernet.active_tensors(self.supernet.arch_info(genotype))
        weight_set = FlatTensors(tensors)

        def train() -> None:
            torch.manual_seed(seed)  # of drop path
            self.train(genotype, recipe, seed)

        self._unless_graphs_fail(train, undo=lambda: weight_set.copy_to(tensors))
        loss, accuracy = self.validate(genotype)
        learned = FlatTensors(tensors)
        weight_set.copy_to(tensors)
        # An infinite variance in batch norm, for one, hides from the loss: it divides to zero.
        if not all_finite(learned.pieces.values()):
            loss = math.nan
        weights = learned if math.isfinite(loss) else None
        return Outcome(genotype, loss, accuracy, weights, time.monotonic() - started)

    def train(self, genotype: Genotype, recipe: TrainingRecipe, seed: int) -> None:
        """Train the active weights of `genotype` in place for one pass."""
        supernet = self.supernet
        supernet.train()
        supernet.drop_path_prob = recipe.drop_path_prob
        arch_info = supernet.arch_info(genotype)
        tensors = supernet.active_tensors(arch_info).values()
        parameters = [tensor for tensor in tensors if isinstance(tensor, nn.Parameter)]
        optimizer = torch.optim.SGD(
            parameters, recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )

        @self._replayed
        def train_on(images: Tensor, labels: Tensor) -> None:
            optimizer.zero_grad()
            self._backward(images, labels, arch_info)
            clip_gradients(parameters, recipe.grad_clip)
            optimizer.step()

        with counted_together(supernet.batch_norms(arch_info)) as count_batches:
            for step, (images, labels) in enumerate(self.data.training_batches(seed), start=1):
                train_on(images, labels)
                if step % self.report_freq == 0:
                    self.log.info("step %d/%d", step, self.data.steps)
                self.interruption.check()
            count_batches(step)
        optimizer.zero_grad()

    def _backward(self, images: Tensor, labels: Tensor, arch_info: ArchInfo) -> None:
        # In a function of its own, so that the graph is gone before the next one is made.
        with autocast(images.device, self.precision):
            loss = F.cross_entropy(self.supernet(images, arch_info), labels)
        loss.backward()

    def validate(self, genotype: Genotype) -> tuple[float, float]:
        """Mean loss and accuracy in percent of `genotype` on the validation images."""
        return self._unless_graphs_fail(lambda: self._validate(genotype))

    def _validate(self, genotype: Genotype) -> tuple[float, float]:
        self.supernet.eval()
        arch_info = self.supernet.arch_info(genotype)
        meter = Meter(self.device)

        @self._replayed
        def validate_on(images: Tensor, labels: Tensor) -> None:
            with autocast(images.device, self.precision):
                logits = self.supernet(images, arch_info)
                loss = F.cross_entropy(logits, labels)
            meter.update(loss, logits, labels)

        with torch.inference_mode():
            for images, labels in self.data.validation_batches():
                validate_on(images, labels)
                self.interruption.check()
        result = meter.result()
        return result["loss"], result["top1"]

    def _replayed(self, step: Step) -> Step:
        # A candidate's steps differ in nothing but the images, so that one recording serves all.
        trusted = self.recorder and self.graphs_checked
        return ReplayedStep(step, self.recorder) if trusted else step

    def _unless_graphs_fail(
        self, work: Callable[[], Result], undo: Callable[[], None] = lambda: None
    ) -> Result:
        """What `work` comes to; if CUDA graphs fail in it, they are given up and it is redone.

        Args:
            undo: takes back what a first try has changed.
        """
        try:
            return work()
        except RuntimeError as error:
            # Graphs keep memory that steps without them can use.
            failed = isinstance(error, GraphsFailed) or is_out_of_memory(error)
            if self.recorder is None or not failed:
                raise
            self.log.warning(GIVEN_UP, first_line(error))
        # Not in the handler: the error holds the memory of what has failed.
        self.recorder = None
        self.supernet.zero_grad()
        undo()
        return work()

    def check_graphs(self, genotype: Genotype, recipe: TrainingRecipe, seed: int) -> None:
        """See to it that a candidate's first steps are the same with CUDA graphs and without.

        Raises:
            GraphsFailed: they are not, or they cannot be recorded.
        """
        if self.recorder is None or self.graphs_checked:
            return
        tensors = self.supernet.active_tensors(self.supernet.arch_info(genotype))
        before = FlatTensors(tensors)
        recipe = replace(recipe, drop_path_prob=max(recipe.drop_path_prob, DROP_PATH_PROB))
        results = []
        for recorder in (None, None, self.recorder):
            few = copy.copy(self)
            few.data, few.recorder = FirstBatches(self.data, STEPS), recorder
            few.graphs_checked = True
            few.report_freq = sys.maxsize
            torch.manual_seed(seed)
            try:
                few.train(genotype, recipe, seed)
                learned = FlatTensors(tensors)
            finally:
                before.copy_to(tensors)
            loss, _ = few._validate(genotype)
            results.append(Learned(learned, loss))
        # Weights that grow without bounds are no measure; the next candidate may be one.
        if all_finite(results[0].tensors.pieces.values()) and math.isfinite(results[0].loss):
            rounding = relative_rounding(self.precision, self.device)
            check_agreement(before, *results, rounding)
            self.graphs_checked = True


def make_trainer(args: Namespace, run: Run, budget: Budget) -> CandidateTrainer:
    """The trainer that the search's flags ask for, with a new supernet and the images.

    Raises:
        UserError: the images cannot be read, or are too few.
    """
    device = run.processes.device
    data = load_search_data(args, run)
    torch.manual_seed(args.seed)
    supernet = Supernet(
        args.init_channels, data.train_set.num_classes, args.layers, args.save_memory
    )
    supernet.to(device, memory_format=torch.channels_last)
    return CandidateTrainer(
        supernet,
        data,
        choose_precision(args.precision, device),
        args.report_freq,
        choose_recorder(args.cuda_graphs, device),
        run.processes.interruption,
        budget,
    )


def choose_recorder(cuda_graphs: str, device: torch.device) -> Recorder | None:
    """What `--cuda_graphs auto|on|off` stands for: graphs on a GPU, unless turned off."""
    return CudaGraphs(device) if device.type == "cuda" and cuda_graphs != "off" else None
