"""What does a search know of its cells, and what does its choice at the end cost?

Asks the weight sets of the searches of a study (benchmarks/search_vs_random.py) about its cells, by
several signals and at several points of the search: Kendall's τ with the accuracy of cells that the
study has trained from scratch says how much each signal knows. Multiply-adds, which cost nothing to
know, must be beaten. Then each signal chooses from each search's final population, and what it
chose is trained from scratch.

The study's searches must have kept their weight sets: --search_flags="... --keep_every N".
"""

import json
import math
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as benchmarks/ranking.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

from benchmarks.ranking_report import Answer, choice_table, ranking_table
from benchmarks.search_vs_random import RANDOM, RESULTS_FILE, SAME_SIZE, training_target
from benchmarks.study import Study, add_run_arguments, run_study, trained_top1
from benchmarks.study_statistics import TrainedCell, group_of
from genotypes import Genotype, genotype_from_dict
from report.history import read_run
from report.run import Run
from report.sizes import Size
from runtime.arguments import ArgumentParser, expanded_path, non_negative_int, positive_int
from runtime.atomic_file import append_line
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError, run_script
from runtime.processes import Processes
from runtime.progress_bar import progress_bar
from runtime.settings import parse_with_resume, read_settings
from runtime.untrusted import load_json
from search.budget import Budget
from search.candidate import CandidateTrainer, make_trainer
from search.progress import KEPT_WEIGHT_SET
from search.signals import SIGNALS, after_each_turn, generations_of_turns
from train_search import parse_arguments as search_arguments
from train_search import training_recipe
from utils import choose_device, derive_seed

Question = tuple[str, int, str, str]
"""A search, the percentage of it that is done, a cell, a signal."""

ANSWERS_FILE = "answers.jsonl"
"""A line for each question that a weight set has answered."""

CHOSEN_FILE = "chosen.jsonl"
"""A line for each training of a cell that a signal chose: its name, the seed, top-1 in percent."""

AT_THE_END = ("middle", "annealed")
"""Signals for the end of a search only: before it, their second turn's learning rate is higher."""


def rank(args: Namespace, ranking: Study) -> None:
    """Ask the searches about all cells, let each signal choose, train what it chose, and report."""
    settings, cells = read_study(args.study)
    settings["data"] = args.data or settings["data"]
    study = Study(Namespace(**vars(args) | settings), Path(args.study))
    ranking.args = study.args  # what is trained here is trained as there
    answers = read_answers(ranking.path / ANSWERS_FILE)
    searches = [
        (f"{learner}-{seed}", folder)
        for seed in range(study.args.searches)
        for learner in study.args.learner
        if (folder := study.finished("search", f"{learner}-{seed}"))
    ][: args.searches]
    random = {name: genotype for name, (genotype, _) in cells.items() if group_of(name) == RANDOM}
    populations = {name: final_population(name, folder) for name, folder in searches}
    for name, population in populations.items():
        ask(args, study, ranking, answers, name, population, [100])
    if not cells:
        print("the study is still searching: only final populations have been asked")
        print(f"run folder: {ranking.path}")
        return
    for name in populations:
        ask(args, study, ranking, answers, name, random, args.percent)
    chosen = train_choices(args, study, ranking, answers, populations, cells)
    trained = [cell for _, cell in cells.values() if cell.top1]
    random_cells = [cell for cell in trained if cell.name in random]
    chance = [cell for cell in trained if group_of(cell.name) in (RANDOM, SAME_SIZE)]
    of_random = [answer for answer in answers.values() if answer.cell in random]
    print(*ranking_table(random_cells, of_random), sep="\n")
    print(*choice_table(chosen, chance, costs(args, study)), sep="\n")
    print(f"run folder: {ranking.path}")


def read_study(path: str) -> tuple[dict, dict[str, tuple[Genotype, TrainedCell]]]:
    """The settings of the study in a folder, and its cells by name, none before all are known.

    Raises:
        UserError: it is none.
    """
    settings = read_settings(path)
    if settings.get("script") != "search_vs_random.py":
        raise UserError(f"--study {path}: not a study of benchmarks/search_vs_random.py")
    file = Path(path) / RESULTS_FILE
    try:
        results = load_json(file) if file.exists() else {"cells": {}}
    except (OSError, ValueError) as error:
        raise UserError(f"--study {path}: {file.name} cannot be read ({error})") from None
    cells = {
        name: (
            genotype_from_dict(cell["genotype"]),
            TrainedCell(
                name, Size(cell["parameters"], cell["multiply_adds"]), [*cell["top1"].values()]
            ),
        )
        for name, cell in results["cells"].items()
    }
    kept = ("set", "data", "learner", "searches", "search_flags", "train_flags")
    return {name: settings[name] for name in kept}, cells


