"""The curves of a run and the confusion matrix of a network, drawn with matplotlib's objects."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genotypes import PRIMITIVES
from report.cell_drawing import OPERATION_COLOURS
from report.records import Confusion, EpochRecord, Generation, Spread, metric_title
from report.sizes import Size

BEST_COLOUR = "#0072B2"
MEDIAN_COLOUR = "#D55E00"
BAND_COLOUR = "#E69F00"

FONT_SIZE = 8.0
PANEL = (3.1, 2.15)
"""Width and height of a panel in inches."""

LOGARITHMIC_FROM = 30
"""Losses that span such a factor are drawn on a logarithmic axis."""

COUNTED_CLASSES = 20
"""With more classes the cells of a confusion matrix have no numbers."""

NAMED_CLASSES = 40
"""With more classes its axes have no names."""


def search_curves(generations: Sequence[Generation]) -> Figure:
    """Loss, accuracy, diversity, seconds, and the operations of both cells over generations."""
    titles = (
        ("validation loss", "validation accuracy (%)", "diversity"),
        ("operations, normal cells (%)", "operations, reduction cells (%)", "seconds a generation"),
    )
    figure, panels = _panels(titles, legend_height=0.25)
    loss, accuracy, diversity, normal, reduction, seconds = panels
    numbers = [generation.number + 1 for generation in generations]
    losses = [generation.losses for generation in generations]
    _draw_spread(loss, numbers, losses)
    _use_logarithm_if_wide(
        loss, [n for spread in losses for n in (spread.best, spread.upper_quartile)]
    )
    loss.legend(frameon=False, fontsize=FONT_SIZE - 1)
    _draw_spread(accuracy, numbers, [generation.accuracies for generation in generations])
    _draw_from_zero(diversity, numbers, [generation.diversity for generation in generations])
    _draw_from_zero(seconds, numbers, [generation.seconds for generation in generations])
    _draw_shares(normal, numbers, [g.operation_shares("normal") for g in generations])
    _draw_shares(reduction, numbers, [g.operation_shares("reduce") for g in generations])
    _share_x_axis(panels, numbers, "generation")
    figure.legend(
        *normal.get_legend_handles_labels(),
        loc="lower center",
        ncols=len(PRIMITIVES),
        fontsize=FONT_SIZE - 1,
        frameon=False,
        handlelength=1.0,
        columnspacing=1.0,
    )
    return figure


def loss_against_size(
    candidates: Sequence[tuple[Size, float]],
    members: Sequence[tuple[Size, float]],
    limits: tuple[Sequence[float], Sequence[float]],
) -> Figure:
    """Validation loss against parameters and against multiply-adds.

    Args:
        candidates: sizes and losses of the last generations' candidates.
        members: those of the final population, empty before the search's end.
        limits: of parameters and of multiply-adds, in millions.
    """
    figure, panels = _panels(
        [("validation loss by parameters (M)", "validation loss by multiply-adds (M)")], 0.25
    )
    for axes, place, own_limits in zip(panels, (0, 1), limits, strict=True):
        for points, colour, zorder, label in (
            (candidates, BAND_COLOUR, 1, "candidates of the last generations"),
            (members, BEST_COLOUR, 3, "final population"),
        ):
            numbers = [size[place] / 1e6 for size, _ in points]
            losses = [loss for _, loss in points]
            if points:
                axes.scatter(numbers, losses, s=9, color=colour, zorder=zorder, label=label, lw=0)
        front = pareto_front([(size[place] / 1e6, loss) for size, loss in members])
        if front:
            axes.step(
                *zip(*front, strict=True), where="post", c=BEST_COLOUR, lw=1, label="Pareto front"
            )
        for number, limit in enumerate(own_limits):
            label = None if number else "budget"
            axes.axvline(limit, color=MEDIAN_COLOUR, lw=1, linestyle="--", label=label)
        _use_logarithm_if_wide(axes, [loss for _, loss in [*candidates, *members]])
    shown = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    figure.legend(
        shown.values(), shown.keys(), loc="lower center", ncols=len(shown),
        fontsize=FONT_SIZE - 1, frameon=False,
    )  # fmt: skip
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (size, loss), those that no other is at most equal to in both, by size."""
    front: list[tuple[float, float]] = []
    for size, loss in sorted(set(points)):
        if not front or loss < front[-1][1]:
            front.append((size, loss))
    return front


def training_curves(epochs: Sequence[EpochRecord]) -> Figure:
    """Loss, what checkpoints are judged by, learning rate and seconds over epochs."""
    judged_by = epochs[-1].judged_by
    title = metric_title(judged_by) if judged_by else ""
    titles = (("loss", title), ("learning rate", "seconds an epoch"))
    figure, panels = _panels(titles)
    loss, metric, learning_rate, seconds = panels
    numbers = [epoch.number + 1 for epoch in epochs]
    for axes, name in ((loss, "loss"), (metric, judged_by)):
        for part, colour in (("training", MEDIAN_COLOUR), ("validation", BEST_COLOUR)):
            values = [getattr(epoch, part).get(name) for epoch in epochs]
            if any(value is not None for value in values):
                _draw_line(axes, numbers, values, colour, part)
                axes.legend(frameon=False, fontsize=FONT_SIZE - 1)
    losses = [epoch.training.get("loss") for epoch in epochs]
    losses += [epoch.validation.get("loss") for epoch in epochs]
    _use_logarithm_if_wide(loss, losses)
    _draw_from_zero(learning_rate, numbers, [epoch.learning_rate for epoch in epochs])
    _draw_from_zero(seconds, numbers, [epoch.seconds for epoch in epochs])
    _share_x_axis(panels, numbers, "epoch")
    return figure


