"""Values from files that somebody else may have written: read and checked, never evaluated."""

import json
import math
from pathlib import Path

MAX_JSON_BYTES = 1 << 20
"""Far more than settings, statistics or a genotype need."""


def load_json(path: str | Path) -> object:
    """What a small JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or too large for what it should be; one line.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"larger than {MAX_JSON_BYTES >> 20} MiB")
    return parse_json(content)


def parse_json(content: bytes) -> object:
    """What a JSON text holds.

    Raises:
        ValueError: it is no JSON; one line.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def is_whole_number(value: object, smallest: int, largest: int) -> bool:
    """Whether `value` is an int, no bool, from `smallest` to `largest`."""
    return type(value) is int and smallest <= value <= largest


def is_number(value: object) -> bool:
    """Whether `value` is an int or a float, no bool, that a float can hold and that is finite."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False
