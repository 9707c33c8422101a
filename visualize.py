"""Draw a genotype's cells, or write the report of a run folder."""

import os
from argparse import Namespace
from pathlib import Path

from arguments import ArgumentParser
from errors import UserError, run_script
from genotypes import NAMED_GENOTYPES, Genotype, load_genotype


def visualize(args: Namespace) -> Path:
    """Draw what `args.what` names; returns the file written.

    Raises:
        UserError: it cannot be read, or the file is there already or cannot be written.
    """
    # Imported here: --help and mistakes need no matplotlib, which takes a second.
    from cell_drawing import draw_genotype
    from figure_file import PICTURE_FORMATS, format_of_new_file, save_figure
    from report import run_curves, write_report

    what = args.what
    is_run = what not in NAMED_GENOTYPES and os.path.isdir(what)
    if is_run and args.output is None:
        return write_report(what)
    default = what if what in NAMED_GENOTYPES else Path(what).stem
    path = Path(args.output or f"{default}.png")
    formats = (*PICTURE_FORMATS, "html") if is_run else PICTURE_FORMATS
    if format_of_new_file(path, formats) == "html":
        return write_report(what, path)
    save_figure(run_curves(what) if is_run else draw_genotype(find_genotype(what)), path)
    return path


def find_genotype(what: str) -> Genotype:
    """The genotype of that name, or in that file.

    Raises:
        UserError: there is none.
    """
    if what in NAMED_GENOTYPES:
        return NAMED_GENOTYPES[what]
    if not os.path.exists(what):
        raise UserError(
            f"{what}: neither a genotype file, nor a run folder, nor a known name; the names are "
            + ", ".join(NAMED_GENOTYPES)
        )
    return load_genotype(what)


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "what",
        metavar="NAME_OR_FILE_OR_RUN_DIR",
        help="a genotype's name or file: its cells are drawn; a run folder: its report is written",
    )
    add(
        "-o",
        dest="output",
        metavar="FILE",
        help="where to: cells as .png, .svg or .pdf (default: the genotype's name.png here); a run "
        "as .html (default: report.html in its folder), or its curves alone as .png, .svg or .pdf",
    )
    return parser.parse_args(argv)


def main() -> None:
    print(visualize(parse_arguments()))


if __name__ == "__main__":
    run_script(main)
