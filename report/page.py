"""A run's report: one HTML file that needs nothing else, not even a network.

Pictures are embedded as SVG images. All text of the run folder is escaped, and the page forbids
itself scripts and any address (Content-Security-Policy).
"""

import base64
import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from genotypes import Genotype
from report.cell_drawing import draw_genotype
from report.charts import confusion_matrix, loss_against_size, search_curves, training_curves
from report.figure_file import rendered
from report.history import RunHistory, SearchHistory, TrainingHistory, read_run
from report.records import METRICS, REPORT_FILE, Confusion, Generation, metric_title
from runtime.atomic_file import write_whole_file
from runtime.errors import UserError
from runtime.progress_bar import format_seconds

SHOWN_RESULTS = 3000
"""Of who beat whom at most so many results are in the page, the latest ones."""

SHOWN_EPOCHS = 100
"""Lines in the table of epochs."""

CONFUSED_PAIRS = 12

SIZED_CANDIDATES = 100
"""In the picture of losses and sizes: the candidates of the last generations, at most so many."""

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0.2rem; }
h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
img { max-width: 100%; height: auto; display: block; margin: 0.8rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { padding: 0.15rem 0.55rem; text-align: left; border-bottom: 1px solid #e4e4e4;
  vertical-align: top; }
th { background: #f4f4f4; font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.cell { font-size: 0.75rem; min-width: 16rem; }
table.pairs td, table.pairs th { text-align: center; padding: 0.1rem 0.3rem; }
td.won { background: #cfe5f3; font-weight: 700; }
td.lost { background: #fbe6d4; }
pre { white-space: pre-wrap; background: #f4f4f4; padding: 0.6rem; font-size: 0.75rem; }
.note { color: #555; }
.problem { color: #a33; }
"""


def write_report(folder: str | Path, path: Path | None = None) -> Path:
    """Write the report of the run in `folder` to `path`, its own report.html if None.

    Raises:
        UserError: `folder` is not that of a search or a training, or the report cannot be written.
    """
    run = read_run(folder)
    path = path or run.folder / REPORT_FILE
    page = search_report(run) if isinstance(run, SearchHistory) else training_report(run)
    try:
        write_whole_file(path, page.encode(errors="replace"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another file with -o"
        ) from None
    return path


def run_curves(folder: str | Path) -> Figure:
    """The curves of the run in `folder`.

    Raises:
        UserError: it is not the folder of a search or a training, or there is nothing to draw yet.
    """
    run = read_run(folder)
    steps = _drawn_generations(run) if isinstance(run, SearchHistory) else run.epochs
    if not steps:
        raise UserError(f"{folder}: has no curves yet; wait for the end of a generation or epoch")
    return search_curves(steps) if isinstance(run, SearchHistory) else training_curves(steps)


def search_report(run: SearchHistory) -> str:
    """The page of a search."""
    generations = _drawn_generations(run)
    done = len(run.complete_generations)
    state = _state(done, run.planned, "generations", run.population is not None)
    curves = _paragraph("No pair has been trained yet.")
    if generations:
        curves = _picture(
            search_curves(generations),
            "Validation loss and accuracy, diversity, operations and seconds over generations",
        ) + _paragraph(
            "Losses and accuracies are those of a generation's candidates on the validation "
            "images, with the shared weights after their own pass of training; the band holds the "
            "middle half of them. Diversity is the mean distance of the vectors from their centre."
        )
        if failed := sum(generation.failed for generation in run.generations):
            curves += _paragraph(f"{failed} candidates had no finite loss and are left out.")
        if outside := sum(generation.outside for generation in run.generations):
            curves += _paragraph(f"{outside} candidates were outside the budget: not trained.")
    return _page(
        run,
        state,
        [
            ("best-cell", "Best cell", _best_cell(run, generations)),
            ("curves", "Curves", curves),
            ("sizes", "Loss and size", _loss_and_size(run)),
            ("pairs", "Who beat whom", _pairs_table(run.generations)),
            ("population", "Final population", _population_table(run)),
            ("timings", "Timings", _search_timings(run)),
        ],
    )


def training_report(run: TrainingHistory) -> str:
    """The page of a training."""
    finished = run.planned is not None and len(run.epochs) >= run.planned
    network = _paragraph("There is no genotype in the folder.")
    if run.genotype:
        network = _cells(run.genotype)
    curves = _paragraph("No epoch has ended yet.")
    if run.epochs:
        curves = _picture(
            training_curves(run.epochs),
            "Loss, what checkpoints are judged by, learning rate and seconds over epochs",
        )
    sections = [
        ("curves", "Curves", curves),
        ("epochs", "Epochs", _epochs_table(run)),
        ("network", "Network", network),
        ("timings", "Timings", _training_timings(run)),
    ]
    if run.predictions:
        sections.insert(1, ("predictions", "Predictions", _predictions(run.predictions)))
    if run.confusion:
        sections.insert(1, ("confusion", "Confusion matrix", _confusion(run.confusion)))
    return _page(run, _state(len(run.epochs), run.planned, "epochs", finished), sections)


def _drawn_generations(run: SearchHistory) -> list[Generation]:
    """Complete generations, or the first one as far as it got."""
    return run.complete_generations or run.generations[:1]


def _state(done: int, planned: int | None, unit: str, finished: bool) -> str:
    of = f" of {planned}" if planned is not None else ""
    return f"{done}{of} {unit} done, " + ("finished" if finished else "not finished")


def _page(run: RunHistory, state: str, sections: list[tuple[str, str, str]]) -> str:
    title = escape(run.folder.resolve().name)
    links = " · ".join(f'<a href="#{anchor}">{heading}</a>' for anchor, heading, _ in sections)
    settings = _table(
        ["setting", "value"], [[name, _shown(value)] for name, value in run.settings.items()]
    )
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n",
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        _paragraph(f"{state}; drawn {time.strftime('%Y-%m-%d %H:%M:%S')}"),
        f'<p>{links} · <a href="#settings">Settings</a></p>\n',
        *(f'<p class="problem">{escape(problem)}</p>\n' for problem in run.problems),
    ]
    for anchor, heading, body in [*sections, ("settings", "Settings", settings)]:
        parts.append(f'<section id="{anchor}">\n<h2>{heading}</h2>\n{body}</section>\n')
    return "".join([*parts, "</body>\n</html>\n"])


def _paragraph(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>\n'


def _picture(figure: Figure, description: str) -> str:
    """The figure as an image: several SVGs in one page would share the names of their parts."""
    data = base64.b64encode(rendered(figure, "svg")).decode()
    return f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{data}">\n'


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()
) -> str:
    """A table of plain texts; the columns `numeric` are aligned to the right."""

    def line(tag: str, texts: Sequence[str]) -> str:
        cells = (
            f"<{tag}{' class=n' if column in numeric else ''}>{escape(text)}</{tag}>"
            for column, text in enumerate(texts)
        )
        return f"<tr>{''.join(cells)}</tr>\n"

    body = "".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table>\n{line("th", header)}{body}</table></div>\n'


def _shown(value: object, longest: int = 500) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= longest else text[:longest] + " …"


def _number(value: float | None, pattern: str = "{:.4f}") -> str:
    return "not finite" if value is None else pattern.format(value)


def _cells(genotype: Genotype) -> str:
    picture = _picture(draw_genotype(genotype), "Normal and reduction cell")
    return f"{picture}<pre>{escape(str(genotype))}</pre>\n"


def _best_cell(run: SearchHistory, generations: list[Generation]) -> str:
    if run.population is not None and run.genotype:
        return _paragraph(
            "The lowest validation loss of the final population, with the final weight set."
        ) + _sized_cells(run, run.genotype)
    best = generations[-1].best if generations else None
    if best is None:
        return _paragraph("No candidate has been validated yet.")
    genotype, loss = best
    return _paragraph(
        f"So far: the lowest validation loss, {loss:.4f}, of generation "
        f"{generations[-1].number + 1}."
    ) + _sized_cells(run, genotype)


def _sized_cells(run: SearchHistory, genotype: Genotype) -> str:
    size = f"{run.target.size(genotype)} ({run.target})." if run.target else ""
    return _cells(genotype) + _paragraph(size)


def _loss_and_size(run: SearchHistory) -> str:
    """The picture of losses and sizes."""
    last = [c for generation in run.generations for c in generation.candidates][-SIZED_CANDIDATES:]
    members = [(m.genotype, m.loss) for m in run.population or [] if m.loss is not None]
    if run.target is None or not last + members:
        return _paragraph("There is nothing to draw yet.")
    sized = [[(run.target.size(cell), loss) for cell, loss in cells] for cells in (last, members)]
    limits = run.limits("params"), run.limits("multiply_adds")
    return _picture(
        loss_against_size(*sized, limits), "Validation loss against parameters and multiply-adds"
    ) + _paragraph(
        f"Sizes are those of {run.target}. Candidates have the losses that they were compared by; "
        "the final population's are with the final weight set. No member is better in both size "
        "and loss than one on the Pareto front."
    )


def _pairs_table(generations: list[Generation]) -> str:
    """A row for each member, a column for each generation: its opponent, and who won."""
    results: dict[int, dict[int, tuple[int, str]]] = {}
    for generation in generations:
        for pair in generation.pairs:
            for own, other in (pair.members, pair.members[::-1]):
                outcome = "" if pair.slow is None else "lost" if pair.slow == own else "won"
                results.setdefault(own, {})[generation.number] = (other, outcome)
    if not results:
        return _paragraph("No pair has been compared yet.")
    numbers = [generation.number for generation in generations]
    shown = numbers[-max(1, SHOWN_RESULTS // len(results)) :]
    lines = ["<tr><th>member</th><th>won</th>"]
    lines += [f"<th>{number + 1}</th>" for number in shown]
    for member in sorted(results):
        won = sum(outcome == "won" for _, outcome in results[member].values())
        lines.append(f"</tr>\n<tr><th>{member}</th><td>{won} of {len(results[member])}</td>")
        for number in shown:
            other, outcome = results[member].get(number, ("", ""))
            lines.append(f"<td class={outcome or 'n'}>{other}</td>")
    note = (
        "A column for each generation: the member's opponent, bold on blue where the member won "
        "(the fast learner), on orange where it lost (the slow learner)."
    )
    if len(shown) < len(numbers):
        note += f" The last {len(shown)} generations; all are in history.jsonl."
    table = f'<div class="scroll"><table class="pairs">{"".join(lines)}</tr>\n</table></div>\n'
    return _paragraph(note) + table


def _population_table(run: SearchHistory) -> str:
    if run.population is None:
        return _paragraph("Written at the end of the search.")
    ranked = sorted(
        enumerate(run.population),
        key=lambda place: float("inf") if place[1].loss is None else place[1].loss,
    )
    rows = [
        [
            str(rank), str(number),
            "not validated" if member.accuracy is None else _number(member.loss),
            "" if member.accuracy is None else f"{member.accuracy:.2f}",
            *(f"{n / 1e6:.2f}" for n in (run.target.size(member.genotype) if run.target else ())),
            _cell_text(member.genotype.normal), _cell_text(member.genotype.reduce),
        ]
        for rank, (number, member) in enumerate(ranked, start=1)
    ]  # fmt: skip
    different = len({str(member.genotype) for member in run.population})
    header = ["rank", "member", "loss", "accuracy %"]
    header += ["parameters (M)", "multiply-adds (M)"] if run.target else []
    header += ["normal cell", "reduction cell"]
    return _paragraph(
        f"Validated with the final weight set; {different} of {len(run.population)} cells differ. "
        "A cell's nodes, from node 2 on, with the inputs of their operations in brackets."
    ) + _table(header, rows, numeric=range(len(header) - 2))


def _cell_text(pairs: list[tuple[str, int]]) -> str:
    operations = [f"{name}({source})" for name, source in pairs]
    nodes = zip(operations[::2], operations[1::2], strict=True)
    return "; ".join(f"{first} + {second}" for first, second in nodes)


def _search_timings(run: SearchHistory) -> str:
    seconds = [
        pair.seconds
        for generation in run.generations
        for pair in generation.pairs
        if not all(pair.excesses)  # that cost nothing
    ]
    if not seconds:
        return _paragraph("No pair has been trained yet.")
    rows = [
        ["pairs trained and validated", str(len(seconds))],
        ["all of them", format_seconds(sum(seconds))],
        ["a pair, on average", format_seconds(sum(seconds) / len(seconds))],
        ["the longest", format_seconds(max(seconds))],
    ]
    if done := run.complete_generations:
        mean = sum(generation.seconds for generation in done) / len(done)
        rows.append(["a generation, on average", format_seconds(mean)])
    return _paragraph(
        "Seconds of computing; several processes work on pairs side by side."
    ) + _table(["what", "time"], rows, numeric=(1,))


def _training_timings(run: TrainingHistory) -> str:
    if not run.epochs:
        return _paragraph("No epoch has ended yet.")
    seconds = [epoch.seconds for epoch in run.epochs]
    images = sum(epoch.images for epoch in run.epochs)
    rows = [
        ["all epochs", format_seconds(sum(seconds))],
        ["an epoch, on average", format_seconds(sum(seconds) / len(seconds))],
        ["the longest", format_seconds(max(seconds))],
        ["images a second, training and validation", f"{images / max(sum(seconds), 1e-9):.0f}"],
    ]
    return _table(["what", "time"], rows, numeric=(1,))


def _epochs_table(run: TrainingHistory) -> str:
    if not run.epochs:
        return _paragraph("No epoch has ended yet.")
    last = run.epochs[-1]
    columns = [("training", name) for name in last.training]
    columns += [("validation", name) for name in last.validation]
    rows = [
        [
            str(epoch.number + 1),
            f"{epoch.learning_rate:.6g}",
            *(_metric(name, getattr(epoch, part).get(name)) for part, name in columns),
            format_seconds(epoch.seconds),
        ]
        for epoch in run.epochs[-SHOWN_EPOCHS:]
    ]
    names = [f"{part} {metric_title(name)}" for part, name in columns]
    header = ["epoch", "learning rate", *names, "time"]
    note = ""
    if name := last.judged_by:
        best = max(run.epochs, key=lambda epoch: epoch.validation.get(name) or 0.0)
        note = (
            f"Best: epoch {best.number + 1}, {METRICS[name]} "
            f"{_metric(name, best.validation.get(name))} %; last: "
            f"{_metric(name, last.validation[name])} %."
        )
    if len(rows) < len(run.epochs):
        note += f" The last {len(rows)} epochs; all are in history.jsonl."
    return _paragraph(note) + _table(header, rows, numeric=range(len(header)))


def _metric(name: str, value: float | None) -> str:
    return _number(value) if name == "loss" else _number(value, "{:.2f}")


def _predictions(png: bytes) -> str:
    return _paragraph("What the best checkpoint (best.pt) finds in validation images.") + (
        f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" '
        'alt="Validation images with what was found in them">\n'
    )


def _confusion(confusion: Confusion) -> str:
    counts = confusion.counts.copy()
    right, total = int(counts.trace()), int(counts.sum())
    counts[range(len(counts)), range(len(counts))] = 0
    order = counts.argsort(axis=None, kind="stable")[::-1][:CONFUSED_PAIRS]
    rows = []
    for row, column in (divmod(int(index), len(counts)) for index in order):
        if counts[row, column]:
            names = confusion.classes[row], confusion.classes[column]
            rows.append([*(_shown(name, 60) for name in names), str(counts[row, column])])
    text = _paragraph(
        f"The best checkpoint (best.pt, epoch {confusion.epoch}): {right} of {total} images right."
    )
    picture = _picture(confusion_matrix(confusion), "Confusion matrix of the best checkpoint")
    if not rows:
        return text + picture
    header = ["true", "taken for", "images"]
    return text + picture + _paragraph("Most confused:") + _table(header, rows, numeric=(2,))
