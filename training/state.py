"""How far a training got: saved after each epoch, or where one is interrupted, and restored."""

import math
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor, nn

from report.run import Run
from runtime.checkpoint import check_weights, load_newest_checkpoint, published_state_dict
from runtime.errors import UserError
from runtime.processes import Processes
from runtime.untrusted import is_number, is_whole_number
from utils import Meter, all_finite

LAST_CHECKPOINT = "last.pt"
BEST_CHECKPOINT = "best.pt"


class EpochSoFar:
    """What is done of an epoch.

    Attributes:
        step: number of training steps.
        meter: of those steps, in this process.
        seconds: how long they took, before the run was interrupted.
    """

    def __init__(self, device: torch.device) -> None:
        self.step = 0
        self.meter = Meter(device)
        self.seconds = 0.0

    def state_dict(self, processes: Processes) -> dict:
        """Everything needed to go on; all processes call it together."""
        sums = torch.stack(processes.gather(self.meter.sums.cpu()))
        return {"step": self.step, "sums": sums, "seconds": self.seconds}

    @staticmethod
    def is_state(state: object, steps: int) -> bool:
        """Whether `state_dict` can have returned `state` in an epoch of `steps` steps.

        One more is possible where other processes shared the images out.
        """
        if not isinstance(state, dict) or state.keys() != {"step", "sums", "seconds"}:
            return False
        sums = state["sums"]
        return (
            is_whole_number(state["step"], 0, steps + 1)
            and is_number(state["seconds"])
            and isinstance(sums, Tensor)
            and sums.dtype == torch.float64
            and sums.dim() == 2
            and sums.shape[1] == 4
            and len(sums) > 0
            and all_finite([sums])
            and (state["step"] == 0 or sums[:, 3].sum().item() > 0)
        )

    def load_state_dict(self, state: dict, processes: Processes) -> None:
        """Go on from what `state_dict` returned, perhaps in another number of processes."""
        self.step, sums, self.seconds = state["step"], state["sums"], state["seconds"]
        # What counts is the total: in another number of processes the main one takes all of it.
        if len(sums) == processes.size:
            self.meter.sums.copy_(sums[processes.rank])
        elif processes.is_main:
            self.meter.sums.copy_(sums.sum(dim=0))


