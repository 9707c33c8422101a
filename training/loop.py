"""What train.py and train_imagenet.py share: training a network from scratch, and its evaluation.

A script's `main` calls `run_training`, which opens the run (session.py) and calls the script's own
function in each process; that one loads the images, says how the learning rate moves, and calls
`fit`.
"""

import logging
import math
import sys
import time
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genotypes import Genotype, load_genotype, resolve_genotype, save_genotype
from report.history import CONFUSION_FILE, GENOTYPE_FILE, EpochRecord
from report.live import LiveReport
from runtime.arguments import (
    ArgumentParser,
    non_negative_float,
    positive_int,
    probability,
    seed_number,
)
from runtime.atomic_file import write_json
from runtime.checkpoint import (
    check_weights,
    load_newest_checkpoint,
    published_state_dict,
    save_checkpoint,
)
from runtime.errors import UserError
from runtime.interruption import Interrupted
from runtime.processes import Processes, gpu_list, launch, launched, own_device
from runtime.progress import format_seconds, progress_bar
from runtime.run_folder import RunFolder
from runtime.scalar_log import ScalarLog, add_tensorboard_argument
from runtime.session import run_session
from runtime.settings import parse_with_resume
from runtime.untrusted import is_number, is_whole_number
from speed.memory import keep_freed_memory
from training.trained_network import build_network
from utils import Meter, all_finite, autocast, choose_precision, clip_gradients, derive_seed

Batches = Iterable[tuple[Tensor, Tensor]]

CHANGEABLE_ON_RESUME = (
    "data", "data_path", "data_device", "gpus", "report_freq", "tensorboard", "workers"
)  # fmt: skip


LARGEST_CONFUSION = 200
"""Of more classes no confusion matrix is kept."""


@dataclass(frozen=True)
class Data:
    """The images of a training, as this process gets them.

    Attributes:
        training_batches: for an epoch (from 0), this process's batches from a step (from 0) on:
            float images (n, 3, H, W) and int64 labels (n,), on its device.
        validation_batches: this process's part of the validation images, in batches.
        steps: number of training batches of an epoch.
    """

    training_batches: Callable[[int, int], Batches]
    validation_batches: Callable[[], Batches]
    steps: int


def add_training_arguments(parser: ArgumentParser, **defaults: object) -> None:
    """Add the flags that both training scripts have; `defaults` are the recipe's numbers."""
    add = parser.add_argument
    add("--arch", default="RelativeNAS", help="name of a genotype, or a genotype file")
    add("--init_channels", type=positive_int, help="channels of the first cells")
    add("--layers", type=positive_int, help="number of cells")
    add("--auxiliary", action=BooleanOptionalAction, default=True, help="use the auxiliary head")
    add(
        "--auxiliary_weight",
        type=non_negative_float,
        default=0.4,
        help="of the auxiliary head's loss",
    )
    add("--drop_path_prob", type=probability, help="where its rise from 0 ends")
    add("--epochs", type=positive_int, help="epochs to train")
    add("--batch_size", type=positive_int, help="of all processes together")
    add("--learning_rate", type=non_negative_float, help="where it is highest")
    add("--momentum", type=non_negative_float, default=0.9, help="of SGD")
    add("--weight_decay", type=non_negative_float, help="of SGD")
    add(
        "--grad_clip",
        type=non_negative_float,
        default=5.0,
        help="largest norm of the gradient; 0: any",
    )
    add("--seed", type=seed_number, default=0, help="of all random numbers")
    add("--gpus", type=gpu_list, metavar="0,1,...", help="GPUs, one process each (default 0)")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto: bf16 on GPUs")
    add("--report_freq", type=positive_int, default=50, help="log every so many training steps")
    add_tensorboard_argument(parser)
    add("--save", default="runs/EXP", help="PATH/NAME: the run folder is PATH/train-NAME-...")
    add("--resume", metavar="DIR", help="go on with the training in this run folder")
    parser.set_defaults(**defaults)


