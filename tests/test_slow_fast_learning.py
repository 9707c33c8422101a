"""The method: pairs, the update against a hand-computed pair, diversity, state, decoding."""

import json
import math

import numpy as np
import pytest
from helpers import FIXTURES

from genotypes import PRIMITIVES
from slow_fast_learning import SlowFastLearning, decode, search_bounds, slow_and_fast


def make_learning(population_size=6, seed=0, dimensions=5):
    return SlowFastLearning(
        np.full(dimensions, -1.0), np.full(dimensions, 2.0), population_size, seed
    )


class FixedDraws:
    """Stands in for the random generator: gives out r1 and r2 as they were written down."""

    def __init__(self, r1, r2):
        self.draws = np.array([r1, r2])

    def random(self, shape):
        assert shape == self.draws.shape
        return self.draws


def test_update_equals_a_pair_computed_by_hand():
    learning = SlowFastLearning(np.zeros(3), np.array([2.0, 7.0, 3.0]), 2, seed=0)
    learning.positions = np.array([[0.5, 6.0, 1.0], [1.5, 1.0, 2.5]])
    learning.velocities = np.array([[0.4, -2.0, 1.0], [9.0, 9.0, 9.0]])
    learning.random = FixedDraws([0.5, 1.0, 0.25], [0.5, 1.0, 0.5])
    learning.move(slow=0, fast=1)
    # v = r1·v + r2·(fast − slow), x = x + v, of which 6 − 7 = −1 is clipped to 0:
    #   0.5·0.4 + 0.5·(1.5 − 0.5) = 0.7;  1·(−2) + 1·(1 − 6) = −7;  0.25·1 + 0.5·(2.5 − 1) = 1
    np.testing.assert_allclose(learning.velocities[0], [0.7, -7.0, 1.0])
    np.testing.assert_allclose(learning.positions[0], [1.2, 0.0, 2.0])
    np.testing.assert_array_equal(learning.positions[1], [1.5, 1.0, 2.5])
    np.testing.assert_array_equal(learning.velocities[1], [9.0, 9.0, 9.0])


def test_slow_learners_stay_in_bounds_and_fast_ones_where_they_are():
    learning = make_learning(population_size=20)
    assert not learning.velocities.any()
    for _ in range(50):
        before = learning.positions.copy()
        pairs = learning.draw_pairs()
        for slow, fast in pairs:
            learning.move(slow, fast)
        fast_learners = [fast for _, fast in pairs]
        np.testing.assert_array_equal(learning.positions[fast_learners], before[fast_learners])
        assert (learning.positions >= -1).all() and (learning.positions <= 2).all()
    assert (learning.positions == before).all(axis=1).sum() == 10


def test_every_variable_draws_its_own_numbers():
    learning = make_learning(dimensions=8)
    learning.positions[0], learning.positions[1] = 0.0, 1.0
    learning.move(slow=0, fast=1)
    assert len(set(learning.positions[0])) == 8


def test_each_member_is_in_one_pair_and_pairs_change():
    learning = make_learning(population_size=8)
    rounds = [learning.draw_pairs() for _ in range(5)]
    for pairs in rounds:
        assert sorted(member for pair in pairs for member in pair) == list(range(8))
    assert len({tuple(pairs) for pairs in rounds}) > 1


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0, 2.0), (7, 3)),
        ((2.0, 1.0), (3, 7)),
        ((1.0, 1.0), (7, 3)),
        ((math.nan, 9.0), (3, 7)),
        ((9.0, math.inf), (7, 3)),
        ((-math.inf, 9.0), (3, 7)),
        ((math.nan, math.inf), (None, None)),
    ],
)
def test_the_lower_finite_loss_is_the_fast_learners(losses, expected):
    assert slow_and_fast((3, 7), losses) == expected


@pytest.mark.parametrize("population_size", [-2, 0, 1, 3])
def test_pairs_need_an_even_population(population_size):
    with pytest.raises(ValueError, match="even"):
        make_learning(population_size)


def test_diversity_is_the_mean_distance_from_the_centre():
    learning = make_learning(population_size=2, dimensions=2)
    learning.positions = np.array([[0.0, 0.0], [6.0, 8.0]])
    assert learning.diversity() == pytest.approx(5.0)


def test_a_resumed_state_goes_on_as_if_nothing_happened():
    def go_on(learning):
        for slow, fast in learning.draw_pairs():
            learning.move(slow, fast)
        return learning.positions

    learning = make_learning(seed=3)
    go_on(learning)
    state = json.loads(json.dumps(learning.state_dict()))
    resumed = make_learning(seed=4)
    resumed.load_state_dict(state)
    np.testing.assert_array_equal(go_on(resumed), go_on(learning))


def test_decoding_equals_the_originals():
    compat = json.loads((FIXTURES / "decode.json").read_text())
    lower, upper = search_bounds()
    assert lower.tolist() == compat["lower"] and upper.tolist() == compat["upper"]
    for example in compat["examples"]:
        genotype = decode(np.array(example["vector"]))
        assert genotype.normal == [tuple(pair) for pair in example["normal"]]
        assert genotype.reduce == [tuple(pair) for pair in example["reduce"]]
        assert genotype.normal_concat == genotype.reduce_concat == [2, 3, 4, 5]


def test_a_whole_number_decodes_to_itself():
    lower, upper = search_bounds()
    vector = np.minimum(np.ones(32), upper - 1)
    genotype = decode(vector)
    assert genotype.normal == genotype.reduce == [(PRIMITIVES[1], 1)] * 8
    assert decode(lower).normal == [(PRIMITIVES[0], 0)] * 8
