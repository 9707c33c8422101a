"""Search for cells with slow-fast learning (RelativeNAS, arXiv:2009.06193).

`search` is the paper's loop (Algorithm 1): pairs → train and validate both → who is slow → move →
merge weights. The rules are in slow_fast_learning.py, the supernet in model_search.py, a
candidate's turn in search/candidate.py, the budget in search/budget.py.
"""

import math
import os
import sys
from argparse import BooleanOptionalAction, Namespace

if __name__ == "__main__" and sys.flags.safe_path:  # python -I or -P: the root is not on the path
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from dataset.image_arguments import (
    add_augmentation_arguments,
    add_device_arguments,
    add_set_arguments,
)
from report.run import Run
from runtime.arguments import (
    ArgumentParser,
    add_precision_argument,
    add_tensorboard_argument,
    expanded_path,
    file_name,
    non_negative_float,
    non_negative_int,
    positive_int,
    probability,
    seed_number,
)
from runtime.errors import UserError, run_script
from runtime.session import run_session
from runtime.settings import parse_with_resume
from search.budget import Budget, add_budget_arguments, check_budget, count_classes
from search.candidate import Outcome, TrainingRecipe, make_trainer
from search.learners import LEARNERS
from search.progress import Pair, SearchProgress
from search.results import validate_population, write_results
from search.signals import SIGNALS, generations_of_turns
from slow_fast_learning import decode, search_bounds, slow_and_fast, update_weight_set
from utils import choose_device, derive_seed

MAX_POPULATION, MAX_CANDIDATES = 10_000, 100_000
"""Members, and candidates over all generations; larger checkpoints would be refused as hostile."""

CHANGEABLE_ON_RESUME = (
    "data", "data_device", "device", "gpu", "save_memory", "cuda_graphs", "report_freq",
    "tensorboard", "keep_every",
)  # fmt: skip


def search(args: Namespace, run: Run) -> None:
    """Run the search to its end (Algorithm 1) and write what it found into the run folder."""
    budget = Budget.of(args)
    trainer = make_trainer(args, run, budget)
    # The supernet's own tensors: what is merged into them is what the next candidates start from.
    weight_set = trainer.supernet.state_dict()
    learning = LEARNERS[args.learner](*search_bounds(), args.pop_size, args.seed)
    budget.draw_within(learning)
    progress = SearchProgress(run, args.epochs, learning, weight_set, budget, args.keep_every)

    def train_and_validate(pair: Pair) -> list[Outcome]:
        recipe = training_recipe(args, progress.generation)
        # Both see the same batches, so that they are compared on equal terms.
        seed = derive_seed(args.seed, progress.generation, progress.pairs.index(pair))
        genotypes = [decode(learning.positions[member]) for member in pair]
        return [trainer.take_turn(genotype, recipe, seed) for genotype in genotypes]

    progress.begin(resume=bool(args.resume))
    # A generation's pairs are drawn at random; a round is one of them for each process.
    for pairs in progress.rounds():
        outcomes_of_pairs = run.processes.share_out(pairs, train_and_validate)
        for pair, outcomes in zip(pairs, outcomes_of_pairs, strict=True):
            losses, excesses = zip(*((o.loss, o.excess) for o in outcomes), strict=True)
            slow, fast = slow_and_fast(pair, losses, excesses)
            if fast is not None:
                learning.move(slow, fast)
                learned = dict(zip(pair, (outcome.weights for outcome in outcomes), strict=True))
                update_weight_set(weight_set, fast=learned[fast], slow=learned[slow])
            progress.record_pair(pair, outcomes, slow)
        progress.finish_round()

    recipes = [training_recipe(args, g) for g in generations_of_turns(args.choose_by, args.epochs)]
    population = validate_population(args, recipes, learning, trainer, budget, run.processes)
    write_results(args, run, budget, population, weight_set, trainer.data.train_set)
    run.finish()


def training_recipe(args: Namespace, generation: int) -> TrainingRecipe:
    """How candidates are trained in a generation: the learning rate falls, drop path rises."""
    done = generation / args.epochs
    span = args.learning_rate - args.learning_rate_min
    return TrainingRecipe(
        learning_rate=args.learning_rate_min + span * (1 + math.cos(math.pi * done)) / 2,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        grad_clip=args.grad_clip,
        drop_path_prob=args.drop_path_prob * done,
    )


