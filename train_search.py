"""Search for cells with slow-fast learning (RelativeNAS, arXiv:2009.06193)."""

import math
import os
import shlex
import sys
import time
from argparse import BooleanOptionalAction, Namespace

import torch

from arguments import (
    ArgumentParser,
    non_negative_float,
    non_negative_int,
    positive_int,
    probability,
)
from candidate import CandidateTrainer, SearchData, TrainingRecipe
from checkpoint import save_checkpoint
from dataset.image_set import (
    SET_NAMES,
    STATISTICS_FILE,
    image_statistics,
    load_image_set,
    set_augmentation,
)
from errors import UserError, run_script
from genotypes import save_genotype
from learners import LEARNERS
from model_search import Supernet
from progress import progress_bar
from run_folder import RunFolder, parse_with_resume, write_json
from search_progress import SearchProgress
from seeds import derive_seed
from slow_fast_learning import (
    Population,
    decode,
    search_bounds,
    slow_and_fast,
    update_weight_set,
)
from utils import choose_device, choose_precision

CHANGEABLE_ON_RESUME = ("data", "data_device", "device", "gpu", "report_freq")


def search(args: Namespace, run: RunFolder) -> None:
    """Run the search to its end (Algorithm 1) and write what it found into the run folder."""
    device = choose_device(args.device, args.gpu)
    data = load_search_data(args, run, device)
    torch.manual_seed(args.seed)
    supernet = Supernet(args.init_channels, data.train_set.num_classes, args.layers)
    supernet.to(device, memory_format=torch.channels_last)
    weight_set = supernet.state_dict()
    precision = choose_precision(args.precision, device)
    trainer = CandidateTrainer(supernet, data, precision, args.report_freq)
    learning = LEARNERS[args.learner](*search_bounds(), args.pop_size, args.seed)
    progress = SearchProgress(run, args.epochs, learning, weight_set)
    if args.resume:
        progress.resume()

    while not progress.finished:
        recipe = training_recipe(args, progress.generation)
        for pair in progress.remaining_pairs():
            started = time.monotonic()
            genotypes = [decode(learning.positions[member]) for member in pair]
            # Both see the same batches, so that they are compared on equal terms.
            seed = derive_seed(args.seed, progress.generation, progress.pairs_done)
            outcomes = [trainer.take_turn(genotype, recipe, seed) for genotype in genotypes]
            slow, fast = slow_and_fast(pair, tuple(outcome.loss for outcome in outcomes))
            if fast is not None:
                learning.move(slow, fast)
                weights = {member: o.weights for member, o in zip(pair, outcomes, strict=True)}
                update_weight_set(weight_set, weights[fast], weights[slow])
            progress.record_pair(pair, genotypes, outcomes, slow, time.monotonic() - started)

    choose_best(args, run, learning, trainer)


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


def load_search_data(args: Namespace, run: RunFolder, device: torch.device) -> SearchData:
    """The training images, divided at random into a part to train and a part to validate on."""
    images = load_image_set(args.set, args.data, "train", args.image_size)
    statistics = image_statistics(args.set, images, run.path / STATISTICS_FILE)
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
            args.set, images.images.shape[-1], args.cutout_length if args.cutout else 0
        ),
        statistics=statistics,
        batch_size=args.batch_size,
        device=device,
    )


def choose_best(
    args: Namespace, run: RunFolder, learning: Population, trainer: CandidateTrainer
) -> None:
    """Validate the final population with the final weight set, and write it and its best."""
    population = []
    for vector in progress_bar(learning.positions, "final validation", "network"):
        genotype = decode(vector)
        loss, accuracy = trainer.validate(genotype)
        population.append(
            {
                "genotype": genotype._asdict(),
                "vector": vector.tolist(),
                "loss": loss if math.isfinite(loss) else None,
                "accuracy": accuracy,
            }
        )
    finite = [member for member in population if member["loss"] is not None]
    if not finite:
        raise UserError(
            "no network of the final population has a finite loss; search again with a lower "
            "--learning_rate"
        )
    best = min(finite, key=lambda member: member["loss"])
    genotype = decode(learning.positions[population.index(best)])
    write_json(run.path / "population.json", population)
    save_genotype(genotype, run.path / "genotype.json")
    save_checkpoint({"state_dict": trainer.supernet.state_dict()}, run.path / args.model_path)
    run.log.info("best genotype: %s", genotype)
    run.log.info("its validation accuracy with the shared weights: %.2f %%", best["accuracy"])
    run.log.info("run folder: %s", run.path)
    run.log.info("train it from scratch: %s", training_command(args, run))


def training_command(args: Namespace, run: RunFolder) -> str:
    """The command that trains the found cell on the same images."""
    python = sys.executable
    if os.path.commonpath([python, os.getcwd()]) == os.getcwd():
        python = os.path.relpath(python)
    command = [python, "train.py", "--set", args.set, "--arch", str(run.path / "genotype.json")]
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
    add("--set", choices=SET_NAMES, default="cifar10", help="image set to search on")
    add("--data", default="./data", help="folder of the image set")
    add("--image_size", type=positive_int, help="size that images of --set folder get (default 32)")
    add(
        "--data_device",
        choices=("auto", "cpu"),
        default="auto",
        help="where the images are kept: where the network is (auto), or in CPU memory",
    )
    add("--train_portion", type=probability, default=0.5, help="part of the images to train on")
    add("--cutout", action=BooleanOptionalAction, default=True, help="use cutout")
    add(
        "--cutout_length",
        type=non_negative_int,
        default=16,
        help="side of the cutout square in pixels",
    )
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
    add("--grad_clip", type=non_negative_float, default=5.0, help="largest norm of the gradient")
    add("--drop_path_prob", type=probability, default=0.3, help="where its rise from 0 ends")
    add("--seed", type=non_negative_int, default=7, help="of all random numbers")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to compute on")
    add("--gpu", type=non_negative_int, default=0, help="number of the GPU")
    add(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 where the GPU has it",
    )
    add("--report_freq", type=positive_int, default=50, help="log every so many training steps")
    add(
        "--save", default="runs/EXP", help="PATH/NAME: the run folder is PATH/search-NAME-DATE-TIME"
    )
    add(
        "--model_path",
        default="weight_set.pt",
        help="file for the final weight set, seen from the run folder",
    )
    add("--resume", metavar="DIR", help="go on with the search in this run folder")
    args = parse_with_resume(parser, argv, CHANGEABLE_ON_RESUME)
    if args.pop_size < 2 or args.pop_size % 2:
        raise UserError(f"--pop_size {args.pop_size}: pairs need an even number, at least 2")
    return args


def main() -> None:
    args = parse_arguments()
    run = RunFolder.for_run("search", args)
    search(args, run)


if __name__ == "__main__":
    run_script(main)
