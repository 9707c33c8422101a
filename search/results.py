"""What a search ends with: the final population, the best of it, and what to do with that."""

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path

from torch import Tensor

from dataset.image_set import ImageSet
from genotypes import GENOTYPE_FILE, Genotype, genotype_from_dict
from report.records import POPULATION_FILE
from report.run import Run
from report.sizes import TARGETS
from runtime.arguments import script_command
from runtime.errors import UserError
from runtime.processes import Processes
from search.budget import Budget, chosen_target
from search.candidate import CandidateTrainer, TrainingRecipe
from search.signals import SIGNALS
from slow_fast_learning import Population, decode
from utils import derive_seed


def validate_population(
    args: Namespace,
    recipes: Sequence[TrainingRecipe],
    learning: Population,
    trainer: CandidateTrainer,
    budget: Budget,
    processes: Processes,
) -> list[dict]:
    """Every member of the final population, validated by the signal `--choose_by`.

    Those outside the budget are not validated; their loss and accuracy are None.

    Args:
        recipes: of the turns that the signal takes.
    """
    # All members see the same batches, so that they are compared on equal terms.
    seed = derive_seed(args.seed, args.epochs)

    def validate(genotype: Genotype) -> tuple[float, float]:
        if budget.excess(genotype):
            return nan, nan
        return SIGNALS[args.choose_by](trainer, genotype, recipes, seed)

    genotypes = [decode(vector) for vector in learning.positions]
    results = processes.share_out(genotypes, validate, "final validation")
    return [
        {
            "genotype": genotype._asdict(),
            "vector": vector.tolist(),
            "loss": loss if isfinite(loss) else None,
            "accuracy": accuracy if isfinite(accuracy) else None,
            **budget.target.size(genotype)._asdict(),
        }
        for genotype, vector, (loss, accuracy) in zip(
            genotypes, learning.positions, results, strict=True
        )
    ]


def write_results(
    args: Namespace,
    run: Run,
    budget: Budget,
    population: list[dict],
    weight_set: Mapping[str, Tensor],
    images: ImageSet,
) -> None:
    """Write the final population and its best into the run folder, and say what comes next.

    Args:
        images: that were searched on.
    """
    genotypes = [genotype_from_dict(member["genotype"]) for member in population]
    if all(budget.excess(genotype) for genotype in genotypes):
        raise UserError(
            "no cell of the final population is within the budget; widen it, or search again with "
            "a larger --pop_size or more --epochs"
        )
    finite = [member for member in population if member["loss"] is not None]
    if not finite:
        raise UserError(
            "no network of the final population has a finite loss; search again with a lower "
            "--learning_rate"
        )
    best = min(finite, key=lambda member: member["loss"])
    genotype = genotype_from_dict(best["genotype"])
    run.write_json(POPULATION_FILE, population)
    run.write_json(GENOTYPE_FILE, genotype._asdict())
    run.save(args.model_path, {"state_dict": weight_set, "class_names": list(images.class_names)})
    run.log.info("best genotype: %s", genotype)
    weights = (
        "the shared weights" if args.choose_by == "shared" else f"--choose_by {args.choose_by}"
    )
    run.log.info("its validation accuracy with %s: %.2f %%", weights, best["accuracy"])
    for target in dict.fromkeys([budget.target, *TARGETS.values()]):
        run.log.info("its size: %s (%s)", target.size(genotype), target)
    if run.folder:
        run.log.info("run folder: %s", run.folder.path)
        run.log.info("train it from scratch: %s", training_command(args, run.folder.path))


def training_command(args: Namespace, folder: Path) -> str:
    """The command that trains the cell found in the run folder `folder` in the target's network.

    It is for the same images, unless the network is one for ImageNet.
    """
    genotype = str(folder / GENOTYPE_FILE)
    target, published = chosen_target(args), TARGETS[args.target]
    if args.target == "imagenet":
        command = [*script_command("train_imagenet.py"), "--arch", genotype, "--data_path", "DIR"]
    else:
        command = [*script_command("train.py"), "--set", args.set, "--arch", genotype]
        if args.set == "digits":  # so many epochs suit so few images
            command += ["--epochs", "10", "--batch_size", "32", "--no-cutout"]
        else:
            command += ["--data", args.data]
    flags = {"--init_channels": "channels", "--layers": "layers", "--image_size": "image_size"}
    if args.target == "cifar" and args.set != "folder":
        del flags["--image_size"]  # their images have one size
    for flag, attribute in flags.items():
        value = getattr(target, attribute)
        command += [flag, str(value)] if value != getattr(published, attribute) else []
    return shlex.join(command)
