"""A budget: how large the network may be that the cell found is to be trained in.

Which of a pair is fast within a budget is a rule of the method (`slow_and_fast`); here is what
the rule needs to know, and what the budget means before the first pair.
"""

from argparse import Namespace
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np

from dataset.class_folders import class_folders
from genotypes import PRIMITIVES, Genotype
from report.sizes import TARGETS, Size, Target, target_of
from runtime.arguments import ArgumentParser, millions, positive_int
from runtime.errors import UserError
from slow_fast_learning import NODES, Population, decode

FLAGS = ("max_params", "max_multiply_adds", "min_params", "min_multiply_adds")

MAX_DRAWS = 1000
"""So often a member of the first population is drawn in search of one within the budget."""


@dataclass(frozen=True)
class Budget:
    """Limits for the size of the network that is to be trained.

    Attributes:
        target: that network.
        smallest, largest: limits of parameters and multiply-adds, which are within; 0 and
            infinity where there is none.
    """

    target: Target
    smallest: tuple[float, float]
    largest: tuple[float, float]

    @classmethod
    def of(cls, args: Namespace) -> "Budget":
        """What the flags of `add_budget_arguments` ask for.

        Raises:
            UserError: a flag of the target is out of its range.
        """

        def limit(millions: float | None, unlimited: float) -> float:
            return unlimited if millions is None else round(millions * 1e6)

        return cls(
            chosen_target(args),
            (limit(args.min_params, 0), limit(args.min_multiply_adds, 0)),
            (limit(args.max_params, inf), limit(args.max_multiply_adds, inf)),
        )

    @property
    def is_given(self) -> bool:
        """Whether there is any limit."""
        return self != Budget(self.target, (0, 0), (inf, inf))

    def excess(self, genotype: Genotype) -> float:
        """By how much the network of `genotype` is outside; 0 if it is within the budget.

        The sum over the limits of the factor by which each is missed, less one.
        """
        if not self.is_given:
            return 0.0
        total = 0.0
        for size, smallest, largest in zip(
            self.target.size(genotype), self.smallest, self.largest, strict=True
        ):
            total += max(0.0, size / largest - 1, smallest / size - 1)
        return total

    def draw_within(self, learning: Population) -> None:
        """Draw the members of a first population that are outside again until they are within.

        They are the first generation's: a learner that deals values anew does so from the next on.
        After `MAX_DRAWS` in vain the one drawn that is outside by the least is taken.
        """
        for member, position in enumerate(learning.positions.copy()):
            least = self.excess(decode(position))
            draws = 0
            while least > 0 and draws < MAX_DRAWS:
                (position,) = learning.initial_positions(1)
                excess = self.excess(decode(position))
                if excess < least:
                    least = excess
                    learning.positions[member] = position
                draws += 1
        if self.is_given:
            learning.keep_positions()


def chosen_target(args: Namespace) -> Target:
    """The network that the flags of `add_target_arguments` stand for.

    Raises:
        UserError: a flag is out of its range.
    """
    try:
        return target_of(vars(args))
    except ValueError as error:
        raise UserError(f"--{error}") from None


def check_budget(args: Namespace) -> None:
    """Make sure that there is a cell within the budget.

    Raises:
        UserError: there is none.
    """
    budget = Budget.of(args)
    if not budget.is_given:
        return
    normal_sums, reduce_sums = (_sums(budget.target, reduction) for reduction in (False, True))
    nodes = list(range(2, NODES + 2))
    around = np.array(budget.target.size(Genotype([], nodes, [], nodes)))  # without operations
    for normal_sum in normal_sums:
        sizes = around + normal_sum + reduce_sums
        if ((sizes >= budget.smallest) & (sizes <= budget.largest)).all(axis=1).any():
            return
    smallest, largest = (
        Size(*(around + extreme(normal_sums, axis=0) + extreme(reduce_sums, axis=0)).tolist())
        for extreme in (np.min, np.max)
    )
    flags = " ".join(
        f"--{flag} {getattr(args, flag)}" for flag in FLAGS if getattr(args, flag) is not None
    )
    raise UserError(
        f"{flags}: no cell is within this budget; the smallest have {smallest}, the largest "
        f"{largest} ({budget.target})"
    )


def _sums(target: Target, reduction: bool) -> np.ndarray:
    """What all operations of a cell of the search space can add up to.

    Returns:
        Different pairs of parameters and multiply-adds, int64 (sums, 2).
    """
    sums = np.zeros((1, 2), dtype=np.int64)
    for node in range(NODES):
        # The first node reads inputs of the cell only.
        places = (True, False) if node else (True,)
        sizes = np.array(
            [
                target.operation_size(name, reduction, from_input)
                for name in PRIMITIVES
                for from_input in places
            ]
        )
        for _ in range(2):
            sums = np.unique((sums[:, None] + sizes).reshape(-1, 2), axis=0)
    return sums


def add_budget_arguments(parser: ArgumentParser) -> None:
    """Add the flags of the budget and of the network that it is for."""
    group = parser.add_argument_group(
        "budget",
        "limits for the size of the network that the cell is to be trained in, in millions",
    )
    add = group.add_argument
    add("--max_params", type=millions, help="largest number of parameters")
    add("--max_multiply_adds", type=millions, help="largest number of multiply-adds")
    add("--min_params", type=millions, help="smallest number of parameters")
    add("--min_multiply_adds", type=millions, help="smallest number of multiply-adds")
    add_target_arguments(parser)


def add_target_arguments(parser: ArgumentParser) -> None:
    """Add the flags of the network that a cell is to be trained in."""
    add = parser.add_argument_group("network that the cell is to be trained in").add_argument
    add(
        "--target",
        choices=TARGETS,
        default="cifar",
        help="cifar: 36 channels, 20 cells (8 and 5 for --set digits), the size and classes of the "
        "images searched on; imagenet: 46, 14, 224×224, 1000",
    )
    add("--target_channels", type=positive_int, help="channels of its first cells, if others")
    add("--target_layers", type=positive_int, help="its number of cells, if another")
    add("--target_image_size", type=positive_int, help="size of its images in pixels, if another")
    add("--target_classes", type=positive_int, help="its number of classes, if another")


def count_classes(args: Namespace) -> None:
    """Set `target_classes` for a folder of images, whose classes are its folders.

    Raises:
        UserError: there is no such folder.
    """
    if (args.set, args.target, args.target_classes) == ("folder", "cifar", None):
        args.target_classes = len(class_folders(Path(args.data) / "train"))
