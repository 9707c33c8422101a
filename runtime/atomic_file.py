"""Files that are there whole or not at all, even after a kill or on a full disk."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole_file(
    path: Path, content: str | bytes | memoryview, previous: Path | None = None
) -> None:
    """Write `content` (text as UTF-8) beside `path`, sync it to disk, and rename it into place.

    Two processes may write the same path: the last one's file stays, whole.

    Args:
        previous: where the old content of `path` is kept; what was there is replaced.

    Raises:
        OSError: it cannot be written; names `path`, which is as it was.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")  # names of files need not be UTF-8
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with _naming(path):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if previous and path.exists():
                _keep(path, previous)
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
    _sync_folder(path.parent)


def write_json(path: Path, content: object, indent: int | None = 1) -> None:
    """Write `content` as JSON, as `write_whole_file` does; without an `indent` in one line."""
    write_whole_file(path, json.dumps(content, indent=indent) + "\n")


def append_line(path: Path, line: str) -> None:
    """Add `line` and a line break to the text file `path`, and sync it to disk.

    Raises:
        OSError: it cannot be written; names `path`. A part of the line may be there.
    """
    with _naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes have left half-written in `folder`."""
    for temporary in folder.glob("*.tmp"):
        with suppress(OSError):
            temporary.unlink()


def _keep(path: Path, previous: Path) -> None:
    """Give the file `path` its second name `previous`; `path` stays there all the while."""
    previous.unlink(missing_ok=True)
    try:
        os.link(path, previous)
    except OSError:  # not every file system has hard links
        os.replace(path, previous)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    # The error of a write itself names no file.
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