def parse_training_arguments(parser: ArgumentParser, argv: list[str] | None) -> Namespace:
    """Parse and check a training script's arguments.

    Raises:
        UserError: an argument is wrong, or `--arch` is not a genotype.
    """
    args = parse_with_resume(parser, argv, CHANGEABLE_ON_RESUME)
    run_genotype(args)
    return args


def run_genotype(args: Namespace) -> Genotype:
    """The genotype of `--arch`, or the one that the run folder of `--resume` has kept.

    Raises:
        UserError: neither a known name nor a readable genotype file.
    """
    if args.resume and (kept := Path(args.resume) / GENOTYPE_FILE).exists():
        return load_genotype(kept)
    return resolve_genotype(args.arch)


def launch_if_several_gpus(args: Namespace) -> None:
    """With `--gpus 0,1,...` start a process for each GPU, and exit when they are done."""
    if args.gpus is None or launched():
        return
    if not torch.cuda.is_available():
        print("warning: --gpus: PyTorch sees no CUDA GPU here; using the CPU", file=sys.stderr)
    elif len(args.gpus) > 1:
        launch(len(args.gpus))
        raise SystemExit(0)


def run_training(
    args: Namespace, train: Callable[[Namespace, RunFolder | None, Processes], None]
) -> None:
    """Call `train` in each process, in the main one with the run folder."""
    keep_freed_memory()
    launch_if_several_gpus(args)

    def train_with_kept_genotype(
        args: Namespace, run: RunFolder | None, processes: Processes
    ) -> None:
        if run and not (run.path / GENOTYPE_FILE).exists():
            save_genotype(run_genotype(args), run.path / GENOTYPE_FILE)
        train(args, run, processes)

    run_session("train", args, own_device(args.gpus), train_with_kept_genotype)


