"""What the cells of a study tell, as tables in Markdown and a picture."""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from benchmarks.study_statistics import (
    TrainedCell,
    Trainings,
    at_equal_size,
    best_of,
    bootstrap,
    deviations,
    group_of,
    mean_estimate,
    share_beaten,
)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def by_group(cells: Sequence[TrainedCell]) -> dict[str, list[TrainedCell]]:
    """The cells by the group that their names begin with."""
    groups: dict[str, list[TrainedCell]] = {}
    for cell in cells:
        groups.setdefault(group_of(cell.name), []).append(cell)
    return groups


def report(
    cells: Sequence[TrainedCell],
    random_groups: Sequence[str],
    seconds: Mapping[str, Sequence[float]],
) -> list[str]:
    """The study's tables, as lines of text.

    Args:
        random_groups: which groups are not found by searches; the first is the one that the
            percentiles are of.
        seconds: of the searches by learner, and of "training" for every training.
    """
    groups = by_group(cells)
    against = {name: groups[name] for name in random_groups if name in groups}
    random = next(iter(against.values()), [])
    found = {name: members for name, members in groups.items() if name not in random_groups}
    lines = _group_table(groups, against)
    lines += equal_size_table(found, [cell for members in against.values() for cell in members])
    lines += ["", *_cell_table(cells, random)]
    for name, members in against.items():
        if spread := deviations([cell.top1 for cell in members]):
            lines += ["", "Standard deviations, {}: cells {:.2f}, trainings {:.2f}.".format(
                name, *spread
            )]  # fmt: skip
    return lines + _costs(seconds, found, [cell.top1 for cell in random])


def _group_table(
    groups: Mapping[str, Sequence[TrainedCell]], against: Mapping[str, Sequence[TrainedCell]]
) -> list[str]:
    lines = [
        "| group | cells | trainings | top-1 % | M multiply-adds | "
        + "".join(f"beats {name} | " for name in against).rstrip(),
        "| --- " * (5 + len(against)) + "|",
    ]
    trainings = {name: [cell.top1 for cell in members] for name, members in groups.items()}
    for name, members in groups.items():
        columns = [
            name,
            str(len(members)),
            str(sum(map(len, trainings[name]))),
            mean_estimate([cell.mean for cell in members]).text(),
            sizes_in_words(members),
        ]
        for other in against:
            if name in against:
                columns.append("")
                continue
            share = bootstrap(share_beaten, trainings[name], trainings[other])
            columns.append(share.text(0))
        lines.append(f"| {' | '.join(columns)} |")
    return [
        *lines,
        "",
        "95 % intervals in brackets: of means Student's t over cells; of who beats whom, in %, a "
        "bootstrap over cells, trainings inside, which is too narrow for few cells. Multiply-adds: "
        "mean, least and most.",
    ]


def sizes_in_words(cells: Sequence[TrainedCell]) -> str:
    """Mean, least and most of the cells' multiply-adds, in millions."""
    sizes = [cell.size.multiply_adds / 1e6 for cell in cells]
    return f"{statistics.mean(sizes):.1f} ({min(sizes):.1f} to {max(sizes):.1f})"


def equal_size_table(
    groups: Mapping[str, Sequence[TrainedCell]], chance: Sequence[TrainedCell]
) -> list[str]:
    """Groups of cells, by what they are called, against chance cells of their size."""
    if len(chance) < 3 or not groups:
        return []
    lines = [
        "",
        f"At equal size, by a line through accuracy and multiply-adds of {len(chance)} chance "
        "cells, in points:",
        "",
        "| group | above the mean of chance cells | above 90 % of chance cells |",
        "| --- | --- | --- |",
    ]
    for name, members in groups.items():
        above_mean, above_best_tenth = at_equal_size(members, chance)
        lines.append(f"| {name} | {above_mean.text()} | {above_best_tenth.text()} |")
    return lines


def _cell_table(cells: Sequence[TrainedCell], random: Sequence[TrainedCell]) -> list[str]:
    lines = [
        "| cell | top-1 % | trainings | parameters | multiply-adds | above of random cells |",
        "| --- " * 6 + "|",
    ]
    for cell in sorted(cells, key=lambda cell: -cell.mean):
        others = [other for other in random if other is not cell]
        above = (
            f"{100 * statistics.mean(cell.mean > o.mean for o in others):.0f} %" if others else ""
        )
        trainings = ", ".join(f"{value:.2f}" for value in cell.top1)
        parameters, multiply_adds = (number / 1e6 for number in cell.size)
        lines.append(
            f"| {cell.name} | {cell.mean:.2f} | {trainings} | {parameters:.3f} M | "
            f"{multiply_adds:.1f} M | {above} |"
        )
    return lines


def _costs(
    seconds: Mapping[str, Sequence[float]],
    found: Mapping[str, Sequence[TrainedCell]],
    random: Trainings,
) -> list[str]:
    """What a search costs, and what training random cells for the same time comes to."""
    lines = []
    if not seconds.get("training"):
        return lines
    training = statistics.median(seconds["training"])
    for learner, searches in seconds.items():
        if learner == "training" or not searches:
            continue
        search = statistics.median(searches)
        affordable = round((search + training) / training)
        line = (
            f"A {learner} search took {search:.0f} s, its final validation left out, a training "
            f"{training:.0f} s (medians): "
            f"instead of a search and the training of its cell {affordable} random cells can be "
            "trained"
        )
        if learner in found and (best := best_of(affordable, random)) is not None:
            above = share_beaten([cell.top1 for cell in found[learner]], best[:, None].tolist())
            line += (
                f", of which the best (by one training, judged by another) reaches "
                f"{best.mean():.2f} % on average; a found cell is above that in {above:.0f} %"
            )
        lines += ["", line + "."]
    return lines


def accuracy_by_size(cells: Sequence[TrainedCell]) -> Figure:
    """Top-1 accuracy against multiply-adds: each cell's mean, and its trainings as a bar."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for (name, members), colour in zip(by_group(cells).items(), COLOURS * 9, strict=False):
        sizes = [cell.size.multiply_adds / 1e6 for cell in members]
        means = [cell.mean for cell in members]
        axes.vlines(
            sizes, [min(cell.top1) for cell in members], [max(cell.top1) for cell in members],
            color=colour, lw=0.8, alpha=0.5,
        )  # fmt: skip
        axes.scatter(sizes, means, s=16, color=colour, label=name, lw=0, zorder=2)
    axes.set_xlabel("multiply-adds (M)", size=8)
    axes.set_ylabel("test top-1 accuracy (%)", size=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=7)
    return figure