def add_recipe_arguments(parser: ArgumentParser) -> None:
    """Add the recipe's numbers as flags."""
    add = parser.add_argument
    add("--train_portion", type=probability, default=0.5, help="part of the images to train on")
    add(
        "--learner",
        choices=LEARNERS,
        default="published",
        help="how slow learners learn (docs/learners.md)",
    )
    add(
        "--choose_by",
        choices=SIGNALS,
        default="shared",
        help="how the final population is compared: with the shared weights, as published, with "
        "batch norm's own statistics, or after own turns: one or two by the last generation's "
        "recipe, one by the middle one's, or one by each",
    )
    add("--pop_size", type=int, default=20, help="population size, even")
    add("--epochs", type=positive_int, default=50, help="generations")
    add("--batch_size", type=positive_int, default=256, help="images of a step")
    add("--init_channels", type=positive_int, default=16, help="channels of the first cells")
    add("--layers", type=positive_int, default=8, help="number of cells")
    add("--learning_rate", type=non_negative_float, default=0.1, help="in the first generation")
    add("--learning_rate_min", type=non_negative_float, default=0.001, help="its cosine's limit")
    add("--momentum", type=non_negative_float, default=0.9, help="of SGD")
    add("--weight_decay", type=non_negative_float, default=3e-4, help="of SGD")
    add(
        "--grad_clip",
        type=non_negative_float,
        default=5.0,
        help="largest norm of the gradient; 0: any",
    )
    add("--drop_path_prob", type=probability, default=0.3, help="what it rises towards, from 0")
    add("--seed", type=seed_number, default=7, help="of all random numbers")


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line; the defaults are the published recipe (section IV-A)."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add_set_arguments(parser)
    add_augmentation_arguments(parser)
    add_recipe_arguments(parser)
    add_budget_arguments(parser)
    add_device_arguments(parser)
    add_precision_argument(parser)
    add(
        "--save_memory",
        action=BooleanOptionalAction,
        default=False,
        help="train in less memory, for more time: the same results",
    )
    add(
        "--cuda_graphs",
        nargs="?",
        choices=("auto", "on", "off"),
        default="auto",
        const="on",
        help="launch each step as one CUDA graph; auto: on a GPU",
    )
    add("--report_freq", type=positive_int, default=50, help="log every so many training steps")
    add_tensorboard_argument(parser)
    add(
        "--save",
        type=expanded_path,
        default="runs/EXP",
        help="PATH/NAME: the run folder is PATH/search-NAME-DATE-TIME",
    )
    add(
        "--model_path",
        type=file_name,
        default="weight_set.pt",
        help="name of the file for the final weight set, in the run folder",
    )
    add(
        "--keep_every",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="keep the weight set after every N generations, too, in files of their own",
    )
    add(
        "--resume",
        type=expanded_path,
        metavar="DIR",
        help="go on with the search in this run folder",
    )
    args = parse_with_resume(parser, argv, CHANGEABLE_ON_RESUME, former_switches=("cuda_graphs",))
    args.data = os.path.abspath(args.data)
    if args.batch_size < 2:
        raise UserError(f"--batch_size {args.batch_size}: batch norm needs at least two images")
    if args.pop_size % 2 or args.pop_size < 2:
        raise UserError(f"--pop_size {args.pop_size}: pairs need an even number, 2 or more")
    if args.pop_size > MAX_POPULATION or args.pop_size * args.epochs > MAX_CANDIDATES:
        raise UserError(
            f"--pop_size {args.pop_size} --epochs {args.epochs}: at most {MAX_POPULATION} members "
            f"and {MAX_CANDIDATES} candidates; lower one of the two"
        )
    count_classes(args)
    check_budget(args)
    return args


def main() -> None:
    args = parse_arguments()
    device = choose_device(args.device, args.gpu)
    if args.cuda_graphs == "on" and device.type != "cuda":
        raise UserError("--cuda_graphs on: needs a CUDA GPU; use auto or off on the CPU")
    run_session(
        "search",
        args,
        device,
        lambda folder, processes: search(args, Run(folder, processes, args.tensorboard)),
        "lower --batch_size, --init_channels or --image_size, or use --save_memory, "
        "--precision bf16 or --data_device cpu",
    )


if __name__ == "__main__":
    run_script(main)
