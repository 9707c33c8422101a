"""What a search ends with: the final population, the best of it, and what to do with that."""

import math
import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from genotypes import GENOTYPE_FILE, genotype_from_dict
from report.records import POPULATION_FILE
from report.run import Run
from runtime.arguments import script_command
from runtime.errors import UserError
from runtime.processes import Processes
from search.candidate import CandidateTrainer
from slow_fast_learning import Population, decode


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
    args: Namespace,
    run: Run,
    population: list[dict],
    weight_set: Mapping[str, Tensor],
    class_names: Sequence[str],
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
    run.write_json(POPULATION_FILE, population)
    run.write_json(GENOTYPE_FILE, genotype._asdict())
    run.save(args.model_path, {"state_dict": weight_set, "class_names": list(class_names)})
    run.log.info("best genotype: %s", genotype)
    run.log.info("its validation accuracy with the shared weights: %.2f %%", best["accuracy"])
    if run.folder:
        run.log.info("run folder: %s", run.folder.path)
        run.log.info("train it from scratch: %s", training_command(args, run.folder.path))


def training_command(args: Namespace, folder: Path) -> str:
    """The command that trains the cell found in the run folder `folder` on the same images."""
    command = script_command("train.py")
    command += ["--set", args.set, "--arch", str(folder / GENOTYPE_FILE)]
    if args.set == "digits":
        # A network and a number of epochs that suit 1,437 images of 16×16.
        command += [
            "--init_channels", "8", "--layers", "5", "--epochs", "10", "--batch_size", "32",
            "--no-cutout",
        ]  # fmt: skip
    else:
        command += ["--data", args.data]
    if args.image_size is not None:
        command += ["--image_size", str(args.image_size)]
    return shlex.join(command)
