"""A genotype's cells as a picture: inputs left, output right, operations on the edges.

Only matplotlib's objects are used, never pyplot with its global state.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from genotypes import OPERATION_NAMES, Genotype
from report.cell_layout import CellLayout, Edge, lay_out_cell

OPERATION_COLOURS = {
    "max_pool_3x3": "#009E73",
    "avg_pool_3x3": "#CC79A7",
    "skip_connect": "#555555",
    "sep_conv_3x3": "#56B4E9",
    "sep_conv_5x5": "#0072B2",
    "dil_conv_3x3": "#E69F00",
    "dil_conv_5x5": "#D55E00",
    "sep_conv_7x7": "#332288",
    "conv_7x1_1x7": "#882255",
}
"""Okabe and Ito's colours, which the colour-blind can tell apart, and two of Tol's for the rest."""

SHORT_LABELS = {
    "max_pool_3x3": "max 3×3",
    "avg_pool_3x3": "avg 3×3",
    "skip_connect": "skip",
    "sep_conv_3x3": "sep 3×3",
    "sep_conv_5x5": "sep 5×5",
    "dil_conv_3x3": "dil 3×3",
    "dil_conv_5x5": "dil 5×5",
    "sep_conv_7x7": "sep 7×7",
    "conv_7x1_1x7": "7×1, 1×7",
}
"""What is written on the edges; the legend has the full names beside the colours."""

OUTPUT_COLOUR = "#999999"
NODE_COLOUR = "#333333"

FONT_SIZE = 7.0
TITLE_SIZE = 9.0

MARGIN = 0.1
TITLE_HEIGHT = 0.28
LEGEND_ROW = 0.17
LEGEND_COLUMN = 1.2
CELL_DISTANCE = 0.45
SMALLEST_WIDTH = 3.7
PAGE_WIDTH = 7.2
"""In inches; cells that fit into it side by side are drawn so, others below each other."""


def draw_genotype(genotype: Genotype, notes: Sequence[str] = ()) -> Figure:
    """The normal and the reduction cell with one legend; under them the lines `notes`.

    Nodes are numbered as in the genotype; c with an index is the output of a cell: k − 2 of the
    cell before last (input 0), k − 1 of the last one (input 1), k of this one.
    """
    layouts = {
        "Normal cell": lay_out_cell(genotype.normal, genotype.normal_concat),
        "Reduction cell": lay_out_cell(genotype.reduce, genotype.reduce_concat),
    }
    widths = [layout.width for layout in layouts.values()]
    heights = [layout.height for layout in layouts.values()]
    beside = sum(widths) + CELL_DISTANCE + 2 * MARGIN <= PAGE_WIDTH
    if beside:
        content_width = sum(widths) + CELL_DISTANCE
        content_height = max(heights) + TITLE_HEIGHT
    else:
        content_width = max(widths)
        content_height = sum(heights) + 2 * TITLE_HEIGHT + CELL_DISTANCE / 2
    width = max(content_width + 2 * MARGIN, SMALLEST_WIDTH)
    handles = _legend_handles(genotype)
    columns = min(len(handles), int((width - MARGIN) / LEGEND_COLUMN))
    legend_height = -(-len(handles) // columns) * LEGEND_ROW + MARGIN
    notes_height = len(notes) * LEGEND_ROW
    height = content_height + notes_height + legend_height + 2 * MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    left, top = (width - content_width) / 2, MARGIN
    for title, layout in layouts.items():
        cell_top = top + TITLE_HEIGHT
        if beside:
            cell_top += (max(heights) - layout.height) / 2
        axes.text(left, top + 0.1, title, size=TITLE_SIZE, weight="bold", va="center")
        _draw_cell(axes, layout, left, cell_top, title.split()[0].lower())
        if beside:
            left += layout.width + CELL_DISTANCE
        else:
            top += TITLE_HEIGHT + layout.height + CELL_DISTANCE / 2
    for number, note in enumerate(notes):
        note_top = height - legend_height - notes_height + (number + 0.5) * LEGEND_ROW
        axes.text(width / 2, note_top, note, size=FONT_SIZE, ha="center", va="center")
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=columns,
        fontsize=FONT_SIZE,
        frameon=False,
        handlelength=1.4,
        columnspacing=1.2,
        borderaxespad=0.5,
    )
    return figure


def _legend_handles(genotype: Genotype) -> list[Line2D]:
    used = {name for name, _ in [*genotype.normal, *genotype.reduce]}
    handles = [
        Line2D([], [], color=OPERATION_COLOURS[name], linewidth=2, label=name)
        for name in OPERATION_NAMES
        if name in used
    ]
    return [*handles, Line2D([], [], color=OUTPUT_COLOUR, linewidth=1, label="concatenated")]


def _draw_cell(axes: Axes, layout: CellLayout, left: float, top: float, name: str) -> None:
    """Draw a cell with its upper left corner at (left, top); `name` begins the artists' ids."""
    for index, edge in enumerate(layout.edges):
        _draw_edge(axes, edge, left, top, f"{name}-edge-{index}")
    for index, edge in enumerate(layout.edges):
        if edge.label:
            _draw_label(axes, edge, left, top, f"{name}-label-{index}")
    output = max(layout.nodes)
    for number, box in layout.nodes.items():
        x, y = left + box.x, top + box.y
        style = {
            "facecolor": "white",
            "edgecolor": NODE_COLOUR,
            "linewidth": 0.9,
            "zorder": 4,
            "gid": f"{name}-node-{number}",
        }
        if 2 <= number < output:
            axes.add_patch(Circle((x, y), box.width / 2, **style))
            text = str(number)
        else:
            axes.add_patch(_rounded_box(x, y, box.width, box.height, 0.06, **style))
            text = {0: "$c_{k-2}$", 1: "$c_{k-1}$", output: "$c_k$"}[number]
        axes.text(x, y, text, size=FONT_SIZE, ha="center", va="center_baseline", zorder=5)


