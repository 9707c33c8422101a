"""The improved learner: what it asks, how it moves, its state; and the search with it."""

import json

import numpy as np
import pytest
import torch
from helpers import (
    STOPPED,
    act_at_step,
    ask_to_stop,
    assert_same_tensors,
    call_script,
    history_without_seconds,
    only_folder,
    write_small_set,
)

from runtime.settings import read_settings
from search.learners import LEARNERS, ShuffledLearning
from slow_fast_learning import choices


def make_learning(population_size=6, seed=0, upper=(2, 3, 7, 4)):
    upper = np.array(upper, dtype=np.float64)
    return ShuffledLearning(np.zeros_like(upper), upper, population_size, seed)


def test_the_first_vectors_are_a_latin_hypercube():
    learning = ShuffledLearning(np.array([-1.0, 0.0]), np.array([3.0, 16.0]), 8, seed=0)
    strata = np.floor((learning.positions - learning.lower) / np.array([0.5, 2.0]))
    for column in strata.T:
        assert sorted(column) == list(range(8))
    assert not (strata[:, 0] == strata[:, 1]).all()


def test_the_slow_learner_takes_over_the_fast_ones_values():
    learning = make_learning()
    before = learning.positions.copy()
    learning.move(slow=1, fast=4)
    np.testing.assert_array_equal(learning.positions[1], before[4])
    others = [0, 2, 3, 4, 5]
    np.testing.assert_array_equal(learning.positions[others], before[others])


def test_values_are_dealt_out_anew_variable_by_variable():
    learning = make_learning(population_size=20, upper=(50,) * 5)
    before = learning.positions.copy()
    learning.draw_pairs()
    assert not any((learning.positions == vector).all(axis=1).any() for vector in before)
    np.testing.assert_array_equal(np.sort(learning.positions, axis=0), np.sort(before, axis=0))


def test_nothing_is_asked_twice_and_all_stays_in_bounds():
    learning = make_learning()
    asked = []
    for _ in range(20):
        for slow, fast in learning.draw_pairs():
            asked += choices(learning.positions[[slow, fast]], learning.upper).tolist()
            learning.move(slow, fast)
        assert (learning.positions >= 0).all() and (learning.positions <= learning.upper).all()
    assert len(asked) == 120 == len({tuple(numbers) for numbers in asked})


def test_a_box_that_is_used_up_is_no_endless_loop():
    learning = make_learning(population_size=4, upper=(2, 2))
    for _ in range(3):
        assert len(learning.draw_pairs()) == 2


@pytest.mark.parametrize("name", LEARNERS)
def test_a_resumed_state_goes_on_as_if_nothing_happened(name):
    def make():
        return LEARNERS[name](np.zeros(3), np.full(3, 4.0), 6, seed=next(seeds))

    def go_on(learning):
        for _ in range(3):
            for slow, fast in learning.draw_pairs():
                learning.move(slow, fast)
        return learning.positions

    seeds = iter(range(2))
    learning, resumed = make(), make()
    go_on(learning)
    resumed.load_state_dict(json.loads(json.dumps(learning.state_dict())))
    np.testing.assert_array_equal(go_on(resumed), go_on(learning))


def test_a_search_with_the_improved_learner_is_resumed_bit_for_bit(tmp_path, monkeypatch):
    budget = ["--pop_size", "4", "--epochs", "2", "--no-cutout"]
    arguments = [*write_small_set(tmp_path / "data"), *budget, "--learner", "shuffled", "--save"]
    assert call_script("train_search", [*arguments, tmp_path / "whole" / "EXP"], monkeypatch) == 0
    with act_at_step(7, ask_to_stop):  # a pair takes two
        stopped = [*arguments, tmp_path / "stopped" / "EXP"]
        assert call_script("train_search", stopped, monkeypatch) == STOPPED
    whole, resumed = (only_folder(tmp_path / name) for name in ("whole", "stopped"))
    assert len(history_without_seconds(resumed)) == 3
    assert call_script("train_search", ["--resume", resumed], monkeypatch) == 0
    assert read_settings(resumed)["learner"] == "shuffled"
    assert history_without_seconds(resumed) == history_without_seconds(whole)
    assert (resumed / "population.json").read_text() == (whole / "population.json").read_text()
    weights = [torch.load(folder / "weight_set.pt")["state_dict"] for folder in (resumed, whole)]
    assert_same_tensors(*weights)


def test_an_unknown_learner(tmp_path, monkeypatch, capsys):
    arguments = ["--set", "digits", "--learner", "best", "--save", tmp_path / "EXP"]
    assert call_script("train_search", arguments, monkeypatch) == 2
    assert "published" in capsys.readouterr().err
