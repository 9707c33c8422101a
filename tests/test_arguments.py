"""Numbers on the command line: what is taken, and what is refused in one line with the flag."""

import pytest

from runtime.arguments import (
    ArgumentParser,
    non_negative_float,
    non_negative_int,
    positive_int,
    probability,
    seed_number,
)
from runtime.errors import UserError


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive_int, "1", 1),
        (non_negative_int, "0", 0),
        (non_negative_float, "0", 0.0),
        (non_negative_float, "1e-3", 0.001),
        (probability, "0.999", 0.999),
    ],
)
def test_a_number_in_its_range_is_taken(kind, text, value):
    parser = ArgumentParser(None)
    parser.add_argument("--number", type=kind)
    assert parser.parse_args(["--number", text]).number == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (positive_int, "0"),
        (positive_int, "2147483648"),
        (positive_int, "9" * 400),
        (positive_int, "9" * 5000),
        (seed_number, "9223372036854775808"),
        (positive_int, "1.5"),
        (positive_int, "many"),
        (non_negative_int, "-1"),
        (non_negative_float, "-0.1"),
        (non_negative_float, "nan"),
        (non_negative_float, "inf"),
        (probability, "1"),
    ],
)
def test_a_number_out_of_its_range_is_refused(kind, text):
    parser = ArgumentParser(None)
    parser.add_argument("--number", type=kind)
    with pytest.raises(UserError, match=r"^--number: .*--help\)$"):
        parser.parse_args([f"--number={text}"])


def test_an_unknown_flag_is_named():
    with pytest.raises(UserError, match="--layer 3"):
        parser = ArgumentParser(None)
        parser.add_argument("--layers")
        parser.parse_args(["--layer", "3"])
