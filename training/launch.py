"""The flags that training scripts share, and how their work is started."""

import sys
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Callable
from pathlib import Path

import torch

from genotypes import GENOTYPE_FILE, Genotype, load_genotype, resolve_genotype
from report.run import Run
from runtime.arguments import (
    ArgumentParser,
    add_precision_argument,
    add_tensorboard_argument,
    expanded_path,
    non_negative_float,
    positive_int,
    probability,
    seed_number,
)
from runtime.errors import UserError
from runtime.out_of_memory import memory_advice
from runtime.processes import LOST_IN_TEST, Processes, gpu_list, launch, launched, own_device
from runtime.run_folder import RunFolder
from runtime.session import run_session
from runtime.settings import parse_with_resume

CHANGEABLE_ON_RESUME = (
    "data", "data_path", "data_device", "gpus", "report_freq", "tensorboard", "workers"
)  # fmt: skip


def add_training_arguments(parser: ArgumentParser, **defaults: object) -> None:
    """Add the flags that all training scripts have; `defaults` are the recipe's numbers."""
    add = parser.add_argument
    add(
        "--arch",
        type=expanded_path,
        default="RelativeNAS",
        help="a genotype: its name, file, run folder, or itself",
    )
    add("--init_channels", type=positive_int, help="channels of the first cells")
    add("--layers", type=positive_int, help="number of cells")
    add("--epochs", type=positive_int, help="epochs to train")
    add("--batch_size", type=positive_int, help="of all processes together")
    add("--learning_rate", type=non_negative_float, help="where it is highest")
    add("--weight_decay", type=non_negative_float, help="of the optimizer")
    add(
        "--grad_clip",
        type=non_negative_float,
        default=5.0,
        help="largest norm of the gradient; 0: any",
    )
    add("--seed", type=seed_number, default=0, help="of all random numbers")
    add("--gpus", type=gpu_list, metavar="0,1,...", help="GPUs, one process each (default 0)")
    add_precision_argument(parser)
    add("--report_freq", type=positive_int, default=50, help="log every so many training steps")
    add_tensorboard_argument(parser)
    add(
        "--save",
        type=expanded_path,
        default="runs/EXP",
        help="PATH/NAME: the run folder is PATH/train-NAME-...",
    )
    add(
        "--resume",
        type=expanded_path,
        metavar="DIR",
        help="go on with the training in this run folder",
    )
    parser.set_defaults(**defaults)


def add_classification_arguments(parser: ArgumentParser) -> None:
    """Add the flags that train.py and train_imagenet.py have beside those of all."""
    add = parser.add_argument
    add("--auxiliary", action=BooleanOptionalAction, default=True, help="use the auxiliary head")
    add(
        "--auxiliary_weight",
        type=non_negative_float,
        default=0.4,
        help="of the auxiliary head's loss",
    )
    add("--drop_path_prob", type=probability, help="what it rises towards, from 0")
    add_momentum_argument(parser)


def add_momentum_argument(parser: ArgumentParser) -> None:
    """Add `--momentum`, for those who train with SGD."""
    parser.add_argument("--momentum", type=non_negative_float, default=0.9, help="of SGD")


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


def run_test(
    args: Namespace, test: Callable[[Namespace, Processes], None], memory_flags: str
) -> None:
    """Call `test` in each process.

    Args:
        memory_flags: what to lower when memory runs out, as advice to the user.

    Raises:
        UserError: `test` raises one, or another process has ended.
    """
    launch_if_several_gpus(args)
    processes = Processes(own_device(args.gpus))
    with memory_advice(memory_flags):
        try:
            test(args, processes)
            processes.close()
        except RuntimeError as error:
            if not processes.has_lost(error):
                raise
            # The process that ended has said why; this one only has to get out of its way.
            raise UserError(LOST_IN_TEST) from None


def run_training(
    args: Namespace, train: Callable[[Namespace, Run], None], memory_flags: str
) -> None:
    """Call `train` in each process with the run; its folder keeps the genotype.

    Args:
        memory_flags: what to lower when memory runs out, as advice to the user.
    """
    launch_if_several_gpus(args)

    def train_with_kept_genotype(folder: RunFolder | None, processes: Processes) -> None:
        run = Run(folder, processes, args.tensorboard)
        if folder and not (folder.path / GENOTYPE_FILE).exists():
            run.write_json(GENOTYPE_FILE, run_genotype(args)._asdict())
        train(args, run)

    run_session("train", args, own_device(args.gpus), train_with_kept_genotype, memory_flags)
