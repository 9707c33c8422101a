"""A run as its loop sees it: what it reads from its folder, and all that it leaves there."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from report.live import LiveReport
from runtime.atomic_file import write_json
from runtime.checkpoint import save_checkpoint
from runtime.processes import Processes
from runtime.run_folder import RunFolder
from runtime.scalar_log import ScalarLog

Content = TypeVar("Content")


class Run:
    """A run with its log, history, checkpoints, scalars for TensorBoard, and report.

    Only the main process has a folder. The others are told what it read there, and what they
    would write is dropped, so that a loop need not ask which process it is in.

    Args:
        folder: the run folder; None in all processes but the main one.
        processes: those that work on the run.
        tensorboard: whether scalars are written.
    """

    def __init__(
        self, folder: RunFolder | None, processes: Processes, tensorboard: bool = False
    ) -> None:
        self.folder = folder
        self.processes = processes
        self.log = logging.getLogger("relativenas")
        self._scalars = ScalarLog(folder, tensorboard)
        self._report = LiveReport(folder)

    def path(self, name: str) -> Path | None:
        """Where the file `name` of the run is; None outside the main process."""
        return self.folder.path / name if self.folder else None

    def read(self, name: str, reader: Callable[[Path | None], Content]) -> Content:
        """What `reader` makes of the file `name`: read by the main process, for all of them.

        A main process without a folder has None for the file's path.
        """
        return self.processes.broadcast(reader(self.path(name)) if self.processes.is_main else None)

    def truncate_history(
        self, length: int, is_expected: Callable[[int, dict], bool] = lambda *_: True
    ) -> list[dict]:
        """As `RunFolder.truncate_history`; outside the main process no records are known."""
        return self.folder.truncate_history(length, is_expected) if self.folder else []

    def begin(self, steps_done: int) -> None:
        """From now on scalars count after `steps_done`, and a signal waits for a step's end.

        The folder stays from now on, however the run ends.
        """
        if self.folder:
            self.folder.may_be_discarded = False
        self._scalars.open(steps_done)
        self.processes.interruption.defer()

    def record(self, record: dict) -> None:
        """Add a line to the history."""
        if self.folder:
            self.folder.append_history(record)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write a step's scalars, by their tags; steps count from 1."""
        self._scalars.write(step, scalars)

    def save(self, name: str, content: dict, keep_previous: bool = False) -> None:
        """Write a checkpoint, as `save_checkpoint` does."""
        if path := self.path(name):
            save_checkpoint(content, path, keep_previous)

    def write_json(self, name: str, content: object, indent: int | None = 1) -> None:
        """Write `content` as the JSON file `name`, as `atomic_file.write_json` does."""
        if path := self.path(name):
            write_json(path, content, indent)

    def refresh_report(self) -> None:
        """Draw the report again, unless the last time was too short ago for what it cost."""
        self._report.refresh()

    def finish(self) -> None:
        """Close what is open, and draw the report of the finished run."""
        self._scalars.close()
        self._report.finish()
