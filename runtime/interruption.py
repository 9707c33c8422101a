"""Stopping in good order when SIGTERM or Ctrl-C (SIGINT) asks for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """Work was left, as a signal had asked, where it can be taken up again.

    Like KeyboardInterrupt no Exception: what mends errors must not take it for one.

    Attributes:
        signal: the signal's number.
        place: where that was, for the user to read.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal = signal_number
        self.place = "; all that was finished is saved"


class Interruption:
    """Whether this process has been asked to stop.

    Attributes:
        signal: the first signal that came; 0 if none has.
        deferred: whether a signal waits for a step's end, where all processes stop together.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.deferred = False

    @contextmanager
    def handled(self, twice: bool) -> Iterator[None]:
        """Within this block the first signal counts, and raises `Interrupted` at once.

        Args:
            twice: whether a launcher passes on what the terminal has sent already. Otherwise a
                second Ctrl-C ends the process on the spot.
        """
        # What is ignored, as in the background of a shell script, stays ignored.
        handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]

        def receive(number: int, frame: FrameType | None) -> None:
            if not twice and signal.SIGINT in handled:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            if not self.signal:
                self.signal = number
                if not self.deferred:
                    self.check()

        before = {number: signal.signal(number, receive) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def defer(self) -> None:
        """From now on a signal waits until `check` is called: the step at hand is finished."""
        self.deferred = True

    def check(self) -> None:
        """Stop here if a signal has asked to.

        Raises:
            Interrupted: it has.
        """
        if self.signal:
            raise Interrupted(self.signal)
