"""The learners that a search can use, by name (`train_search.py --learner`); docs/learners.md."""

import numpy as np

from slow_fast_learning import Population, SlowFastLearning, choices

MAX_CHANGES = 100
"""So many variables are changed in search of a vector not asked before; then it is taken as is."""


class ShuffledLearning(Population):
    """Slow-fast learning in which vectors take over whole values and no vector is asked twice.

    The slow learner takes over the fast one's value in every variable. Before each generation the
    values of each variable are dealt out anew among the members, so that every pair compares two
    new vectors. A vector whose choices (integer parts) were asked before has variables drawn again
    until they are new.
    """

    def __init__(
        self, lower: np.ndarray, upper: np.ndarray, population_size: int, seed: int
    ) -> None:
        super().__init__(lower, upper, population_size, seed)
        self.asked: set[tuple[int, ...]] = set()
        self._deals_first = True

    def initial_positions(self, population_size: int) -> np.ndarray:
        """A Latin hypercube: in each variable, one vector in each of equally wide strata."""
        shape = (population_size, len(self.lower))
        strata = self._shuffled(np.tile(np.arange(population_size)[:, None], len(self.lower)))
        places = (strata + self.random.random(shape)) / population_size
        return self.lower + places * (self.upper - self.lower)

    def keep_positions(self) -> None:
        self._deals_first = False

    def draw_pairs(self) -> list[tuple[int, int]]:
        """Deal out the values anew, renew vectors asked before, and pair all at random."""
        if self.asked or self._deals_first:
            self.positions = self._shuffled(self.positions)
        for position, numbers in zip(self.positions, self._choices(self.positions), strict=True):
            changes = 0
            while tuple(numbers) in self.asked and changes < MAX_CHANGES:
                variable = self.random.integers(len(position))
                position[variable] = self.random.uniform(self.lower[variable], self.upper[variable])
                numbers = self._choices(position)
                changes += 1
            self.asked.add(tuple(numbers))
        return super().draw_pairs()

    def move(self, slow: int, fast: int) -> None:
        """The slow learner takes over the fast one's values."""
        self.positions[slow] = self.positions[fast]

    def state_dict(self) -> dict:
        return {**super().state_dict(), "asked": sorted(self.asked)}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.asked = {tuple(map(int, numbers)) for numbers in state["asked"]}

    def _shuffled(self, values: np.ndarray) -> np.ndarray:
        """`values` (members, dimensions) with each column in a random order of its own."""
        return self.random.permuted(values, axis=0)

    def _choices(self, positions: np.ndarray) -> list:
        return choices(positions, self.upper).tolist()


LEARNERS: dict[str, type[Population]] = {
    "published": SlowFastLearning,
    "shuffled": ShuffledLearning,
}
