"""The one exception for mistakes that a user can mend, and how a script ends.

Its line is made where the mistake is found and printed here, on stderr. What a run survives is a
warning in its log instead; what a report has to leave out is said in the report.
"""

import io
import signal
import sys
from collections.abc import Callable

from runtime.interruption import Interrupted


class UserError(Exception):
    """A mistake the user can mend. Its text is one line that names the thing and the remedy."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`.

    A `UserError` ends with its line on stderr and exit status 2, a signal with 128 and its number,
    as shells have it. Characters that stdout has no code for are written as `\\xd7`.
    """
    # Python does so for stderr itself.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except UserError as error:
        # Names of files and what is in them may hold anything, escape sequences too.
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
