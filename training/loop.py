"""Training a network from scratch, and evaluating one: what the training scripts share."""

import math
import time
from argparse import Namespace
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dataset.batching import Batches
from report.records import EpochRecord
from report.run import Run
from runtime.errors import UserError
from runtime.interruption import Interrupted
from runtime.progress_bar import format_seconds, progress_bar
from training.state import TrainingState
from training.task import Task, result_of_all
from utils import all_finite, autocast, choose_precision, clip_gradients, derive_seed


def fit(args: Namespace, run: Run, task: Task, data: Batches) -> None:
    """Train the network of `task` from scratch, or from `--resume`.

    Writes `last.pt` and `best.pt` after each epoch, `last.pt` also when it is interrupted in one.
    Neither is ever written with weights that are not finite, or after an epoch whose validation
    loss is not finite.

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
    network = task.build()
    network.to(processes.device, memory_format=torch.channels_last)
    state = TrainingState(run, network, task)
    trainer = Trainer(args, state, data)
    if args.resume:
        state.resume(args.epochs, data.steps)
    run.begin(state.epoch)
    for epoch in range(state.epoch, args.epochs):
        started = time.monotonic() - state.so_far.seconds
        task.begin_epoch(network, epoch)
        try:
            train = trainer.train_epoch()
            batches = data.validation_batches()
            validation = task.evaluate(network, batches, processes, trainer.precision)
        except Interrupted as stop:
            stop.place = f" after step {state.so_far.step}/{data.steps} of epoch {epoch + 1}"
            # The main process's are saved, and all must judge them alike.
            processes.share_buffers(network)
            trainer.refuse_non_finite(stop.place.strip())
            state.save_interrupted(time.monotonic() - started)
            raise
        after = f"after the last step of epoch {epoch + 1}"
        trainer.refuse_non_finite(after, validation.get("loss", 0.0))
        value = validation[task.best_by]
        is_best = state.finish_epoch(value)
        record_epoch(args, state, train, validation, time.monotonic() - started)
        if is_best:
            state.save_best(value)
            task.keep_best(run, state.epoch)
        state.save_last(value)
        run.refresh_report()
    run.finish()


def record_epoch(
    args: Namespace,
    state: TrainingState,
    train: dict[str, float],
    validation: dict[str, float],
    seconds: float,
) -> None:
    """Write what came of the epoch that has just ended to the log, the history and TensorBoard."""
    done, task = state.epoch, state.task
    state.run.log.info(
        "epoch %d/%d: training %s; validation %s, best %.2f %%; %s, %s left",
        done, args.epochs, task.in_words(train), task.in_words(validation), state.best,
        format_seconds(seconds), format_seconds((args.epochs - done) * seconds),
    )  # fmt: skip
    record = {
        "epoch": done - 1,
        "learning_rate": task.learning_rate(done - 1, 1),
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
    """

    def __init__(self, args: Namespace, state: TrainingState, data: Batches) -> None:
        self.args = args
        self.state = state
        self.task = state.task
        self.run = state.run
        self.processes = state.run.processes
        self.data = data
        self.precision = choose_precision(args.precision, self.processes.device)
        self.network: nn.Module = state.network
        if self.processes.size > 1:
            # Static, because a genotype may leave parts of the network unused. Batch norm's
            # statistics are no use to a training step; `share_buffers` hands them out before
            # they are.
            self.network = DistributedDataParallel(
                state.network, static_graph=True, broadcast_buffers=False
            )

    def train_epoch(self) -> dict[str, float]:
        """Train for the rest of an epoch; returns the result of the sums over all processes.

        Raises:
            Interrupted: a signal asked to stop; all processes are at the same step.
            UserError: a loss is infinite or NaN; names the step, the learning rate and the last
                good checkpoint.
        """
        epoch, so_far = self.state.epoch, self.state.so_far
        self.network.train()
        losses = FirstNonFinite(self.processes.device, so_far.step)
        name = f"epoch {epoch + 1}/{self.args.epochs}"
        batches = progress_bar(
            self.data.training_batches(derive_seed(self.args.seed, epoch), so_far.step),
            name, "step", self.data.steps, so_far.step, shown=self.processes.is_main,
        )  # fmt: skip
        for step, (images, targets) in enumerate(batches, start=so_far.step + 1):
            # Drop path draws from this. Anew in each step, so that a resumed epoch draws the same
            # numbers; by rank, so that processes do not all drop the same.
            torch.manual_seed(derive_seed(self.args.seed, epoch, self.processes.rank, step))
            losses.update(self._step(images, targets, self.task.learning_rate(epoch, step)))
            so_far.step = step
            if step % self.args.report_freq == 0:
                self._check_losses(losses)
                self.run.log.info(
                    "%s step %d/%d: %s",
                    name, step, self.data.steps, self.task.in_words(so_far.sums.result()),
                )  # fmt: skip
            self.processes.check_interruption()
        self._check_losses(losses)
        return result_of_all(so_far.sums, self.processes)

    def refuse_non_finite(self, after: str, validation_loss: float = 0.0) -> None:
        """Refuse to save weights that are not finite, or have such a validation loss.

        Raises:
            UserError: one is infinite or NaN.
        """
        if not math.isfinite(validation_loss):
            self._stop(f"the validation loss is {validation_loss} {after}")
        if not all_finite(self.network.state_dict().values()):
            self._stop(f"a weight is infinite or NaN {after}")

    def _step(self, images: Tensor, targets: object, learning_rate: float) -> Tensor:
        """A step; returns its loss."""
        optimizer = self.state.optimizer
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get("rate", 1)
        with autocast(images.device, self.precision):
            loss = self.task.loss(self.network, images, targets, self.state.so_far.sums)
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(self.network.parameters(), self.args.grad_clip)
        optimizer.step()
        return loss.detach()

    def _check_losses(self, losses: FirstNonFinite) -> None:
        # The first of all processes: one bad gradient is everybody's in the next step.
        step = min(filter(None, self.processes.gather(losses.step())), default=None)
        if step is not None:
            place = f"in step {step} of epoch {self.state.epoch + 1}"
            self._stop(f"the training loss is infinite or NaN {place}")

    def _stop(self, what: str) -> NoReturn:
        learning_rate = self.task.learning_rate(self.state.epoch, max(1, self.state.so_far.step))
        self.processes.close()  # they all stop here
        raise UserError(
            f"{what}, at learning rate {learning_rate:g}; {self.state.last_good}; train again "
            "with a lower --learning_rate or --grad_clip"
        )
