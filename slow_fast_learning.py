"""Slow-fast learning, the method of RelativeNAS (arXiv:2009.06193, section III).

A population of bounded real vectors is paired at random. Of each pair the one with the lower loss
is the fast learner; the slow learner moves towards it. That much (`SlowFastLearning`,
`slow_and_fast`, `choices`) works on any box of bounded variables. The rest of the file is what the
search for cells adds: how a vector encodes a genotype, and how a pair's two trained networks
update the weight set.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from genotypes import PRIMITIVES, Genotype
from runtime.flat_tensors import copy_all

NODES = 4
"""Intermediate nodes of a cell in the search space."""


class Population:
    """Bounded vectors that meet in pairs; how the slow learner moves is up to the subclasses.

    Args:
        lower: lower bounds, float array (dimensions,).
        upper: upper bounds, float array (dimensions,).
        population_size: number of vectors, even and at least 2.
        seed: of the random numbers; the same seed gives the same run.

    Attributes:
        positions: the vectors, float64 (population_size, dimensions).

    Raises:
        ValueError: the population size is odd or less than 2.
    """

    def __init__(
        self, lower: np.ndarray, upper: np.ndarray, population_size: int, seed: int
    ) -> None:
        if population_size < 2 or population_size % 2:
            raise ValueError(f"the population size must be even and at least 2: {population_size}")
        self.lower = np.asarray(lower, dtype=np.float64)
        self.upper = np.asarray(upper, dtype=np.float64)
        self.random = np.random.default_rng(seed)
        self.positions = self.initial_positions(population_size)

    def initial_positions(self, population_size: int) -> np.ndarray:
        """Where the vectors start: uniformly at random in the box."""
        return self.random.uniform(self.lower, self.upper, (population_size, len(self.lower)))

    def keep_positions(self) -> None:
        """Have the first generation begin with the vectors as they are; here it always does."""

    def draw_pairs(self) -> list[tuple[int, int]]:
        """Pair all members at random; each is in one pair. Called once at a generation's start."""
        order = self.random.permutation(len(self.positions)).tolist()
        return list(zip(order[::2], order[1::2], strict=True))

    def move(self, slow: int, fast: int) -> None:
        """Move the slow learner of a pair towards the fast one, in place."""
        raise NotImplementedError

    def diversity(self) -> float:
        """Mean Euclidean distance of the vectors from their centre."""
        return float(np.linalg.norm(self.positions - self.positions.mean(axis=0), axis=1).mean())

    def state_dict(self) -> dict:
        """Everything needed to go on, in plain Python types."""
        return {"positions": self.positions.tolist(), "random": self.random.bit_generator.state}

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            KeyError, OverflowError, TypeError, ValueError: it is of another population, or damaged.
        """
        positions = finite_array(state["positions"], self.positions.shape)
        if (positions < self.lower).any() or (positions > self.upper).any():
            raise ValueError("a vector is out of its bounds")
        self.positions = positions
        self.random.bit_generator.state = state["random"]


class SlowFastLearning(Population):
    """The published learner: the slow one moves as particles in a swarm do (section III-B)."""

    def __init__(
        self, lower: np.ndarray, upper: np.ndarray, population_size: int, seed: int
    ) -> None:
        super().__init__(lower, upper, population_size, seed)
        self.velocities = np.zeros_like(self.positions)

    def move(self, slow: int, fast: int) -> None:
        """Move the slow learner towards the fast one, in place.

        v_slow ← r1·v_slow + r2·(x_fast − x_slow), x_slow ← clip(x_slow + v_slow), with fresh
        r1, r2 ~ U[0, 1] for each variable.
        """
        r1, r2 = self.random.random((2, len(self.lower)))
        towards_fast = self.positions[fast] - self.positions[slow]
        self.velocities[slow] = r1 * self.velocities[slow] + r2 * towards_fast
        self.positions[slow] = np.clip(
            self.positions[slow] + self.velocities[slow], self.lower, self.upper
        )

    def state_dict(self) -> dict:
        return {**super().state_dict(), "velocities": self.velocities.tolist()}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.velocities = finite_array(state["velocities"], self.positions.shape)


def finite_array(numbers: list[list[float]], shape: tuple[int, int]) -> np.ndarray:
    """Vectors from a file as float64 of `shape`.

    Raises:
        OverflowError, TypeError, ValueError: they are not that, or not all are finite.
    """
    count, dimensions = shape
    if (
        len(numbers) != count
        or any(len(vector) != dimensions for vector in numbers)
        or any(type(number) not in (int, float) for vector in numbers for number in vector)
        or not np.isfinite(array := np.array(numbers, dtype=np.float64)).all()
    ):
        raise ValueError(f"vectors must be {count} of {dimensions} finite numbers")
    return array


def slow_and_fast(
    pair: tuple[int, int], losses: tuple[float, float], excesses: tuple[float, float] = (0.0, 0.0)
) -> tuple[int, int] | tuple[None, None]:
    """Which of a pair is the slow and which the fast learner, as `(slow, fast)`.

    The lower loss is the fast learner's; of equal ones the first. A loss that is not finite is
    always the slow learner's; if neither is finite there is nobody to learn from: (None, None).

    Args:
        excesses: by how much each member is outside the budget of the search; 0: within it.
            Feasibility goes before loss (Deb, 2000): who is within is fast, and of two outside
            the one that is so by less, whatever their losses. If the only one within has no
            finite loss there is nobody to learn from.
    """
    first, second = (
        (excess, 0.0 if excess > 0 else loss if math.isfinite(loss) else math.inf)
        for excess, loss in zip(excesses, losses, strict=True)
    )
    if min(first, second) == (0, math.inf):
        return None, None
    return (pair[1], pair[0]) if first <= second else (pair[0], pair[1])


def choices(positions: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The whole numbers that vectors (..., dimensions) stand for, int64 of the same shape.

    Each variable is rounded down; on its upper bound, a whole number, it means the last choice.
    """
    return np.minimum(positions.astype(np.int64), upper.astype(np.int64) - 1)


