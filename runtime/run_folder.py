"""The folder of a run: made once, never overwritten, locked while the run goes on."""

import fcntl
import json
import logging
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from runtime.atomic_file import append_line, remove_leftovers, write_json
from runtime.errors import UserError
from runtime.settings import SETTINGS_FILE, read_settings
from runtime.untrusted import MAX_JSON_BYTES, parse_json

HISTORY_FILE = "history.jsonl"
LOG_FILE = "log.txt"
LOCK_FILE = "lock"

FOLDER_FILES = (SETTINGS_FILE, HISTORY_FILE, LOG_FILE, LOCK_FILE)
"""What every run folder has."""

START_FILES = (*FOLDER_FILES, "genotype.json", "statistics.json", "manifest.json")
"""What may be in it before the first step."""


class RunFolder:
    """A run's folder with its settings, log and history.

    Use `create` for a new run and `reopen` to resume one.

    Attributes:
        path: the folder.
        may_be_discarded: whether this process has made it, for a run that has not begun yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.may_be_discarded = False
        self.log = logging.getLogger("relativenas")
        try:
            self._lock: int | None = self._acquire_lock()
            remove_leftovers(path)
            self._start_log()
        except OSError as error:
            where = error.filename or path
            raise UserError(f"{where}: cannot be used for a run ({error.strerror})") from None

    @classmethod
    def for_run(cls, kind: str, args: Namespace) -> "RunFolder":
        """The folder that `--resume` names, or a new one as `--save` says.

        Raises:
            UserError: as `create` and `reopen`.
        """
        if args.resume:
            return cls.reopen(args.resume)
        return cls.create(kind, args.save, {"script": Path(sys.argv[0]).name, **vars(args)})

    @classmethod
    def create(cls, kind: str, save: str, settings: dict) -> "RunFolder":
        """Make `<kind>-<save>-<date>-<time>`; `save` may begin with a path.

        Raises:
            UserError: the folder cannot be made.
        """
        parent, name = os.path.split(save)
        stem = "-".join(filter(None, [kind, name, time.strftime("%Y%m%d-%H%M%S")]))
        try:
            Path(parent).mkdir(parents=True, exist_ok=True)
            path = _make_new(Path(parent) / stem)
            write_json(path / SETTINGS_FILE, settings)
        except OSError as error:
            raise UserError(
                f"--save {save}: cannot make a run folder there ({error.strerror}); choose a place "
                "that you may write to"
            ) from None
        run = cls(path)
        run.may_be_discarded = True
        return run

    @classmethod
    def reopen(cls, path: str) -> "RunFolder":
        """Go on in the folder of an interrupted run.

        Raises:
            UserError: it is not a run folder, or another process is running in it.
        """
        read_settings(path)
        return cls(Path(path))

    def append_history(self, record: dict) -> None:
        """Add a line to history.jsonl.

        Raises:
            OSError: it cannot be written.
        """
        append_line(self.path / HISTORY_FILE, json.dumps(record))

    def truncate_history(
        self, length: int, is_expected: Callable[[int, dict], bool] = lambda *_: True
    ) -> list[dict]:
        """Drop what was written after the checkpoint that counted `length` lines; returns those.

        Args:
            is_expected: whether a record, given its number from 0, can be one of this run.

        Raises:
            UserError: the history is damaged or has fewer lines; names the line. It stays as it is.
        """
        path = self.path / HISTORY_FILE
        records = []
        try:
            with open(path, "ab+") as file:
                file.seek(0)
                for number in range(length):
                    record = parse_json(file.readline(MAX_JSON_BYTES))
                    if not isinstance(record, dict) or not is_expected(number, record):
                        raise ValueError("not what this run has written")
                    records.append(record)
                file.truncate(file.tell())
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise UserError(f"{path}: line {len(records) + 1} is damaged ({error})") from None
        return records

    def close(self) -> None:
        """Let go of the folder, if that is not done; the end of the process does so too."""
        self._close_log()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Close, and remove the folder if the run could not begin and it has nothing else in it."""
        self.close()
        with suppress(OSError):  # it is not worth another error
            names = os.listdir(self.path)
            if self.may_be_discarded and set(names) <= set(START_FILES):
                for name in names:
                    (self.path / name).unlink()
                self.path.rmdir()

    def _acquire_lock(self) -> int:
        # The system releases the lock when the process ends, however it ends. It is not flock's,
        # which would hold on as long as a loader's forked process outlives a killed one.
        lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(lock)
            raise UserError(f"{self.path}: another process is running in this folder") from None
        return lock

    def _start_log(self) -> None:
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        self._close_log()
        formatter = logging.Formatter("%(asctime)s %(message)s", "%m/%d %H:%M:%S")
        for handler in (
            _ConsoleHandler(),
            _FileHandler(self.path / LOG_FILE, encoding="utf-8", errors="backslashreplace"),
        ):
            handler.setFormatter(formatter)
            self.log.addHandler(handler)

    def _close_log(self) -> None:
        for handler in self.log.handlers[:]:
            with suppress(OSError):  # what is left to be written may find no room
                handler.close()
            self.log.removeHandler(handler)


class _ConsoleHandler(logging.Handler):
    """Prints above a progress bar, if there is one; warnings go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            tqdm.write(self.format(record), file=stream)
            stream.flush()
        except OSError:
            # Nobody reads on, as after Ctrl-C on `train.py | tee`. The run goes on.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


class _FileHandler(logging.FileHandler):
    """Warns once when the file cannot be written: a run need not end for its log."""

    warned = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.warned:
            self.warned = True
            print(
                f"warning: {self.baseFilename}: {error.strerror}; lines may be missing from it",
                file=sys.stderr,
            )


def _make_new(path: Path) -> Path:
    """Make the folder `path`, or `path-2`, `path-3`, ... if it is there already."""
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
