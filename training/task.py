"""What a network is trained for, as the training loop sees it."""

import copy
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from report.run import Run
from runtime.processes import Processes


class Sums(Protocol):
    """What a task counts over the images of training steps, without waiting for the device.

    Attributes:
        sums: float64 (k,); adding those of several processes up gives those of all. The last one
            is the number of images.
    """

    sums: Tensor

    def result(self) -> dict[str, float]:
        """The numbers that the sums stand for, `loss` and `count` among them."""


class LossSums:
    """The losses of training images, for tasks that count nothing else in training (`Sums`)."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)

    def update(self, loss: Tensor, count: int) -> None:
        """Count a batch of `count` images and its mean `loss`, a scalar."""
        self.sums += torch.stack([loss * count, torch.full_like(loss, count)])

    def result(self) -> dict[str, float]:
        """The mean `loss`, and `count`. Waits for the device."""
        loss, count = self.sums.tolist()
        return {"loss": loss / count, "count": round(count)}


class Task(Protocol):
    """Classification (`Classification`) or another task, such as those in transfer/.

    Attributes:
        description: all that is needed to build the network again and to test it; checkpoints
            have it.
        best_by: name of the number in `evaluate`'s result whose largest makes a checkpoint the
            best one.
    """

    description: dict
    best_by: str

    def build(self) -> nn.Module:
        """The network, its weights new."""

    def optimizer(self, network: nn.Module) -> Optimizer:
        """What trains `network`; a group's `rate` is its factor of the learning rate, else 1."""

    def learning_rate(self, epoch: int, step: int) -> float:
        """That of a step (from 1) of an epoch (from 0)."""

    def begin_epoch(self, network: nn.Module, epoch: int) -> None:
        """Set what changes in `network` from epoch to epoch."""

    def new_sums(self, device: torch.device) -> Sums:
        """Sums of no images yet."""

    def loss(self, network: nn.Module, images: Tensor, targets: object, sums: Sums) -> Tensor:
        """The loss to be minimised, a scalar; counts the batch in `sums`."""

    def evaluate(
        self,
        network: nn.Module,
        batches: Iterable[tuple[Tensor, object]],
        processes: Processes,
        precision: torch.dtype,
    ) -> dict[str, float]:
        """What the network does on `batches`, over those of all processes.

        Returns:
            Numbers by their names in `report.records.METRICS`, `best_by`'s in percent and the
            first beside the `loss`, of which there need not be one; and `count`, the images.

        Raises:
            Interrupted: a signal asked to stop; in all processes together.
        """

    def in_words(self, result: dict[str, float]) -> str:
        """A result of `Sums` or of `evaluate`, for the log."""

    def keep_best(self, run: Run, epoch: int) -> None:
        """Write what belongs to the best checkpoint, of the epoch (from 1) just evaluated."""


def result_of_all(sums: Sums, processes: Processes) -> dict[str, float]:
    """The result over the sums of all processes; each keeps its own."""
    total = copy.copy(sums)
    total.sums = processes.sum(sums.sums.clone())
    return total.result()
