"""The one exception for mistakes that a user can mend, and how a script ends on it."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake the user can mend. Its text is one line that names the thing and the remedy."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; end a `UserError` with its line on stderr and exit status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
