"""How far a training got: saved after each epoch, or where one is interrupted, and restored."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from report.run import Run
from runtime.checkpoint import check_weights, load_newest_checkpoint, published_state_dict
from runtime.errors import UserError
from runtime.processes import Processes
from runtime.untrusted import is_number, is_whole_number
from training.task import Sums, Task
from utils import all_finite

LAST_CHECKPOINT = "last.pt"
BEST_CHECKPOINT = "best.pt"

KEPT_BY_OPTIMIZER = {SGD: ("momentum_buffer",), Adam: ("step", "exp_avg", "exp_avg_sq")}
"""What optimizers keep for each parameter: tensors of its shape, and the number of its steps."""


class EpochSoFar:
    """What is done of an epoch.

    Attributes:
        step: number of training steps.
        sums: of those steps, in this process.
        seconds: how long they took, before the run was interrupted.
    """

    def __init__(self, sums: Sums) -> None:
        self.step = 0
        self.sums = sums
        self.seconds = 0.0

    def state_dict(self, processes: Processes) -> dict:
        """Everything needed to go on; all processes call it together."""
        sums = torch.stack(processes.gather(self.sums.sums.cpu()))
        return {"step": self.step, "sums": sums, "seconds": self.seconds}

    def is_state(self, state: object, steps: int) -> bool:
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
            and sums.shape[1:] == self.sums.sums.shape
            and len(sums) > 0
            and all_finite([sums])
            and (state["step"] == 0 or sums[:, -1].sum().item() > 0)
        )

    def load_state_dict(self, state: dict, processes: Processes) -> None:
        """Go on from what `state_dict` returned, perhaps in another number of processes."""
        self.step, sums, self.seconds = state["step"], state["sums"], state["seconds"]
        # What counts is the total: in another number of processes the main one takes all of it.
        if len(sums) == processes.size:
            self.sums.sums.copy_(sums[processes.rank])
        elif processes.is_main:
            self.sums.sums.copy_(sums.sum(dim=0))


class TrainingState:
    """A network in training, its optimizer, and how far they got.

    `last.pt` has all that resuming needs, `best.pt` the same less the optimizer, for testing.

    Args:
        run: where they are written.
        network: on this process's device.
        task: what it is trained for.

    Attributes:
        optimizer: the task's.
        epoch: number of epochs done.
        so_far: what is done of the epoch that is not finished.
        best: the best so far of the number that the task judges checkpoints by.
        last_good: which checkpoint the user can go back to, in words.
    """

    def __init__(self, run: Run, network: nn.Module, task: Task) -> None:
        self.run = run
        self.network = network
        self.task = task
        self.optimizer = task.optimizer(network)
        self.epoch = 0
        self.so_far = self._new_epoch()
        self.best = -math.inf
        self.last_good = "there is no good checkpoint yet"

    def resume(self, epochs: int, steps: int) -> None:
        """Go on from the run's newest checkpoint, if it got as far as writing one.

        Args:
            epochs: of the whole training.
            steps: of an epoch.

        Raises:
            UserError: the checkpoint or the history is damaged, or not one of this training.
        """
        state = self.run.read(LAST_CHECKPOINT, lambda path: self._load_last(path, epochs, steps))
        if state:
            self.network.load_state_dict(state["state_dict"])  # `_load_last` has compared the names
            _restore(self.optimizer, state["optimizer"])
            self.epoch, self.best = state["epoch"], state["best"]
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

    def finish_epoch(self, value: float) -> bool:
        """Count an epoch that is judged by `value`; whether it is the best so far."""
        self.epoch += 1
        self.so_far = self._new_epoch()
        is_best = value > self.best
        self.best = max(self.best, value)
        self._say_last_good(f"of epoch {self.epoch}")
        return is_best

    def save_best(self, value: float) -> None:
        """Save the network as the best one so far, judged by `value`."""
        resuming_needs = ("optimizer", f"best_{self.task.best_by}")
        content = {k: v for k, v in self._content().items() if k not in resuming_needs}
        self.run.save(BEST_CHECKPOINT, {**content, self.task.best_by: value})

    def save_last(self, value: float) -> None:
        """Save all that the next epoch needs, judged by `value`."""
        content = {**self._content(), self.task.best_by: value}
        self.run.save(LAST_CHECKPOINT, content, keep_previous=True)

    def _new_epoch(self) -> EpochSoFar:
        return EpochSoFar(self.task.new_sums(self.run.processes.device))

    def _content(self) -> dict:
        return {
            **self.task.description,
            "state_dict": self.network.state_dict(),
            "epoch": self.epoch,
            "optimizer": self.optimizer.state_dict(),
            f"best_{self.task.best_by}": self.best,
        }

    def _say_last_good(self, which: str) -> None:
        path = self.run.path(LAST_CHECKPOINT) or LAST_CHECKPOINT
        self.last_good = f"the last good checkpoint is {path}, {which}"

    def _load_last(self, path: Path, epochs: int, steps: int) -> dict | None:
        """What the newest checkpoint has for resuming; None if there is none yet.

        Raises:
            UserError: it cannot be read, or is not one of this training.
        """
        content = load_newest_checkpoint(path)
        if content is None:
            return None
        state = published_state_dict(content, path)
        check_weights(self.network.state_dict(), state, path)
        optimizer = _optimizer_state(content, self.optimizer)
        name = f"best_{self.task.best_by}"
        epoch, best = content.get("epoch"), content.get(name)
        so_far = content.get("epoch_so_far")
        # One with a part of an epoch was stopped inside the epoch after `epoch`.
        fits = so_far is None or self.so_far.is_state(so_far, steps)
        has_best = is_number(best) or (epoch == 0 and best == -math.inf)
        has_epoch = is_whole_number(epoch, 1 if so_far is None else 0, epochs)
        if optimizer is None or not (fits and has_best and has_epoch):
            raise UserError(
                f"checkpoint {path}: not what this training can go on from (optimizer, epoch, "
                f"{name} or epoch_so_far in it is wrong); train anew"
            )
        return {
            "state_dict": state,
            "optimizer": optimizer,
            "epoch": epoch,
            "best": best,
            "epoch_so_far": so_far,
        }


def _optimizer_state(content: dict, optimizer: Optimizer) -> dict[int, dict] | None:
    """What `optimizer` keeps for each parameter, from a checkpoint; None if it has not got it.

    Returns:
        By the parameters' numbers in the optimizer; those that have had no gradient yet have none.
    """
    groups = (group["params"] for group in optimizer.param_groups)
    parameters = dict(enumerate(parameter for group in groups for parameter in group))
    names = KEPT_BY_OPTIMIZER[type(optimizer)]
    try:
        state = content["optimizer"]["state"]
        fit = all(
            number in parameters
            and kept.keys() == set(names)
            and all(
                _is_kept(name, value, parameters[number].shape)
                if isinstance(value, Tensor)
                else value is None and name == "momentum_buffer"  # of SGD without momentum
                for name, value in kept.items()
            )
            for number, kept in state.items()
        )
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    return state if fit else None


def _is_kept(name: str, value: Tensor, shape: torch.Size) -> bool:
    """Whether an optimizer can have kept `value` under that name for a parameter of `shape`."""
    return (
        value.shape == (() if name == "step" else shape)
        and value.is_floating_point()
        and all_finite([value])
        and (name not in ("step", "exp_avg_sq") or bool((value >= 0).all()))
    )


def _restore(optimizer: Optimizer, state: dict[int, dict]) -> None:
    """Give `optimizer` what it keeps for each parameter back, and nothing else."""
    # Learning rate and decay come from the flags, which may not be those of the file.
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
