"""Values from files that somebody else may have written: read and checked, never evaluated."""

import json
import math
from pathlib import Path

MAX_JSON_BYTES = 1 << 20
"""Far more than settings, statistics or a genotype need."""


def load_json(path: str | Path, max_bytes: int = MAX_JSON_BYTES) -> object:
    """What a JSON file of at most `max_bytes` holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or too large for what it should be; one line.
    """
    return parse_json(read_small_file(path, max_bytes))


def read_small_file(path: str | Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """The content of a file of at most `max_bytes`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger.
    """
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes >> 20} MiB")
    return content


def decode_text(content: bytes) -> str:
    """A text in UTF-8, -16 or -32, without the byte-order mark that some editors begin it with.

    Raises:
        ValueError: it is none; one line.
    """
    return content.decode(json.detect_encoding(content))


def parse_json(content: bytes | str) -> object:
    """What a JSON text holds.

    Raises:
        ValueError: it is no JSON, or has a key twice; one line.
    """
    try:
        text = content if isinstance(content, str) else decode_text(content)
        return json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _without_repetition(pairs: list[tuple[str, object]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated[:40]!r} is in it twice")
    return content


def is_whole_number(value: object, smallest: int, largest: int) -> bool:
    """Whether `value` is an int, no bool, from `smallest` to `largest`."""
    return type(value) is int and smallest <= value <= largest


def is_number(value: object) -> bool:
    """Whether `value` is an int or a float, no bool, that a float can hold and that is finite."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False
