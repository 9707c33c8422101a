"""Keeps a run's report up to date while it runs, at a bounded cost and without ever stopping it."""

import logging
import time

from runtime.run_folder import RunFolder

LARGEST_SHARE = 0.02
"""Of the run's time, at most, goes into drawing reports after the first and before its end."""

FIRST_SECONDS = 30.0
"""After so many the report is drawn for the first time, at the next occasion."""


class LiveReport:
    """The report of a run that goes on in this process.

    Args:
        run: the run folder; None in all processes but the main one, which draw nothing.
    """

    def __init__(self, run: RunFolder | None) -> None:
        self.run = run
        self.log = logging.getLogger("relativenas")
        self._due = time.monotonic() + FIRST_SECONDS
        self._warned = False

    def refresh(self) -> None:
        """Draw the report again, unless the last time was too short ago for what it cost."""
        if self.run and time.monotonic() >= self._due:
            self._write(self.run)

    def finish(self) -> None:
        """Draw the report of the finished run and say where it is."""
        if self.run and (path := self._write(self.run)):
            self.log.info("report: %s", path)

    def _write(self, run: RunFolder) -> object:
        started = time.monotonic()
        path = None
        try:
            from report.page import write_report  # matplotlib takes a second to import

            path = write_report(run.path)
        except Exception as error:  # whatever it is, days of search must not end for a picture
            if not self._warned:
                self.log.warning("warning: the report could not be drawn (%s)", error)
            self._warned = True
        now = time.monotonic()
        self._due = now + (now - started) / LARGEST_SHARE
        return path
