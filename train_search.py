"""Search for cells with slow-fast learning (RelativeNAS, arXiv:2009.06193)."""

import math
import os
import shlex
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dataset.image_arguments import (
    add_augmentation_arguments,
    add_device_arguments,
    add_set_arguments,
)
from dataset.image_set import (
    STATISTICS_FILE,
    image_statistics,
    load_image_set,
    set_augmentation,
)
from genotypes import genotype_from_dict, save_genotype
from model_search import Supernet
from report.history import GENOTYPE_FILE, POPULATION_FILE, REPORT_FILE
from report.live import LiveReport
from runtime.arguments import (
    ArgumentParser,
    non_negative_float,
    positive_int,
    probability,
    seed_number,
)
from runtime.atomic_file import write_json
from runtime.checkpoint import checkpoint_files, save_checkpoint
from runtime.errors import UserError, run_script
from runtime.out_of_memory import memory_advice
from runtime.processes import Processes, launched, local_rank
from runtime.run_folder import FOLDER_FILES, RunFolder
from runtime.scalar_log import ScalarLog, add_tensorboard_argument
from runtime.session import run_session, script_command
from runtime.settings import parse_with_resume
from search.candidate import CandidateTrainer, Outcome, SearchData, TrainingRecipe
from search.learners import LEARNERS
from search.progress import CHECKPOINT_FILE, Pair, SearchProgress
from slow_fast_learning import (
    Population,
    decode,
    search_bounds,
    slow_and_fast,
    update_weight_set,
)
from speed.cuda_graphs import CudaGraphs
from speed.memory import keep_freed_memory
from utils import choose_device, choose_precision, derive_seed

OWN_FILES = (
    *FOLDER_FILES,
    *map(str, checkpoint_files(Path(CHECKPOINT_FILE))),
    STATISTICS_FILE,
    GENOTYPE_FILE,
    POPULATION_FILE,
    REPORT_FILE,
)
"""What a search writes into its folder beside the weight set."""

MAX_POPULATION = 1_000_000

CHANGEABLE_ON_RESUME = (
    "data",
    "data_device",
    "device",
    "gpu",
    "save_memory",
    "cuda_graphs",
    "report_freq",
    "tensorboard",
)


def search(args: Namespace, run: RunFolder | None, processes: Processes) -> None:
    """Run the search to its end (Algorithm 1) and write what it found into the run folder."""
    data = load_search_data(args, run, processes.device)
    torch.manual_seed(args.seed)
    classes = data.train_set.num_classes
    supernet = Supernet(args.init_channels, classes, args.layers, args.save_memory)
    supernet.to(processes.device, memory_format=torch.channels_last)
    weight_set = supernet.state_dict()
    precision = choose_precision(args.precision, processes.device)
    recorder = CudaGraphs(processes.device) if args.cuda_graphs else None
    trainer = CandidateTrainer(
        supernet, data, precision, args.report_freq, recorder, processes.interruption
    )
    learning = LEARNERS[args.learner](*search_bounds(), args.pop_size, args.seed)
    scalars = ScalarLog(run, args.tensorboard)
    progress = SearchProgress(run, processes, args.epochs, learning, weight_set, scalars)
    if args.resume:
        progress.resume()
    scalars.open(progress.generation)
    report = LiveReport(run)

    def train_and_validate(pair: Pair) -> list[Outcome]:
        recipe = training_recipe(args, progress.generation)
        # Both see the same batches, so that they are compared on equal terms.
        seed = derive_seed(args.seed, progress.generation, progress.pairs.index(pair))
        genotypes = [decode(learning.positions[member]) for member in pair]
        return [trainer.take_turn(genotype, recipe, seed) for genotype in genotypes]

    processes.interruption.defer()
    while not progress.finished:
        # A round is one pair, as published; with several processes it is one for each of them.
        for pairs in progress.remaining_rounds():
            outcomes_of_pairs = processes.share_out(pairs, train_and_validate)
            for pair, outcomes in zip(pairs, outcomes_of_pairs, strict=True):
                slow, fast = slow_and_fast(pair, tuple(outcome.loss for outcome in outcomes))
                if fast is not None:
                    learning.move(slow, fast)
                    weights = {m: o.weights for m, o in zip(pair, outcomes, strict=True)}
                    update_weight_set(weight_set, weights[fast], weights[slow])
                progress.record_pair(pair, outcomes, slow)
            progress.save()
        report.refresh()

    scalars.close()
    population = validate_population(learning, trainer, processes)
    if run:
        write_results(args, run, population, weight_set)
    report.finish()


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


def load_search_data(args: Namespace, run: RunFolder | None, device: torch.device) -> SearchData:
    """The training images, divided at random into a part to train and a part to validate on."""
    images = load_image_set(args.set, args.data, "train", args.image_size)
    statistics = image_statistics(args.set, images, run.path / STATISTICS_FILE if run else None)
    train_count = int(len(images) * args.train_portion)
    if not 2 <= train_count < len(images):
        raise UserError(
            f"--train_portion {args.train_portion}: leaves {train_count} of {len(images)} images "
            "to train on; both parts need images"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed))
    images = images.to(torch.device("cpu") if args.data_device == "cpu" else device)
    return SearchData(
        train_set=images.subset(order[:train_count]),
        validation_set=images.subset(order[train_count:]),
        augmentation=set_augmentation(
            args.set, images.images.shape[-1], args.cutout, args.cutout_length
        ),
        statistics=statistics,
        batch_size=args.batch_size,
        device=device,
    )