class TrainingState:
    """A network in training, its optimizer, and how far they got.

    `last.pt` has all that resuming needs, `best.pt` the same less the optimizer, for testing.

    Args:
        args: the training script's.
        run: where they are written.
        network: on this process's device.
        description: of the network, by `describe_network`, and what a test script needs beside.

    Attributes:
        optimizer: SGD.
        epoch: number of epochs done.
        so_far: what is done of the epoch that is not finished.
        best_top1: the best validation accuracy so far, in percent.
        last_good: which checkpoint the user can go back to, in words.
    """

    def __init__(self, args: Namespace, run: Run, network: nn.Module, description: dict) -> None:
        self.run = run
        self.network = network
        self.description = description
        self.optimizer = torch.optim.SGD(
            network.parameters(), args.learning_rate, args.momentum, weight_decay=args.weight_decay
        )
        self.epoch = 0
        self.so_far = EpochSoFar(run.processes.device)
        self.best_top1 = -math.inf
        self.last_good = "there is no good checkpoint yet"

    def resume(self, epochs: int, steps: int) -> None:
        """Go on from the run's newest checkpoint, if it got as far as writing one.

        Args:
            epochs: of the whole training.
            steps: of an epoch.

        Raises:
            UserError: the checkpoint or the history is damaged, or not one of this training.
        """
        state = self.run.read(
            LAST_CHECKPOINT, lambda path: load_last(path, self.network, epochs, steps)
        )
        if state:
            self.network.load_state_dict(state["state_dict"])  # `load_last` has compared the names
            _restore_momentum(self.optimizer, state["momentum"])
            self.epoch, self.best_top1 = state["epoch"], state["best_top1"]
            if state["epoch_so_far"]:
                self.so_far.load_state_dict(state["epoch_so_far"], self.run.processes)
            self._say_last_good(
                f"after epoch {self.epoch} and {self.so_far.step} steps of the next"
            )
        # An epoch may have been recorded and not saved; it is trained again, and recorded again.
        self.run.truncate_history(self.epoch)
        self.run.log.info(
            "resumed after epoch %d and %d steps of the next", self.epoch, self.so_far.step
        )

    def save_interrupted(self, seconds: float) -> None:
        """Save what is done of an epoch after `seconds` of it; all processes together."""
        self.so_far.seconds = seconds
        so_far = self.so_far.state_dict(self.run.processes)
        content = {**self._content(), "epoch_so_far": so_far}
        self.run.save(LAST_CHECKPOINT, content, keep_previous=True)

    def finish_epoch(self, top1: float) -> bool:
        """Count an epoch that ended with the validation accuracy `top1`; whether it is the best."""
        self.epoch += 1
        self.so_far = EpochSoFar(self.run.processes.device)
        is_best = top1 > self.best_top1
        self.best_top1 = max(self.best_top1, top1)
        self._say_last_good(f"of epoch {self.epoch}")
        return is_best

    def save_best(self, top1: float) -> None:
        """Save the network as the best one so far."""
        resuming_needs = ("optimizer", "best_top1")
        content = {k: v for k, v in self._content().items() if k not in resuming_needs}
        self.run.save(BEST_CHECKPOINT, {**content, "top1": top1})

    def save_last(self, top1: float) -> None:
        """Save all that the next epoch needs."""
        self.run.save(LAST_CHECKPOINT, {**self._content(), "top1": top1}, keep_previous=True)

    def _content(self) -> dict:
        return {
            **self.description,
            "state_dict": self.network.state_dict(),
            "epoch": self.epoch,
            "optimizer": self.optimizer.state_dict(),
            "best_top1": self.best_top1,
        }

    def _say_last_good(self, which: str) -> None:
        path = self.run.path(LAST_CHECKPOINT) or LAST_CHECKPOINT
        self.last_good = f"the last good checkpoint is {path}, {which}"


def load_last(path: Path, network: nn.Module, epochs: int, steps: int) -> dict | None:
    """What the newest checkpoint has for resuming; None if there is none yet.

    Raises:
        UserError: it cannot be read, or is not one of this training.
    """
    content = load_newest_checkpoint(path)
    if content is None:
        return None
    state = published_state_dict(content, path)
    check_weights(network.state_dict(), state, path)
    shapes = {number: parameter.shape for number, parameter in enumerate(network.parameters())}
    try:
        kept = content["optimizer"]["state"].items()
        momentum = {number: entry["momentum_buffer"] for number, entry in kept}
    except (AttributeError, IndexError, KeyError, TypeError):
        momentum = None
    fits = momentum is not None and all(
        number in shapes
        and (buffer is None or (isinstance(buffer, Tensor) and buffer.shape == shapes[number]))
        for number, buffer in momentum.items()
    )
    epoch, best_top1 = content.get("epoch"), content.get("best_top1")
    so_far = content.get("epoch_so_far")
    first = 1
    if so_far is not None:  # stopped inside the epoch after `epoch`
        first = 0
        fits = fits and EpochSoFar.is_state(so_far, steps)
    has_best = is_number(best_top1) or (epoch == 0 and best_top1 == -math.inf)
    if not (fits and has_best and is_whole_number(epoch, first, epochs)):
        raise UserError(
            f"checkpoint {path}: not what this training can go on from (optimizer, epoch, "
            "best_top1 or epoch_so_far in it is wrong); train anew"
        )
    return {
        "state_dict": state,
        "momentum": momentum,
        "epoch": epoch,
        "best_top1": best_top1,
        "epoch_so_far": so_far,
    }


def _restore_momentum(optimizer: torch.optim.Optimizer, momentum: dict) -> None:
    """Give `optimizer` its buffers back, by the numbers of the parameters, and nothing else."""
    # Learning rate and decay come from the flags, which may not be those of the file.
    state = {number: {"momentum_buffer": buffer} for number, buffer in momentum.items()}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
