"""Scalars of a run for TensorBoard, in the run folder beside its history."""

import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from runtime.arguments import as_typed
from runtime.run_folder import RunFolder


class ScalarLog:
    """Writes a run's scalars step by step; without a run folder, or not `enabled`, nothing.

    Args:
        run: the run folder; None in all processes but the main one.
        enabled: `--tensorboard`.
    """

    def __init__(self, run: RunFolder | None, enabled: bool) -> None:
        self.folder = run.path if run and enabled else None
        self.log = logging.getLogger("relativenas")
        self._writer = None

    def open(self, steps_done: int) -> None:
        """Begin, or go on after `steps_done`: what was written of later steps counts no more.

        Says which command shows the scalars. If TensorBoard is missing, says that, and nothing is
        written.
        """
        if not self.folder:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter  # it may be missing

            self._writer = SummaryWriter(str(self.folder), purge_step=steps_done + 1)
        except (ImportError, OSError, UnicodeError) as error:  # or a path that is no UTF-8
            self.log.warning(
                "warning: no scalars for TensorBoard (%s); pip install tensorboard, if it is "
                "missing, or turn them off with --no-tensorboard", error,
            )  # fmt: skip
        else:
            self.log.info("TensorBoard: %s", tensorboard_command(self.folder))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the `scalars` of a step, counted from 1, by their tags."""
        if not self._writer:
            return
        try:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, step)
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Finish the file."""
        if not self._writer:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.log.warning("warning: no more scalars for TensorBoard (%s)", error)
        self._writer = None


def tensorboard_command(folder: Path) -> str:
    """The command that shows the curves of the runs in `folder`."""
    python = as_typed(Path(sys.executable))
    return shlex.join([python, "-m", "tensorboard.main", "--logdir", as_typed(folder)])
