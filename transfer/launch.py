"""The flags that the transfer tasks' scripts share, and the weights that training begins with."""

import logging
import os
from argparse import ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from runtime.arguments import (
    ArgumentParser,
    add_precision_argument,
    expanded_path,
    non_negative_int,
    positive_int,
)
from runtime.checkpoint import (
    check_weights,
    checkpoint_files,
    load_checkpoint,
    published_state_dict,
)
from runtime.errors import UserError
from runtime.processes import gpu_list
from training.launch import add_training_arguments, parse_training_arguments
from training.state import LAST_CHECKPOINT

MADE = "made"
"""The set that is made and not read, in each task's `--set`."""

MOST_PICTURES = 100
"""In one picture of several, that reports can still show."""

LEFT_OUT = ("classifier.", "auxiliary_head.")
"""What the names of weights begin with that a backbone has not."""


def add_transfer_arguments(parser: ArgumentParser, sets: Sequence[str], **defaults: object) -> None:
    """Add the flags of a transfer task's training script.

    Args:
        sets: kinds of data, `MADE` among them; the first is the default.
        defaults: the recipe's numbers.
    """
    add = parser.add_argument
    _add_data_arguments(parser, sets)
    add(
        "--model_path",
        type=expanded_path,
        help="checkpoint of a network for ImageNet, ours or published: what the backbone begins "
        "with (default: new weights)",
    )
    add(
        "--as_published",
        action=BooleanOptionalAction,
        default=False,
        help="do as the original's code where it has mistakes (docs/transfer.md)",
    )
    add(
        "--pictures",
        type=picture_count,
        default=0,
        help="validation images to draw with what the best checkpoint finds, for the report",
    )
    add_training_arguments(parser, init_channels=46, layers=14, grad_clip=0.0, **defaults)


def add_test_arguments(parser: ArgumentParser, sets: Sequence[str], batch_size: int | None) -> None:
    """Add the flags of a transfer task's test script.

    Args:
        sets: as in `add_transfer_arguments`.
        batch_size: the default; None: images are tested one at a time, without such a flag.
    """
    add = parser.add_argument
    add(
        "--model_path",
        type=expanded_path,
        required=True,
        help="checkpoint: our own, or a state dict of the original's repository",
    )
    _add_data_arguments(parser, sets)
    if batch_size is not None:
        add("--batch_size", type=positive_int, default=batch_size, help="of all processes together")
    add("--gpus", type=gpu_list, metavar="0,1,...", help="GPUs, one process each (default 0)")
    add_precision_argument(parser, default="fp32")
    add(
        "-o",
        "--output",
        type=expanded_path,
        metavar="DIR",
        help="folder for what is found, one that is not there yet",
    )
    add(
        "--pictures",
        type=picture_count,
        default=0,
        help="images to draw with what is found, into --output",
    )
    group = parser.add_argument_group("for a state dict that does not describe its network")
    group.add_argument(
        "--arch",
        type=expanded_path,
        help="a genotype: its name, file, run folder, or itself (default RelativeNAS)",
    )
    group.add_argument(
        "--init_channels", type=positive_int, help="channels of the first cells (default: 46)"
    )
    group.add_argument("--layers", type=positive_int, help="number of cells (default: 14)")


def _add_data_arguments(parser: ArgumentParser, sets: Sequence[str]) -> None:
    add = parser.add_argument
    add("--set", choices=sets, default=sets[0], help="what --data holds; made: needs no data")
    add("--data", type=expanded_path, default="./data", help="folder of the data")
    add(
        "--workers",
        type=non_negative_int,
        help="decoding processes for each GPU (default: its share of the CPU cores)",
    )


def picture_count(text: str) -> int:
    """A whole number from 0 to `MOST_PICTURES`, as a type for argparse."""
    count = non_negative_int(text)
    if count > MOST_PICTURES:
        raise ArgumentTypeError(f"{count} must be at most {MOST_PICTURES}")
    return count


def parse_transfer_arguments(parser: ArgumentParser, argv: list[str] | None) -> Namespace:
    """Parse a training script's arguments; paths to go on with from another folder are absolute.

    Raises:
        UserError: as `parse_training_arguments`.
    """
    args = parse_training_arguments(parser, argv)
    args.data = os.path.abspath(args.data)
    args.model_path = args.model_path and os.path.abspath(args.model_path)
    return args


def check_output(args: Namespace) -> None:
    """Refuse a folder for results that is there already, or that cannot be made later on.

    Raises:
        UserError: names the flag.
    """
    if args.output is None:
        if args.pictures:
            raise UserError("--pictures: give --output, the folder that they are to be written to")
        return
    if not args.output:
        raise UserError("-o: is empty; give the name of a folder")
    if os.path.lexists(args.output):
        raise UserError(f"-o {args.output}: is there already; choose another name or remove it")
    parent = Path(args.output).absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(
            f"-o {args.output}: cannot be made there; choose another place or make its parent"
        )


@contextmanager
def output_folder(args: Namespace) -> Iterator[Path]:
    """The folder of `--output`, made anew, for as long as results are written into it.

    Raises:
        UserError: it cannot be made, or what is to be in it cannot be written.
    """
    folder = Path(args.output)
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        raise UserError(
            f"-o {args.output}: cannot be written ({error.strerror or error}); make room, or "
            "choose another place"
        ) from None


def begin_with_imagenet(backbone: nn.Module, args: Namespace) -> None:
    """Give a backbone the weights of `--model_path`, and say where its weights come from.

    A training that goes on from a checkpoint needs none.

    Args:
        backbone: a network for ImageNet less its head, such as `Backbone.network`.

    Raises:
        UserError: the file cannot be read or is of another network; names what differs.
    """
    if args.resume:
        newest, previous, _ = checkpoint_files(Path(args.resume) / LAST_CHECKPOINT)
        if newest.exists() or previous.exists():
            return
    log = logging.getLogger("relativenas")
    if args.model_path is None:
        log.info("the backbone's weights are new; --model_path gives it those of ImageNet")
        return
    state = published_state_dict(load_checkpoint(args.model_path), args.model_path)
    state = {name: value for name, value in state.items() if not name.startswith(LEFT_OUT)}
    check_weights(backbone.state_dict(), state, args.model_path)
    backbone.load_state_dict(state)
    log.info("the backbone's weights are those of %s", args.model_path)