def costs(args: Namespace, study: Study) -> dict[str, float]:
    """By signal, the turns of a search that chooses by it, over those of the search alone."""
    flags = [*study.image_flags(), *shlex.split(study.args.search_flags)]
    generations = search_arguments(flags).epochs
    return {
        signal: 1 + len(generations_of_turns(signal, generations)) / generations
        for signal in args.signals
    }


def final_population(search: str, folder: Path) -> dict[str, Genotype]:
    """The different cells of a search's final population, by names for its members."""
    cells: dict[str, Genotype] = {}
    for number, member in enumerate(read_run(folder).population or []):
        if member.genotype not in cells.values():
            cells[f"{search}-member-{number}"] = member.genotype
    return cells


def ask(
    args: Namespace,
    study: Study,
    ranking: Study,
    answers: dict[Question, Answer],
    search: str,
    cells: dict[str, Genotype],
    percents: Sequence[int],
) -> None:
    """Put to a search's weight sets what they have not answered yet, as long as there is time.

    A search that has no weight sets left is named in a warning and skipped.

    Args:
        percents: of the search that is done.
    """
    to_do = {
        (percent, name): signals
        for percent in percents
        for name in cells
        if (
            signals := [
                signal
                for signal in args.signals
                if (percent == 100 or signal not in AT_THE_END)
                and (search, percent, name, signal) not in answers
            ]
        )
    }
    if not to_do or ranking.time_is_up:
        return
    folder = study.finished("search", search)
    if not any(folder.glob(KEPT_WEIGHT_SET.format(generation="*"))):
        cells_left = len({name for _, name in to_do})
        study.log.warning("%s has no weight sets left to ask about %d cell(s)", search, cells_left)
        return
    learner, _, number = search.rpartition("-")
    flags = [*study.image_flags(), "--learner", learner, "--seed", number]
    search_args = search_arguments([*flags, *shlex.split(study.args.search_flags)])
    run = Run(None, Processes(choose_device(search_args.device, search_args.gpu)))
    trainer = make_trainer(search_args, run, Budget.of(search_args))
    loaded = None
    for (percent, name), signals in progress_bar(to_do.items(), f"asking {search}", "cell"):
        if ranking.time_is_up:
            return
        generation = round(search_args.epochs * percent / 100)
        if generation != loaded:
            load_weight_set(trainer, folder, generation)
            loaded = generation
        # A search gives all members of its final population the same batches, and so does this.
        seed = derive_seed(search_args.seed, generation)
        losses = losses_by_signal(search_args, trainer, signals, cells[name], generation, seed)
        for signal, loss in losses.items():
            answer = Answer(search, percent, name, signal, loss if math.isfinite(loss) else None)
            answers[answer[:4]] = answer
            append_line(ranking.path / ANSWERS_FILE, json.dumps(answer))


def losses_by_signal(
    search_args: Namespace,
    trainer: CandidateTrainer,
    signals: Sequence[str],
    genotype: Genotype,
    generation: int,
    seed: int,
) -> dict[str, float]:
    """What each signal says of a cell; the turns that two signals begin with are taken once."""
    turns = {name: generations_of_turns(name, search_args.epochs, generation) for name in signals}
    losses: dict[str, float] = {}
    for name in sorted(signals, key=lambda name: len(turns[name]), reverse=True):
        if name in losses:
            continue
        recipes = [training_recipe(search_args, number) for number in turns[name]]
        if not recipes:
            losses[name], _ = SIGNALS[name](trainer, genotype, recipes, seed)
            continue
        results = after_each_turn(trainer, genotype, recipes, seed)
        for other, own in turns.items():
            if own and own == turns[name][: len(own)]:
                losses[other], _ = results[len(own) - 1]
    return losses


