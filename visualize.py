"""Draw a genotype's cells, or write the report of a run folder."""

import os
import sys
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__" and sys.flags.safe_path:  # python -I or -P: the root is not on the path
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from genotypes import NAMED_GENOTYPES, resolve_genotype
from runtime.arguments import ArgumentParser, expanded_path
from runtime.errors import run_script


def visualize(args: Namespace) -> Path:
    """Draw what `args.what` names; returns the file written.

    Raises:
        UserError: it cannot be read, or the file is there already or cannot be written.
    """
    # Imported here: --help needs neither matplotlib nor PyTorch, which take seconds to import.
    from report.cell_drawing import draw_genotype
    from report.figure_file import PICTURE_FORMATS, format_of_new_file, save_figure
    from report.page import run_curves, write_report
    from report.sizes import TARGETS

    what = args.what
    is_run = what not in NAMED_GENOTYPES and os.path.isdir(what)
    if is_run and args.output is None:
        return write_report(what)
    default = what if what in NAMED_GENOTYPES else "genotype"
    if os.path.exists(what):
        default = Path(what).stem
    path = Path(args.output or f"{default}.png")
    formats = (*PICTURE_FORMATS, "html") if is_run else PICTURE_FORMATS
    if format_of_new_file(path, formats) == "html":
        return write_report(what, path)
    if is_run:
        figure = run_curves(what)
    else:
        genotype = resolve_genotype(what, "genotype or run folder")
        names = {"cifar": "CIFAR-10", "imagenet": "ImageNet"}
        sizes = [f"{names[name]}: {target.size(genotype)}" for name, target in TARGETS.items()]
        figure = draw_genotype(genotype, sizes)
    save_figure(figure, path)
    return path


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "what",
        type=expanded_path,
        metavar="NAME_OR_FILE_OR_RUN_DIR",
        help="a genotype's name or file: its cells are drawn; a run folder: its report is written",
    )
    add(
        "-o",
        dest="output",
        type=expanded_path,
        metavar="FILE",
        help="where to: cells as .png, .svg or .pdf (default: the genotype's name.png here); a run "
        "as .html (default: report.html in its folder), or its curves alone as .png, .svg or .pdf",
    )
    return parser.parse_args(argv)


def main() -> None:
    print(visualize(parse_arguments()))


if __name__ == "__main__":
    run_script(main)
