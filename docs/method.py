"""Draw how slow-fast learning moves its vectors: one update, and a population that searches."""

import sys
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # run as docs/method.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from genotypes import PRIMITIVES
from report.figure_file import format_of_new_file, save_figure
from runtime.arguments import ArgumentParser
from runtime.errors import run_script
from slow_fast_learning import SlowFastLearning, slow_and_fast

FAST_COLOUR = "#0072B2"
SLOW_COLOUR = "#D55E00"
REACHED_COLOUR = "#E69F00"
FONT_SIZE = 8.0

LOWER, UPPER = np.zeros(2), np.array([3.0, len(PRIMITIVES)])
"""Two variables of a search vector: the input and the operation of an edge into node 3."""

SLOW, FAST = np.array([0.8, 5.4]), np.array([2.45, 1.6])
VELOCITY = np.array([-0.45, 2.2])
"""Of the slow learner, from the generation before."""

UPDATES = 400

POPULATION_SIZE = 20
GENERATIONS = 30
BEST = np.array([2.2, 1.9])
"""Where the test function is lowest."""


def draw_update(axes: Axes) -> None:
    """A pair, and where the slow learner can get to in one update."""
    axes.set_title("one update", size=FONT_SIZE + 1, weight="bold", loc="left")
    reached = np.array([_updated(seed) for seed in range(UPDATES)])
    corners = [np.minimum(0, VELOCITY) + np.minimum(0, FAST - SLOW)]
    corners += [np.maximum(0, VELOCITY) + np.maximum(0, FAST - SLOW)]
    low, high = (np.clip(SLOW + corner, LOWER, UPPER) for corner in corners)
    axes.add_patch(Rectangle(low, *(high - low), facecolor=REACHED_COLOUR, alpha=0.18, linewidth=0))
    axes.plot(
        *reached.T,
        "o",
        color=REACHED_COLOUR,
        ms=1.6,
        clip_on=False,
        label=f"after the update, {UPDATES} draws",
    )
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "linewidth": 1.4}
    for start, step, colour in ((SLOW, VELOCITY, "#333333"), (SLOW, FAST - SLOW, FAST_COLOUR)):
        end = np.clip(start + step, LOWER, UPPER)
        axes.annotate("", end, start, arrowprops={**arrow, "color": colour})
    _name(axes, "$v_{slow}$", SLOW + VELOCITY / 2, (-8, -4), "#333333", "right")
    _name(axes, "$x_{fast}-x_{slow}$", (SLOW + FAST) / 2, (10, 3), FAST_COLOUR, "left")
    for point, colour, text, offset in (
        (SLOW, SLOW_COLOUR, "slow learner", (10, 5)),
        (FAST, FAST_COLOUR, "fast learner: stays", (0, -14)),
    ):
        axes.plot(*point, "o", color=colour, ms=7, zorder=7)
        _name(axes, text, point, offset, colour, "left" if point is SLOW else "center")
    axes.legend(fontsize=FONT_SIZE - 1, loc="lower left", framealpha=0.9)


def _updated(seed: int) -> np.ndarray:
    """The slow learner after an update with the random numbers of `seed`."""
    learning = SlowFastLearning(LOWER, UPPER, 2, seed)
    learning.positions = np.array([SLOW, FAST])
    learning.velocities = np.array([VELOCITY, [0, 0]])
    learning.move(slow=0, fast=1)
    return learning.positions[0]


def _name(
    axes: Axes, text: str, point: np.ndarray, offset: tuple, colour: str, alignment: str
) -> None:
    axes.annotate(
        text, point, offset, textcoords="offset points", color=colour, size=FONT_SIZE,
        ha=alignment, va="center", zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
    )  # fmt: skip


def draw_search(axes: Axes) -> None:
    """A population at the start and after some generations, on a function with one minimum."""
    title = f"{POPULATION_SIZE} vectors, {GENERATIONS} generations"
    axes.set_title(title, size=FONT_SIZE + 1, weight="bold", loc="left")
    grid = np.stack(
        np.meshgrid(np.linspace(0, UPPER[0], 100), np.linspace(0, UPPER[1], 100)), axis=-1
    )
    axes.contourf(grid[..., 0], grid[..., 1], loss(grid), levels=10, cmap="Greys", alpha=0.55)
    learning = SlowFastLearning(LOWER, UPPER, POPULATION_SIZE, seed=8)
    axes.plot(*learning.positions.T, "o", mfc="white", mec=SLOW_COLOUR, ms=5, label="at the start")
    for _ in range(GENERATIONS):
        for pair in learning.draw_pairs():
            slow, fast = slow_and_fast(pair, tuple(loss(learning.positions[m]) for m in pair))
            learning.move(slow, fast)
    axes.plot(
        *learning.positions.T,
        "o",
        color=FAST_COLOUR,
        ms=4,
        label=f"after {GENERATIONS} generations",
    )
    axes.legend(fontsize=FONT_SIZE - 1, loc="upper right", framealpha=0.9)


def loss(positions: np.ndarray) -> np.ndarray:
    """The test function of positions (..., 2): the distance from its minimum, in box lengths."""
    return np.linalg.norm((positions - BEST) / UPPER, axis=-1)


def draw_method() -> Figure:
    """Both panels; whole numbers of a variable's range are one choice each."""
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    draw_update(panels[0])
    draw_search(panels[1])
    for axes in panels:
        axes.set(xlim=(0, UPPER[0]), ylim=(0, UPPER[1]))
        axes.set_xticks(np.arange(UPPER[0]) + 0.5, [f"input {i}" for i in range(int(UPPER[0]))])
        axes.set_yticks(np.arange(UPPER[1]) + 0.5, PRIMITIVES)
        axes.tick_params(labelsize=FONT_SIZE - 1, length=0)
        for bound in range(1, int(UPPER[0])):
            axes.axvline(bound, color="#BBBBBB", linewidth=0.6, zorder=0)
        for bound in range(1, int(UPPER[1])):
            axes.axhline(bound, color="#BBBBBB", linewidth=0.6, zorder=0)
    return figure


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FILE", required=True, help=".png, .svg or .pdf"
    )
    return parser.parse_args(argv)


def main() -> None:
    path = parse_arguments().output
    format_of_new_file(path)
    save_figure(draw_method(), path)
    print(path)


if __name__ == "__main__":
    run_script(main)
