"""Progress of long work: a bar on a terminal, nothing but the log's plain lines elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress_bar(
    items: Iterable[Item],
    description: str,
    unit: str = "it",
    total: int | None = None,
    initial: int = 0,
    shown: bool = True,
) -> Iterator[Item]:
    """Iterate over `items` with a bar (rate and time left) on stderr if that is a terminal.

    Args:
        total: number of items; taken from `items` if it has a length.
        initial: how many of them were done before.
        shown: whether this process shows bars at all.
    """
    return iter(
        tqdm(
            items,
            desc=description,
            unit=unit,
            total=total,
            initial=initial,
            leave=False,
            disable=not (shown and sys.stderr.isatty()),
        )
    )


def format_seconds(seconds: float) -> str:
    """`seconds` as people read it: 8.1s, 3m 05s, 2h 07m."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"