def _draw_edge(axes: Axes, edge: Edge, left: float, top: float, gid: str) -> None:
    points = edge.path + np.array([left, top])
    codes = [Path.MOVETO, *[Path.CURVE4] * (len(points) - 1)]
    if edge.operation is None:
        colour, width, zorder = OUTPUT_COLOUR, 0.8, 1
    else:
        colour, width, zorder = OPERATION_COLOURS[edge.operation], 1.4, 2
    axes.add_patch(
        PathPatch(
            Path(points, codes),
            facecolor="none",
            edgecolor=colour,
            linewidth=width,
            zorder=zorder,
            gid=gid,
        )
    )
    tip, before = points[-1], points[-2]
    forward = (tip - before) / ((tip - before) ** 2).sum() ** 0.5
    sideward = forward[::-1] * (-1, 1)
    length, half_width = 0.075, 0.033
    back = tip - length * forward
    corners = [tip, back + half_width * sideward, back - half_width * sideward]
    axes.add_patch(Polygon(corners, closed=True, facecolor=colour, linewidth=0, zorder=3))


def _draw_label(axes: Axes, edge: Edge, left: float, top: float, gid: str) -> None:
    box = edge.label
    x, y = left + box.x, top + box.y
    colour = OPERATION_COLOURS[edge.operation]
    axes.add_patch(
        _rounded_box(
            x, y, box.width, box.height, 0.07,
            facecolor=_tint(colour), edgecolor=colour, linewidth=1.0, zorder=4, gid=gid,
        )
    )  # fmt: skip
    label = SHORT_LABELS[edge.operation]
    axes.text(
        x, y, label, size=FONT_SIZE, ha="center", va="center_baseline", zorder=5,
        gid=f"{gid}-text",
    )  # fmt: skip


def _rounded_box(
    x: float, y: float, width: float, height: float, radius: float, **style: object
) -> FancyBboxPatch:
    """A box by its centre, corners rounded inwards."""
    return FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle=f"round,pad=0,rounding_size={radius}",
        **style,
    )


def _tint(colour: str, share: float = 0.18) -> tuple[float, ...]:
    """A light tint of "#RRGGBB", on which black text is easy to read."""
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return tuple(1 - share * (1 - channel) for channel in channels)
