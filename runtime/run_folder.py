"""The folder of a run: made once, never overwritten, locked while the run goes on."""

import fcntl
import json
import logging
import os
import sys
import time
from argparse import Action, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from runtime.arguments import ArgumentParser
from runtime.atomic_file import append_line, remove_leftovers, write_json
from runtime.errors import UserError
from runtime.untrusted import MAX_JSON_BYTES, load_json, parse_json

SETTINGS_FILE = "settings.json"
HISTORY_FILE = "history.jsonl"
LOG_FILE = "log.txt"
LOCK_FILE = "lock"

FOLDER_FILES = (SETTINGS_FILE, HISTORY_FILE, LOG_FILE, LOCK_FILE)
"""What every run folder has."""


class RunFolder:
    """A run's folder with its settings, log and history.

    Use `create` for a new run and `reopen` to resume one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = logging.getLogger("relativenas")
        try:
            self._lock = self._acquire_lock()
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
        return cls(path)

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
        """Let go of the folder; the end of the process does so too."""
        self._close_log()
        os.close(self._lock)

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
        for handler in (_ConsoleHandler(), _FileHandler(self.path / LOG_FILE)):
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


def read_settings(path: str) -> dict:
    """The settings of the run in the folder `path`.

    Raises:
        UserError: it is not a run folder.
    """
    try:
        settings = load_json(Path(path) / SETTINGS_FILE)
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict) or not isinstance(settings.get("script", ""), str):
        raise UserError(f"{path}: not a run folder (no readable {SETTINGS_FILE} in it)")
    return settings


def parse_with_resume(
    parser: ArgumentParser, argv: list[str] | None, changeable: tuple[str, ...]
) -> Namespace:
    """Parse arguments; with `--resume DIR` the run's own settings replace the defaults.

    Args:
        changeable: flags that may differ from the interrupted run's, beside `--resume` itself.

    Raises:
        UserError: `DIR` is not a run folder of this script, or another flag differs from its
            settings.
    """
    args = parser.parse_args(argv)
    if args.resume is None:
        return args
    settings = read_settings(args.resume)
    script = settings.get("script")
    if script != parser.prog:
        script = str(script)[:60]
        raise UserError(f"--resume {args.resume}: was made by {script}; resume it with that")
    known = _checked_settings(parser, args.resume, settings)
    parser.set_defaults(**{name: value for name, value in known.items() if name != "resume"})
    args = parser.parse_args(argv)
    for name, value in known.items():
        if name != "resume" and name not in changeable and getattr(args, name) != value:
            raise UserError(
                f"--resume {args.resume}: --{name} was {value} in that run and cannot change to "
                f"{getattr(args, name)}; leave it out"
            )
    return args


def _checked_settings(parser: ArgumentParser, path: str, settings: dict) -> dict:
    """The settings that are flags of `parser`, each as its flag would give it.

    Raises:
        UserError: one is not what its flag can be; names it.
    """
    checked = {}
    for action in parser._actions:
        if action.dest not in settings or action.dest in ("help", "resume"):
            continue
        try:
            checked[action.dest] = _checked_setting(action, settings[action.dest])
        except (ArgumentTypeError, RecursionError, TypeError, ValueError):
            raise UserError(
                f"--resume {path}: {SETTINGS_FILE} in it is damaged (what it has for "
                f"--{action.dest} cannot be); put the right value there"
            ) from None
    return checked


def _checked_setting(action: Action, value: object) -> object:
    """`value` if it is one that `action` could have given.

    Raises:
        ArgumentTypeError, TypeError, ValueError: it is not.
    """
    if value is None:
        if action.default is None and not action.required:
            return None
        raise TypeError
    if isinstance(action, BooleanOptionalAction):
        if not isinstance(value, bool):
            raise TypeError
        return value
    if isinstance(action.nargs, int):
        if not isinstance(value, list) or len(value) != action.nargs:
            raise TypeError
        return [_parsed(action, number) for number in value]
    return _parsed(action, value)


def _parsed(action: Action, value: object) -> object:
    """`value`, having gone through `action`'s type and choices as a word of the command line."""
    word = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    parsed = action.type(word) if action.type else word
    if parsed != value or "\0" in word or (action.choices and parsed not in action.choices):
        raise ValueError
    return parsed


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
