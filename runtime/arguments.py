"""Command lines: a parser that ends mistakes in one line, and the types that check numbers."""

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the scripts."""


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, with defaults in the help, no abbreviated flags, and errors as `UserError`."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=_HelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


def file_name(text: str) -> str:
    """The name of a weights file for a run folder, as a type for argparse."""
    if not re.fullmatch(r"[\w-][\w.-]*\.(pt|pth)", text) or text.startswith(
        ("checkpoint.", "weight_set-")
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain name such as weights.pt")
    return text


def expanded_path(text: str) -> str:
    """A path, with the home folder for a leading `~` or `~user`, as a type for argparse.

    Shells do that themselves only where a word begins with it, unlike in `--data=~/images`.
    """
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise argparse.ArgumentTypeError(
            f"{text}: there is no such home folder; for a file of that name write ./{text}"
        )
    return path


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def positive_int(text: str) -> int:
    """A whole number from 1 to 2³¹ − 1, as a type for argparse."""
    return _below(2**31, _at_least(1, _number(int, text, "a whole number")))


def non_negative_int(text: str) -> int:
    """A whole number from 0 to 2³¹ − 1, as a type for argparse."""
    return _below(2**31, _at_least(0, _number(int, text, "a whole number")))


def seed_number(text: str) -> int:
    """A whole number from 0 to 2⁶³ − 1, as a type for argparse."""
    return _below(2**63, _at_least(0, _number(int, text, "a whole number")))


def non_negative_float(text: str) -> float:
    """A finite number of at least 0, as a type for argparse."""
    return _at_least(0, _number(float, text, "a number"))


def millions(text: str) -> float:
    """A number of millions from 0 to less than 10⁹, as a type for argparse."""
    return _below(10**9, non_negative_float(text))


def probability(text: str) -> float:
    """A number from 0 to less than 1, as a type for argparse."""
    return _below(1, non_negative_float(text))


def _number(kind: type, text: str, description: str) -> int | float:
    try:
        value = kind(text)
        if math.isfinite(value):
            return value
    except (OverflowError, ValueError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not {description}")


def _at_least(smallest: int, value: int | float) -> int | float:
    if value < smallest:
        raise argparse.ArgumentTypeError(f"{value} must be at least {smallest}")
    return value


def _below(limit: int, value: int | float) -> int | float:
    if value >= limit:
        raise argparse.ArgumentTypeError(f"{value} must be less than {limit}")
    return value


def as_typed(path: Path) -> str:
    """`path` as one would type it: from the current folder on, if it is in there."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def script_command(script: str) -> list[str]:
    """How to start a script of this project with this Python, from the current folder."""
    return [as_typed(Path(sys.executable)), as_typed(ROOT / script)]


def add_precision_argument(parser: ArgumentParser, default: str = "auto") -> None:
    """Add `--precision`, what networks compute in."""
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default=default,
        help="auto: bf16 where the GPU has it; fp32: all digits, no TF32",
    )


def add_tensorboard_argument(parser: ArgumentParser) -> None:
    """Add `--tensorboard`, which is on unless turned off."""
    parser.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="log scalars for TensorBoard into the run folder",
    )