def fit(
    args: Namespace,
    run: RunFolder | None,
    processes: Processes,
    description: dict,
    data: Data,
    learning_rate: Callable[[int], float],
    label_smoothing: float = 0.0,
    class_names: Sequence[str] = (),
) -> None:
    """Train the network of `description` from scratch, or from `--resume`.

    Writes `last.pt` and `best.pt` after each epoch, `last.pt` also when it is interrupted in one.
    Both hold the weights under `state_dict`, in the published format, and `description`; `last.pt`
    also what resuming needs. Neither is ever written with weights that are not finite, or after an
    epoch whose validation loss is not. The report is kept up to date.

    Args:
        run: the run folder; None in all processes but the main one.
        description: of the network, by `describe_network`, and what a test script needs
            beside.
        learning_rate: of an epoch, from 0.
        label_smoothing: of both heads' cross-entropy in training.
        class_names: if given, the best checkpoint's confusion matrix is kept, for the report.

    Raises:
        UserError: there are too few images for the processes, or a loss or a weight became infinite
            or NaN; names the step, the learning rate and the last good checkpoint.
        Interrupted: a signal asked to stop; what is done of the epoch is saved.
    """
    if not data.steps or args.batch_size < 2 * processes.size:
        raise UserError(
            f"--batch_size {args.batch_size}: batch norm needs two images or more for each process "
            f"({processes.size}) in a batch; use a larger batch, more images or fewer processes"
        )
    torch.manual_seed(args.seed)
    network = build_network(description)
    network.to(processes.device, memory_format=torch.channels_last)
    last_checkpoint = (run.path if run else Path()) / "last.pt"
    trainer = Trainer(args, processes, network, data, label_smoothing)
    log = logging.getLogger("relativenas")
    best_top1 = -math.inf
    first_epoch = 0
    so_far = EpochSoFar(processes.device)
    if args.resume:
        own = _load_last(last_checkpoint, network, args.epochs, data.steps) if run else None
        if state := processes.broadcast(own):
            network.load_state_dict(state["state_dict"])  # `_load_last` has compared the names
            _restore_momentum(trainer.optimizer, state["momentum"])
            first_epoch, best_top1 = state["epoch"], state["best_top1"]
            if state["epoch_so_far"]:
                so_far.load_state_dict(state["epoch_so_far"], processes)
            place = f"after epoch {first_epoch} and {so_far.step} steps of the next"
            trainer.kept = f"the last good checkpoint is {last_checkpoint}, {place}"
        if run:
            run.truncate_history(first_epoch)
        log.info("resumed after epoch %d and %d steps of the next", first_epoch, so_far.step)
    scalars = ScalarLog(run, args.tensorboard)
    scalars.open(first_epoch)
    report = LiveReport(run)
    confusion = None
    if 0 < len(class_names) <= LARGEST_CONFUSION:
        shape = (len(class_names), len(class_names))
        confusion = torch.zeros(shape, dtype=torch.int64, device=processes.device)

    def resume_state(epochs_done: int) -> dict:
        return {
            **description,
            "state_dict": network.state_dict(),
            "epoch": epochs_done,
            "optimizer": trainer.optimizer.state_dict(),
            "best_top1": best_top1,
        }

    processes.interruption.defer()
    for epoch in range(first_epoch, args.epochs):
        started = time.monotonic() - so_far.seconds
        network.drop_path_prob = args.drop_path_prob * epoch / args.epochs
        try:
            train = trainer.train_epoch(epoch, learning_rate(epoch), so_far)
            validation = evaluate(
                network, data.validation_batches(), processes, trainer.precision, confusion
            )
        except Interrupted as stop:
            stop.place = f" after step {so_far.step}/{data.steps} of epoch {epoch + 1}"
            trainer.check_weights(stop.place.strip(), learning_rate(epoch))
            so_far.seconds = time.monotonic() - started
            state = {"epoch_so_far": so_far.state_dict(processes)}
            if run:
                state |= resume_state(epoch)
                save_checkpoint(state, last_checkpoint, keep_previous=True)
            raise
        trainer.check_result(validation["loss"], epoch, learning_rate(epoch))
        so_far = EpochSoFar(processes.device)
        trainer.kept = f"the last good checkpoint is {last_checkpoint}, of epoch {epoch + 1}"
        if not run:
            continue
        seconds = time.monotonic() - started
        best_top1, is_best = max(best_top1, validation["top1"]), validation["top1"] > best_top1
        log.info(
            "epoch %d/%d: training loss %.4f, top-1 %.2f %%; validation loss %.4f, top-1 %.2f %%, "
            "best %.2f %%; %s, %s left",
            epoch + 1, args.epochs, train["loss"], train["top1"], validation["loss"],
            validation["top1"], best_top1, format_seconds(seconds),
            format_seconds((args.epochs - epoch - 1) * seconds),
        )  # fmt: skip
        record = {
            "epoch": epoch,
            "learning_rate": learning_rate(epoch),
            "train": train,
            "validation": validation,
            "seconds": seconds,
        }
        run.append_history(record)
        scalars.write(epoch + 1, EpochRecord.from_record(record).scalars())
        last = {**resume_state(epoch + 1), "top1": validation["top1"]}
        if is_best:
            best = {name: last[name] for name in last if name not in ("optimizer", "best_top1")}
            save_checkpoint(best, run.path / "best.pt")
            if confusion is not None:
                save_confusion(confusion, class_names, epoch + 1, run.path / CONFUSION_FILE)
        save_checkpoint(last, last_checkpoint, keep_previous=True)
        report.refresh()
    scalars.close()
    report.finish()


