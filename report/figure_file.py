"""Figures as files: PNG, SVG and PDF, the same bytes for the same picture."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from runtime.atomic_file import write_whole_file
from runtime.errors import UserError

PICTURE_FORMATS = ("png", "svg", "pdf")

OPTIONS = {
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "relativenas",  # names of parts do not change from time to time
}

DOTS_PER_INCH = 200


def rendered(figure: Figure, file_format: str) -> bytes:
    """The figure as the content of a file in one of `PICTURE_FORMATS`."""
    file = io.BytesIO()
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[file_format]
    with rc_context(OPTIONS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a class name in a script the font lacks
        figure.savefig(file, format=file_format, dpi=DOTS_PER_INCH, metadata=metadata)
    return file.getvalue()


def format_of_new_file(path: Path, formats: Sequence[str] = PICTURE_FORMATS) -> str:
    """The format that the end of `path` asks for.

    Raises:
        UserError: it is none of `formats`, or the file is there already.
    """
    file_format = path.suffix.lower().removeprefix(".")
    if file_format not in formats:
        raise UserError(
            f"-o {path}: the format is taken from the end of the name, which must be one of "
            + ", ".join(f".{known}" for known in formats)
        )
    if path.exists():
        raise UserError(f"{path}: is there already and is not overwritten; name another with -o")
    return file_format


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure in the format that the end of `path` says.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_whole_file(path, rendered(figure, path.suffix.lower().removeprefix(".")))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); name another file with -o"
        ) from None