def load_weight_set(trainer: CandidateTrainer, folder: Path, generation: int) -> None:
    """Give the trainer's supernet the weight set of a search after so many generations.

    Raises:
        UserError: the search has not kept it.
    """
    path = folder / KEPT_WEIGHT_SET.format(generation=generation)
    if not path.exists():
        raise UserError(
            f"{path}: is not there; --percent must name generations after which the search kept "
            "its weight set (train_search.py --keep_every)"
        )
    trainer.supernet.load_state_dict(load_checkpoint(path)["state_dict"])


def read_answers(path: Path) -> dict[Question, Answer]:
    """What has been answered before, by question."""
    answers = [Answer(*values) for values in read_lines(path)]
    return {answer[:4]: answer for answer in answers}


def read_lines(path: Path) -> list[list]:
    """The JSON lines of a file, if it is there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def choices(
    signals: Sequence[str],
    answers: dict[Question, Answer],
    populations: dict[str, dict[str, Genotype]],
) -> tuple[dict[str, dict[str, str]], dict[str, Genotype]]:
    """What each signal chooses from the final populations that it was asked about in full.

    Returns:
        By signal and search the name of the cell, and by name the cells.
    """
    chosen: dict[str, dict[str, str]] = {signal: {} for signal in signals}
    genotypes: dict[str, Genotype] = {}
    names: dict[str, str] = {}  # searches may end with the same cell
    for search, population in populations.items():
        for signal in signals:
            own = [answers.get((search, 100, name, signal)) for name in population]
            if own and all(own):
                best = min(own, key=lambda a: math.inf if a.loss is None else a.loss).cell
                name = names.setdefault(str(population[best]), best)
                chosen[signal][search] = name
                genotypes[name] = population[best]
    return chosen, genotypes


def train_choices(
    args: Namespace,
    study: Study,
    ranking: Study,
    answers: dict[Question, Answer],
    populations: dict[str, dict[str, Genotype]],
    cells: dict[str, tuple[Genotype, TrainedCell]],
) -> dict[str, dict[str, TrainedCell]]:
    """Train what each signal chooses from the final populations; the study's cells it trains.

    Returns:
        By signal and search the chosen cell, if it has had a training.
    """
    chosen, genotypes = choices(args.signals, answers, populations)
    known = {str(genotype): cell.top1 for genotype, cell in cells.values()}
    path = ranking.path / CHOSEN_FILE
    trained = {(name, seed): top1 for name, seed, top1 in read_lines(path)}
    to_do = [
        (name, seed)
        for seed in range(args.trainings)
        for name, genotype in genotypes.items()
        if str(genotype) not in known and (name, seed) not in trained
    ]

    def train(job: tuple[str, int]) -> None:
        name, seed = job
        trained[job] = trained_top1(ranking.train(f"{name}-seed{seed}", genotypes[name], seed))
        append_line(path, json.dumps([*job, trained[job]]))

    ranking.all(progress_bar(to_do, "training", "network"), train)
    top1 = {name: list(known.get(str(genotype), [])) for name, genotype in genotypes.items()}
    for name, seed in sorted(trained):
        if name in top1:  # else it was chosen by signals that are not asked about now
            top1[name].append(trained[name, seed])
    target = training_target(study.args, study)
    trained_cells = {
        name: TrainedCell(name, target.size(genotype), top1[name])
        for name, genotype in genotypes.items()
        if top1[name]
    }
    return {
        signal: {
            search: trained_cells[name] for search, name in own.items() if name in trained_cells
        }
        for signal, own in chosen.items()
    }


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--study", type=expanded_path, metavar="DIR", help="run folder of the study")
    add("--data", type=expanded_path, help="folder of the images (default: the study's)")
    add("--searches", type=positive_int, default=100, help="so many of its searches at most")
    add("--signals", choices=SIGNALS, nargs="+", default=[*SIGNALS], help="what to ask by")
    add(
        "--percent",
        type=positive_int,
        nargs="+",
        default=[100, 75, 50, 25],
        help="points of the search at which to ask about random cells",
    )
    add(
        "--trainings",
        type=non_negative_int,
        default=1,
        help="of each cell that a signal chooses and that is none of the study's",
    )
    add_run_arguments(parser, "ranking")
    changeable = ("study", "data", "jobs", "minutes", "searches", "signals", "percent", "trainings")
    args = parse_with_resume(parser, argv, changeable)
    if args.study is None:
        raise UserError("--study DIR: name the run folder of a study")
    return args


def main() -> None:
    args = parse_arguments()
    run_study("ranking", args, lambda ranking: rank(args, ranking))


if __name__ == "__main__":
    run_script(main)