def confusion_matrix(confusion: Confusion) -> Figure:
    """Which classes are taken for which, in percent of each true class."""
    size = len(confusion.classes)
    side = 3.4 if size > COUNTED_CLASSES else max(2.4, 0.33 * size)
    longest = max(map(len, confusion.classes)) if size <= NAMED_CLASSES else 0
    names = [_drawable(name) for name in confusion.classes]
    room = 0.6 + 0.055 * min(longest, 20)
    figure = Figure(figsize=(side + room + 0.5, side + room), layout="constrained")
    axes = figure.add_subplot()
    totals = confusion.counts.sum(axis=1, keepdims=True)
    shares = 100 * confusion.counts / np.maximum(totals, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("% of the true class", size=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1)
    if size <= NAMED_CLASSES:
        ticks = range(size)
        axes.set_xticks(ticks, names, rotation=90 if longest > 2 else 0, parse_math=False)
        axes.set_yticks(ticks, names, parse_math=False)
    axes.tick_params(labelsize=FONT_SIZE - 1 if size <= COUNTED_CLASSES else 5, length=0)
    axes.set_xlabel("predicted", size=FONT_SIZE)
    axes.set_ylabel("true", size=FONT_SIZE)
    if size <= COUNTED_CLASSES:
        for row, column in np.argwhere(confusion.counts):
            axes.text(
                column, row, str(confusion.counts[row, column]), ha="center", va="center",
                size=FONT_SIZE - 1.5, color="white" if shares[row, column] > 50 else "black",
            )  # fmt: skip
    return figure


def _drawable(name: str) -> str:
    """A short text for any name a folder can have; control characters are not allowed in SVG."""
    text = "".join(character if character.isprintable() else "?" for character in name)
    return text if len(text) <= 20 else text[:19] + "…"


def _panels(
    titles: Sequence[Sequence[str]], legend_height: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """An empty panel for each title, row by row; below them `legend_height` inches are left."""
    rows, columns = len(titles), len(titles[0])
    width, height = PANEL[0] * columns, PANEL[1] * rows + legend_height
    figure = Figure(figsize=(width, height))
    # Room in inches for the labels: measuring them would take longer than all the rest.
    grid = {
        "left": 0.5 / width,
        "right": 1 - 0.1 / width,
        "bottom": (0.42 + legend_height) / height,
        "top": 1 - 0.25 / height,
        "wspace": 0.5 / (PANEL[0] - 0.5),
        "hspace": 0.72 / (PANEL[1] - 0.72),
    }
    panels = list(figure.subplots(rows, columns, gridspec_kw=grid).flat)
    for axes, title in zip(panels, [title for row in titles for title in row], strict=True):
        axes.set_title(title, size=FONT_SIZE, weight="bold", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=FONT_SIZE - 1)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def _share_x_axis(panels: list[Axes], numbers: list[int], label: str) -> None:
    for axes in panels:
        axes.set_xlabel(label, size=FONT_SIZE)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        room = 0.5 if len(numbers) == 1 else 0.0
        axes.set_xlim(numbers[0] - room, numbers[-1] + room)


def _draw_line(
    axes: Axes,
    numbers: list[int],
    values: Sequence[float | None],
    colour: str,
    label: str | None = None,
) -> None:
    # A single point has no line.
    marker = "o" if len(numbers) == 1 else None
    floats = np.array(values, dtype=np.float64)
    axes.plot(numbers, floats, color=colour, label=label, linewidth=1.3, marker=marker, ms=3)


def _draw_spread(axes: Axes, numbers: list[int], spreads: list[Spread]) -> None:
    axes.fill_between(
        numbers,
        [spread.lower_quartile for spread in spreads],
        [spread.upper_quartile for spread in spreads],
        color=BAND_COLOUR,
        alpha=0.3,
        linewidth=0,
        label="middle half",
    )
    _draw_line(axes, numbers, [spread.median for spread in spreads], MEDIAN_COLOUR, "median")
    _draw_line(axes, numbers, [spread.best for spread in spreads], BEST_COLOUR, "best")


def _draw_shares(axes: Axes, numbers: list[int], shares: list[dict[str, float]]) -> None:
    if len(numbers) == 1:  # an area needs two
        numbers, shares = [numbers[0] - 0.5, numbers[0] + 0.5], shares * 2
    axes.stackplot(
        numbers,
        [[share[name] for share in shares] for name in PRIMITIVES],
        labels=PRIMITIVES,
        colors=[OPERATION_COLOURS[name] for name in PRIMITIVES],
        edgecolor="white",
        linewidth=0.4,
    )
    axes.set_ylim(0, 100)


def _draw_from_zero(axes: Axes, numbers: list[int], values: Sequence[float]) -> None:
    _draw_line(axes, numbers, values, BEST_COLOUR)
    if max(values) > 0:
        axes.set_ylim(0, 1.05 * max(values))


def _use_logarithm_if_wide(axes: Axes, values: Sequence[float | None]) -> None:
    numbers = np.array(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) and numbers.min() > 0 and numbers.max() > LOGARITHMIC_FROM * numbers.min():
        axes.set_yscale("log")