def validate_population(
    learning: Population, trainer: CandidateTrainer, processes: Processes
) -> list[dict]:
    """Every member of the final population, validated with the final weight set."""
    genotypes = [decode(vector) for vector in learning.positions]
    results = processes.share_out(genotypes, trainer.validate, "final validation")
    return [
        {
            "genotype": genotype._asdict(),
            "vector": vector.tolist(),
            "loss": loss if math.isfinite(loss) else None,
            "accuracy": accuracy,
        }
        for genotype, vector, (loss, accuracy) in zip(
            genotypes, learning.positions, results, strict=True
        )
    ]


def write_results(
    args: Namespace, run: RunFolder, population: list[dict], weight_set: Mapping[str, Tensor]
) -> None:
    """Write the final population and its best into the run folder, and say what comes next."""
    finite = [member for member in population if member["loss"] is not None]
    if not finite:
        raise UserError(
            "no network of the final population has a finite loss; search again with a lower "
            "--learning_rate"
        )
    best = min(finite, key=lambda member: member["loss"])
    genotype = genotype_from_dict(best["genotype"])
    write_json(run.path / POPULATION_FILE, population)
    save_genotype(genotype, run.path / GENOTYPE_FILE)
    save_checkpoint({"state_dict": weight_set}, run.path / args.model_path)
    run.log.info("best genotype: %s", genotype)
    run.log.info("its validation accuracy with the shared weights: %.2f %%", best["accuracy"])
    run.log.info("run folder: %s", run.path)
    run.log.info("train it from scratch: %s", training_command(args, run))


def training_command(args: Namespace, run: RunFolder) -> str:
    """The command that trains the found cell on the same images."""
    command = script_command("train.py")
    command += ["--set", args.set, "--arch", str(run.path / GENOTYPE_FILE)]
    if args.set == "digits":
        # A network and a number of epochs that suit 1,437 images of 16×16.
        command += [
            "--init_channels",
            "8",
            "--layers",
            "5",
            "--epochs",
            "10",
            "--batch_size",
            "32",
            "--no-cutout",
        ]
    else:
        command += ["--data", args.data]
    if args.image_size is not None:
        command += ["--image_size", str(args.image_size)]
    return shlex.join(command)


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line; the defaults are the published recipe (section IV-A)."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add_set_arguments(parser)
    add_augmentation_arguments(parser)
    add("--train_portion", type=probability, default=0.5, help="part of the images to train on")
    add(
        "--learner",
        choices=LEARNERS,
        default="published",
        help="how slow learners learn (docs/learners.md)",
    )
    add("--pop_size", type=int, default=20, help="population size, even")
    add("--epochs", type=positive_int, default=50, help="generations")
    add("--batch_size", type=positive_int, default=256, help="images of a step")
    add("--init_channels", type=positive_int, default=16, help="channels of the first cells")
    add("--layers", type=positive_int, default=8, help="number of cells")
    add("--learning_rate", type=non_negative_float, default=0.1, help="in the first generation")
    add("--learning_rate_min", type=non_negative_float, default=0.001, help="where its cosine ends")
    add("--momentum", type=non_negative_float, default=0.9, help="of SGD")
    add("--weight_decay", type=non_negative_float, default=3e-4, help="of SGD")
    add(
        "--grad_clip",
        type=non_negative_float,
        default=5.0,
        help="largest norm of the gradient; 0: any",
    )
    add("--drop_path_prob", type=probability, default=0.3, help="where its rise from 0 ends")
    add("--seed", type=seed_number, default=7, help="of all random numbers")
    add_device_arguments(parser)
    add(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 where the GPU has it",
    )
    add(
        "--save_memory",
        action=BooleanOptionalAction,
        default=False,
        help="train in less memory, for more time: the same results",
    )
    add(
        "--cuda_graphs",
        action=BooleanOptionalAction,
        default=False,
        help="launch each step as one CUDA graph",
    )
    add("--report_freq", type=positive_int, default=50, help="log every so many training steps")
    add_tensorboard_argument(parser)
    add(
        "--save", default="runs/EXP", help="PATH/NAME: the run folder is PATH/search-NAME-DATE-TIME"
    )
    add(
        "--model_path",
        default="weight_set.pt",
        help="name of the file for the final weight set, in the run folder",
    )
    add("--resume", metavar="DIR", help="go on with the search in this run folder")
    args = parse_with_resume(parser, argv, CHANGEABLE_ON_RESUME)
    args.data = os.path.abspath(args.data)
    if args.batch_size < 2:
        raise UserError(f"--batch_size {args.batch_size}: batch norm needs at least two images")
    if not _may_name_a_file(args.model_path):
        raise UserError(
            f"--model_path {args.model_path}: must be the name of a file, not ending in .tmp, and "
            "none of " + ", ".join(OWN_FILES)
        )
    if args.pop_size % 2 or not 2 <= args.pop_size <= MAX_POPULATION:
        raise UserError(
            f"--pop_size {args.pop_size}: pairs need an even number, from 2 to {MAX_POPULATION}"
        )
    return args


def _may_name_a_file(name: str) -> bool:
    """Whether a search may write a file of this name of the user's choice into its folder."""
    is_name = name not in ("", ".", "..") and os.path.basename(name) == name and len(name) < 200
    return is_name and not name.endswith(".tmp") and name not in OWN_FILES


def main() -> None:
    args = parse_arguments()
    with memory_advice(
        "lower --batch_size, --init_channels or --image_size, or use --save_memory, "
        "--precision bf16 or --data_device cpu"
    ):
        run_search(args)


def run_search(args: Namespace) -> None:
    """Search in each process, in the main one with the run folder."""
    device = choose_device(args.device, local_rank() if launched() else args.gpu)
    if args.cuda_graphs and device.type != "cuda":
        raise UserError("--cuda_graphs: needs a CUDA GPU; leave it out on the CPU")
    keep_freed_memory()
    run_session("search", args, device, search)


if __name__ == "__main__":
    run_script(main)
