"""Training a network from scratch, and evaluating one: what the training scripts share."""

import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dataset.batching import Batches
from report.records import CONFUSION_FILE, EpochRecord
from report.run import Run
from runtime.errors import UserError
from runtime.interruption import Interrupted
from runtime.processes import Processes
from runtime.progress_bar import format_seconds, progress_bar
from training.state import TrainingState
from training.trained_network import build_network
from utils import Meter, all_finite, autocast, choose_precision, clip_gradients, derive_seed

LARGEST_CONFUSION = 200
"""With more classes than this no confusion matrix is kept."""


def fit(
    args: Namespace,
    run: Run,
    description: dict,
    data: Batches,
    learning_rate: Callable[[int], float],
    label_smoothing: float = 0.0,
    class_names: Sequence[str] = (),
) -> None:
    """Train the network of `description` from scratch, or from `--resume`.

    Writes `last.pt` and `best.pt` after each epoch, `last.pt` also when it is interrupted in one.
    Neither is ever written with weights that are not finite, or after an epoch whose validation
    loss is not finite.

    Args:
        description: of the network, by `describe_network`; with it the image set, image size,
            mean and deviation, for the scripts that test it.
        learning_rate: gives an epoch's, which are counted from 0.
        label_smoothing: of both heads' cross-entropy in training.
        class_names: if given, the best checkpoint's confusion matrix is kept, for the report.

    Raises:
        UserError: there are too few images for the processes, or a loss or a weight became infinite
            or NaN; names the step, the learning rate and the last good checkpoint.
        Interrupted: a signal asked to stop; what is done of the epoch is saved.
    """
    processes = run.processes
    if not data.steps or args.batch_size < 2 * processes.size:
        raise UserError(
            f"--batch_size {args.batch_size}: batch norm needs two images or more for each process "
            f"({processes.size}) in a batch; use a larger batch, more images or fewer processes"
        )
    torch.manual_seed(args.seed)
    network = build_network(description)
    network.to(processes.device, memory_format=torch.channels_last)
    state = TrainingState(args, run, network, description)
    trainer = Trainer(args, state, data, label_smoothing)
    confusion = new_confusion(len(class_names), processes.device)
    if args.resume:
        state.resume(args.epochs, data.steps)
    run.begin(state.epoch)
    for epoch in range(state.epoch, args.epochs):
        started = time.monotonic() - state.so_far.seconds
        rate = learning_rate(epoch)
        # From 0 in the first epoch, linearly.
        network.drop_path_prob = args.drop_path_prob * epoch / args.epochs
        try:
            train = trainer.train_epoch(rate)
            validation = evaluate(
                network, data.validation_batches(), processes, trainer.precision, confusion
            )
        except Interrupted as stop:
            stop.place = f" after step {state.so_far.step}/{data.steps} of epoch {epoch + 1}"
            # The main process's are saved, and all must judge them alike.
            processes.share_buffers(network)
            trainer.refuse_non_finite(stop.place.strip(), rate)
            state.save_interrupted(time.monotonic() - started)
            raise
        after = f"after the last step of epoch {epoch + 1}"
        trainer.refuse_non_finite(after, rate, validation["loss"])
        is_best = state.finish_epoch(validation["top1"])
        record_epoch(args, state, rate, train, validation, time.monotonic() - started)
        if is_best:
            state.save_best(validation["top1"])
            save_confusion(run, confusion, class_names, state.epoch)
        state.save_last(validation["top1"])
        run.refresh_report()
    run.finish()


def record_epoch(
    args: Namespace,
    state: TrainingState,
    learning_rate: float,
    train: dict[str, float],
    validation: dict[str, float],
    seconds: float,
) -> None:
    """Write what came of the epoch that has just ended to the log, the history and TensorBoard."""
    done = state.epoch
    state.run.log.info(
        "epoch %d/%d: training loss %.4f, top-1 %.2f %%; validation loss %.4f, top-1 %.2f %%, "
        "best %.2f %%; %s, %s left",
        done, args.epochs, train["loss"], train["top1"], validation["loss"], validation["top1"],
        state.best_top1, format_seconds(seconds), format_seconds((args.epochs - done) * seconds),
    )  # fmt: skip
    record = {
        "epoch": done - 1,
        "learning_rate": learning_rate,
        "train": train,
        "validation": validation,
        "seconds": seconds,
    }
    state.run.record(record)
    state.run.write_scalars(done, EpochRecord.from_record(record).scalars())


class FirstNonFinite:
    """Remembers the first step whose number was NaN or infinite, without waiting for the device.

    Args:
        device: where the numbers are.
        steps: number of steps already done.
    """

    def __init__(self, device: torch.device, steps: int = 0) -> None:
        self._steps = steps
        self._first = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, number: Tensor) -> None:
        """Look at the next step's `number`, a scalar."""
        self._steps += 1
        is_first = (self._first == 0) & ~number.isfinite()
        self._first += is_first * self._steps

    def step(self) -> int | None:
        """The first such step, counted from 1; None if all were finite. Waits for the device."""
        return int(self._first) or None