def search_bounds() -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the search vector, each float64 (32,).

    Normal cell, then reduction cell; in each, 4 nodes of two (input, operation) pairs. Node i
    (0..3) has i + 2 possible inputs.
    """
    node_bounds = [
        bound for node in range(NODES) for _ in range(2) for bound in (node + 2, len(PRIMITIVES))
    ]
    upper = np.array(2 * node_bounds, dtype=np.float64)
    return np.zeros_like(upper), upper


def decode(vector: np.ndarray) -> Genotype:
    """The genotype that a search vector (32,) stands for, by its `choices`."""
    _, upper = search_bounds()
    numbers = choices(vector, upper).tolist()
    pairs = [
        (PRIMITIVES[operation], source)
        for source, operation in zip(numbers[::2], numbers[1::2], strict=True)
    ]
    concat = list(range(2, NODES + 2))
    return Genotype(pairs[: 2 * NODES], concat, pairs[2 * NODES :], concat)


def update_weight_set(
    weight_set: Mapping[str, Tensor],
    fast: Mapping[str, Tensor] | None,
    slow: Mapping[str, Tensor] | None,
) -> None:
    """Take over into the weight set what a pair's two networks learned (section III-C).

    Args:
        weight_set: all parameters and buffers by name, changed in place.
        fast, slow: the trained tensors by name: each network's own active operations, and
            everything outside the candidate operations. None for a network that never writes:
            its loss is not finite, or it is outside the budget and was not trained.

    What the fast network has comes from it; what only the slow one has, from that; the rest stays.
    """
    learned = {**(slow or {}), **(fast or {})}
    if learned:
        with torch.no_grad():
            copy_all([weight_set[name] for name in learned], list(learned.values()))