class FirstNonFinite:
    """Remembers the first step whose number was NaN or infinite, without waiting for the device.

    Args:
        device: where the numbers are.
        steps: number of steps before the first that it sees.
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
        if len(sums) == processes.size:
            self.meter.sums.copy_(sums[processes.rank])
        elif processes.is_main:
            self.meter.sums.copy_(sums.sum(dim=0))


class Trainer:
    """Trains a network for an epoch at a time.

    Args:
        network: on this process's device.
        label_smoothing: of both heads' cross-entropy in training.
    """

    def __init__(
        self,
        args: Namespace,
        processes: Processes,
        network: nn.Module,
        data: Data,
        label_smoothing: float,
    ) -> None:
        self.args = args
        self.processes = processes
        self.data = data
        self.label_smoothing = label_smoothing
        self.kept = "there is no good checkpoint yet"  # for the user who has to go back to it
        self.precision = choose_precision(args.precision, processes.device)
        self.network: nn.Module = network
        if processes.size > 1:
            # Static, because a genotype may leave parts of the network unused.
            self.network = DistributedDataParallel(network, static_graph=True)
        self.optimizer = torch.optim.SGD(
            network.parameters(),
            args.learning_rate,
            args.momentum,
            weight_decay=args.weight_decay,
        )
        self.log = logging.getLogger("relativenas")

    def train_epoch(self, epoch: int, learning_rate: float, so_far: EpochSoFar) -> dict[str, float]:
        """Train for the rest of an epoch; returns the `Meter`'s result over all processes.

        Args:
            so_far: what is done of it; kept up to date.

        Raises:
            Interrupted: a signal asked to stop; all processes are at the same step.
            UserError: a loss is infinite or NaN; names the step, the learning rate and the last
                good checkpoint.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.network.train()
        meter = so_far.meter
        losses = FirstNonFinite(self.processes.device, so_far.step)
        name = f"epoch {epoch + 1}/{self.args.epochs}"
        batches = progress_bar(
            self.data.training_batches(epoch, so_far.step), name, "step", self.data.steps,
            so_far.step, shown=self.processes.is_main,
        )  # fmt: skip
        for step, (images, labels) in enumerate(batches, start=so_far.step + 1):
            # Of drop path. By step, so that an epoch can be taken up again anywhere.
            torch.manual_seed(derive_seed(self.args.seed, epoch, self.processes.rank, step))
            total, loss, logits = self._step(images, labels)
            losses.update(total)
            meter.update(loss, logits, labels)
            so_far.step = step
            if step % self.args.report_freq == 0:
                self._check_losses(losses, epoch, learning_rate)
                result = meter.result()
                self.log.info(
                    "%s step %d/%d: loss %.4f, top-1 %.2f %%",
                    name, step, self.data.steps, result["loss"], result["top1"],
                )  # fmt: skip
            self.processes.check_interruption()
        self._check_losses(losses, epoch, learning_rate)
        return _result_of_all(meter, self.processes)

    def check_result(self, validation_loss: float, epoch: int, learning_rate: float) -> None:
        """Refuse to go on from an epoch that left weights which must not be saved.

        Raises:
            UserError: the validation loss or a weight is infinite or NaN.
        """
        after = f"after the last step of epoch {epoch + 1}"
        if not math.isfinite(validation_loss):
            self._stop(f"the validation loss is {validation_loss} {after}", learning_rate)
        self.check_weights(after, learning_rate)

    def check_weights(self, after: str, learning_rate: float) -> None:
        """Refuse to save weights that are not finite.

        Raises:
            UserError: one is infinite or NaN.
        """
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
        self.optimizer.zero_grad()
        total.backward()
        clip_gradients(self.network.parameters(), self.args.grad_clip)
        self.optimizer.step()
        return total.detach(), loss.detach(), logits.detach()

    def _check_losses(self, losses: FirstNonFinite, epoch: int, learning_rate: float) -> None:
        # The first step of all processes: the others' losses follow it a step later.
        step = min(filter(None, self.processes.gather(losses.step())), default=None)
        if step is not None:
            what = f"the training loss is infinite or NaN in step {step} of epoch {epoch + 1}"
            self._stop(what, learning_rate)

    def _stop(self, what: str, learning_rate: float) -> NoReturn:
        raise UserError(
            f"{what}, at learning rate {learning_rate:g}; {self.kept}; train again with a lower "
            "--learning_rate or --grad_clip"
        )


def evaluate(
    network: nn.Module,
    batches: Batches,
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


def save_confusion(counts: Tensor, class_names: Sequence[str], epoch: int, path: Path) -> None:
    """Write what `evaluate` counted, with the classes' names and the epoch (from 1), as JSON."""
    content = {"epoch": epoch, "classes": list(class_names), "counts": counts.tolist()}
    write_json(path, content, indent=None)


def _load_last(path: Path, network: nn.Module, epochs: int, steps: int) -> dict | None:
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
    state = {number: {"momentum_buffer": buffer} for number, buffer in momentum.items()}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
