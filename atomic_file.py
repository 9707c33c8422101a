"""Files that are there whole or not at all, even after a kill or on a full disk."""

import os
from pathlib import Path


def write_whole_file(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) beside `path` and rename it into place.

    Two processes may write the same path: the last one's file stays, whole.

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
