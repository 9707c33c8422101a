"""Classification: the task that the published networks are trained for."""

from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from report.records import CONFUSION_FILE
from report.run import Run
from runtime.processes import Processes
from training.task import result_of_all
from training.trained_network import build_network
from utils import Meter, autocast

LARGEST_CONFUSION = 200
"""With more classes than this no confusion matrix is kept."""


class Classification:
    """Cross-entropy of the main and the auxiliary head (see `Task`).

    Args:
        args: the training script's.
        description: of the network, by `describe_network`; with it the image set, image size,
            mean and deviation, for the scripts that test it.
        epoch_rate: gives an epoch's learning rate; they are counted from 0.
        label_smoothing: of both heads' cross-entropy in training.
        class_names: if given, the best checkpoint's confusion matrix is kept, for the report.
    """

    best_by = "top1"

    def __init__(
        self,
        args: Namespace,
        description: dict,
        epoch_rate: Callable[[int], float],
        label_smoothing: float = 0.0,
        class_names: Sequence[str] = (),
    ) -> None:
        self.args = args
        self.description = description
        self.epoch_rate = epoch_rate
        self.label_smoothing = label_smoothing
        self.class_names = class_names
        self.confusion: Tensor | None = None

    def build(self) -> nn.Module:
        return build_network(self.description)

    def optimizer(self, network: nn.Module) -> torch.optim.SGD:
        args = self.args
        return torch.optim.SGD(
            network.parameters(), args.learning_rate, args.momentum, weight_decay=args.weight_decay
        )

    def learning_rate(self, epoch: int, step: int) -> float:
        return self.epoch_rate(epoch)

    def begin_epoch(self, network: nn.Module, epoch: int) -> None:
        # From 0 in the first epoch, linearly.
        network.drop_path_prob = self.args.drop_path_prob * epoch / self.args.epochs

    def new_sums(self, device: torch.device) -> Meter:
        return Meter(device)

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor, sums: Meter) -> Tensor:
        """The loss of both heads together; the main one's is counted."""
        logits, logits_aux = network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        sums.update(loss.detach(), logits.detach(), labels)
        if logits_aux is None:
            return loss
        loss_aux = F.cross_entropy(logits_aux, labels, label_smoothing=self.label_smoothing)
        return loss + self.args.auxiliary_weight * loss_aux

    def evaluate(
        self,
        network: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        processes: Processes,
        precision: torch.dtype,
    ) -> dict[str, float]:
        if self.confusion is None:
            self.confusion = new_confusion(len(self.class_names), processes.device)
        return evaluate(network, batches, processes, precision, self.confusion)

    def in_words(self, result: dict[str, float]) -> str:
        return f"loss {result['loss']:.4f}, top-1 {result['top1']:.2f} %"

    def keep_best(self, run: Run, epoch: int) -> None:
        """Write the confusion matrix, with the classes' names and the epoch, as JSON."""
        if self.confusion is not None:
            content = {"epoch": epoch, "classes": list(self.class_names)}
            counts = self.confusion.tolist()
            run.write_json(CONFUSION_FILE, {**content, "counts": counts}, indent=None)


def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    processes: Processes,
    precision: torch.dtype,
    confusion: Tensor | None = None,
) -> dict[str, float]:
    """Loss, top-1 and top-5 accuracy over `batches`, over those of all processes together.

    Args:
        confusion: int64 (classes, classes), on the processes' device; filled with how many images
            of each true class (row) are taken for each class (column).

    Raises:
        Interrupted: a signal asked to stop; in all processes together.
    """
    network.eval()
    if confusion is not None:
        confusion.zero_()
    processes.share_buffers(network)
    meter = Meter(processes.device)
    with torch.inference_mode():
        for images, labels in batches:
            with autocast(images.device, precision):
                logits, _ = network(images)
                loss = F.cross_entropy(logits, labels)
            predicted = meter.update(loss, logits, labels)
            if confusion is not None:
                places = labels * len(confusion) + predicted
                confusion.view(-1).scatter_add_(0, places, torch.ones_like(places))
            if processes.interruption.signal:
                break
    processes.check_interruption_now()
    if confusion is not None:
        processes.sum(confusion)
    return result_of_all(meter, processes)


def new_confusion(classes: int, device: torch.device) -> Tensor | None:
    """A matrix of zeros for `evaluate` to count in; None for no classes, or too many."""
    if not 0 < classes <= LARGEST_CONFUSION:
        return None
    return torch.zeros((classes, classes), dtype=torch.int64, device=device)