class Trainer:
    """Trains a network for an epoch at a time.

    Args:
        state: what is trained; its `so_far` is kept up to date.
        label_smoothing: of both heads' cross-entropy in training.
    """

    def __init__(
        self, args: Namespace, state: TrainingState, data: Batches, label_smoothing: float
    ) -> None:
        self.args = args
        self.state = state
        self.run = state.run
        self.processes = state.run.processes
        self.data = data
        self.label_smoothing = label_smoothing
        self.precision = choose_precision(args.precision, self.processes.device)
        self.network: nn.Module = state.network
        if self.processes.size > 1:
            # Static, because a genotype may leave parts of the network unused. Batch norm's
            # statistics are no use to a training step; `share_buffers` hands them out before
            # they are.
            self.network = DistributedDataParallel(
                state.network, static_graph=True, broadcast_buffers=False
            )

    def train_epoch(self, learning_rate: float) -> dict[str, float]:
        """Train for the rest of an epoch; returns the `Meter`'s result over all processes.

        Raises:
            Interrupted: a signal asked to stop; all processes are at the same step.
            UserError: a loss is infinite or NaN; names the step, the learning rate and the last
                good checkpoint.
        """
        epoch, so_far = self.state.epoch, self.state.so_far
        for group in self.state.optimizer.param_groups:
            group["lr"] = learning_rate
        self.network.train()
        losses = FirstNonFinite(self.processes.device, so_far.step)
        name = f"epoch {epoch + 1}/{self.args.epochs}"
        batches = progress_bar(
            self.data.training_batches(derive_seed(self.args.seed, epoch), so_far.step),
            name, "step", self.data.steps, so_far.step, shown=self.processes.is_main,
        )  # fmt: skip
        for step, (images, labels) in enumerate(batches, start=so_far.step + 1):
            # Drop path draws from this. Anew in each step, so that a resumed epoch draws the same
            # numbers; by rank, so that processes do not all drop the same.
            torch.manual_seed(derive_seed(self.args.seed, epoch, self.processes.rank, step))
            total, loss, logits = self._step(images, labels)
            losses.update(total)
            so_far.meter.update(loss, logits, labels)
            so_far.step = step
            if step % self.args.report_freq == 0:
                self._check_losses(losses, learning_rate)
                result = so_far.meter.result()
                self.run.log.info(
                    "%s step %d/%d: loss %.4f, top-1 %.2f %%",
                    name, step, self.data.steps, result["loss"], result["top1"],
                )  # fmt: skip
            self.processes.check_interruption()
        self._check_losses(losses, learning_rate)
        return _result_of_all(so_far.meter, self.processes)

    def refuse_non_finite(
        self, after: str, learning_rate: float, validation_loss: float = 0.0
    ) -> None:
        """Refuse to save weights that are not finite, or have such a validation loss.

        Raises:
            UserError: one is infinite or NaN.
        """
        if not math.isfinite(validation_loss):
            self._stop(f"the validation loss is {validation_loss} {after}", learning_rate)
        if not all_finite(self.network.state_dict().values()):
            self._stop(f"a weight is infinite or NaN {after}", learning_rate)

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A step: the loss of both heads together, that of the main one, and its logits."""
        with autocast(images.device, self.precision):
            logits, logits_aux = self.network(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            total = loss
            if logits_aux is not None:
                loss_aux = F.cross_entropy(logits_aux, labels, label_smoothing=self.label_smoothing)
                total = loss + self.args.auxiliary_weight * loss_aux
        self.state.optimizer.zero_grad()
        total.backward()
        clip_gradients(self.network.parameters(), self.args.grad_clip)
        self.state.optimizer.step()
        return total.detach(), loss.detach(), logits.detach()

    def _check_losses(self, losses: FirstNonFinite, learning_rate: float) -> None:
        # The first of all processes: one bad gradient is everybody's in the next step.
        step = min(filter(None, self.processes.gather(losses.step())), default=None)
        if step is not None:
            place = f"in step {step} of epoch {self.state.epoch + 1}"
            self._stop(f"the training loss is infinite or NaN {place}", learning_rate)

    def _stop(self, what: str, learning_rate: float) -> NoReturn:
        self.processes.close()  # they all stop here
        raise UserError(
            f"{what}, at learning rate {learning_rate:g}; {self.state.last_good}; train again "
            "with a lower --learning_rate or --grad_clip"
        )


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
    return _result_of_all(meter, processes)


def _result_of_all(meter: Meter, processes: Processes) -> dict[str, float]:
    """The result over the meters of all processes; each keeps its own."""
    total = Meter(processes.device)
    total.sums = processes.sum(meter.sums.clone())
    return total.result()


def new_confusion(classes: int, device: torch.device) -> Tensor | None:
    """A matrix of zeros for `evaluate` to count in; None for no classes, or too many."""
    if not 0 < classes <= LARGEST_CONFUSION:
        return None
    return torch.zeros((classes, classes), dtype=torch.int64, device=device)


def save_confusion(run: Run, counts: Tensor | None, class_names: Sequence[str], epoch: int) -> None:
    """Write what `evaluate` counted, with the classes' names and the epoch (from 1), as JSON."""
    if counts is not None:
        content = {"epoch": epoch, "classes": list(class_names), "counts": counts.tolist()}
        run.write_json(CONFUSION_FILE, content, indent=None)
