"""NaN and infinity: a candidate loses by them, a training stops at them, neither keeps them."""

import json
import math

import pytest
import torch
from helpers import act_at_step, assert_one_line, call_script, only_folder, write_image_folder

from dataset import image_batches
from search import candidate
from training import classification
from training.loop import FirstNonFinite
from utils import all_finite

CPU = torch.device("cpu")

STEPS = 6
"""Of an epoch of training: 24 images in batches of 4. A candidate trains on half of them."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Arguments for a tiny network and a folder of 24 images to train on."""
    data = tmp_path_factory.mktemp("data")
    write_image_folder(data, {"train": {"a": 12, "b": 12}, "test": {"a": 2, "b": 2}}, 8)
    arguments = "--set folder --image_size 8 --layers 3 --init_channels 2 --batch_size 4"
    return [*arguments.split(), "--no-cutout", "--data", data]


def assert_finite(path):
    assert all_finite(torch.load(path)["state_dict"].values())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_number_that_is_not_finite_is_remembered(bad):
    losses = FirstNonFinite(CPU)
    for loss in (1.0, 3e38, bad, 1.0, math.nan):
        losses.update(torch.tensor(loss))
    assert losses.step() == 3


def test_finite_numbers_are_not_remembered():
    losses = FirstNonFinite(CPU)
    losses.update(torch.tensor(3e38))
    assert losses.step() is None
    assert all_finite([torch.full((2, 2), 3e38), torch.tensor(7)])
    assert not all_finite([torch.zeros(3), torch.tensor([0.0, math.nan])])


def poison_batches(monkeypatch, bad, pick):
    """The images of the training batches that `pick` counts out hold a `bad` number."""
    true_batches = image_batches.training_batches
    count = 0

    def poisoned(*arguments):
        nonlocal count
        for images, labels in true_batches(*arguments):
            count += 1
            if pick(count):
                images[0, 0, 0, 0] = bad
            yield images, labels

    monkeypatch.setattr(image_batches, "training_batches", poisoned)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("report_freq", ["1", "50"])
def test_training_stops_with_the_step_and_the_last_good_checkpoint(
    bad, report_freq, tiny, tmp_path, monkeypatch, capsys
):
    poison_batches(monkeypatch, bad, lambda count: count == STEPS + 5)
    arguments = [*tiny, "--epochs", "3", "--report_freq", report_freq, "--save", tmp_path / "EXP"]
    status = call_script("train", arguments, monkeypatch)
    folder = only_folder(tmp_path)
    expected = ["in step 5 of epoch 2", "learning rate 0.01875", f"{folder}/last.pt, of epoch 1"]
    assert_one_line(status, capsys, *expected)
    assert len((folder / "history.jsonl").read_text().splitlines()) == 1
    assert torch.load(folder / "last.pt")["epoch"] == torch.load(folder / "best.pt")["epoch"] == 1
    assert_finite(folder / "last.pt")
    assert_finite(folder / "best.pt")


def test_in_the_first_epoch_there_is_no_good_checkpoint(tiny, tmp_path, monkeypatch, capsys):
    poison_batches(monkeypatch, math.nan, lambda count: count == 1)
    status = call_script("train", [*tiny, "--epochs", "3", "--save", tmp_path / "EXP"], monkeypatch)
    assert_one_line(status, capsys, "in step 1 of epoch 1", "no good checkpoint yet")
    assert not list(only_folder(tmp_path).glob("*.pt"))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("classifier", "the validation loss is nan"),
        ("auxiliary_head.classifier", "a weight is infinite or NaN"),  # no part of the validation
    ],
)
def test_weights_ruined_by_the_last_step_are_not_saved(
    layer, expected, tiny, tmp_path, monkeypatch, capsys
):
    true_build, networks = classification.build_network, []

    def kept_network(description):
        networks.append(true_build(description))
        return networks[0]

    def ruin():
        with torch.no_grad():
            networks[0].get_submodule(layer).bias[0] = math.nan

    monkeypatch.setattr(classification, "build_network", kept_network)
    arguments = [*tiny, "--epochs", "3", "--save", tmp_path / "EXP"]
    with act_at_step(2 * STEPS, ruin):
        status = call_script("train", arguments, monkeypatch)
    folder = only_folder(tmp_path)
    assert_one_line(status, capsys, expected, "epoch 2", f"{folder}/last.pt, of epoch 1")
    assert torch.load(folder / "last.pt")["epoch"] == 1
    assert_finite(folder / "last.pt")
    assert_finite(folder / "best.pt")


def infinite_variance(self, genotype, recipe, seed):
    """A candidate whose loss stays finite: what is divided by an infinite variance is zero."""
    train_as_ever(self, genotype, recipe, seed)
    self.supernet.cells[0].preprocess0.op[2].running_var[0] = math.inf


def nan_weight(self, genotype, recipe, seed):
    train_as_ever(self, genotype, recipe, seed)
    with torch.no_grad():
        self.supernet.classifier.weight[0, 0] = math.nan


train_as_ever = candidate.CandidateTrainer.train


@pytest.mark.parametrize("ruin", [infinite_variance, nan_weight])
@pytest.mark.parametrize("ruined", ["one of each pair", "both of each pair"])
def test_a_ruined_candidate_loses_and_never_reaches_the_weight_set(
    ruin, ruined, tiny, tmp_path, monkeypatch
):
    turns = 0

    def train_candidate(self, genotype, recipe, seed):
        nonlocal turns
        turns += 1
        is_ruined = ruined == "both of each pair" or turns % 2
        (ruin if is_ruined else train_as_ever)(self, genotype, recipe, seed)

    monkeypatch.setattr(candidate.CandidateTrainer, "train", train_candidate)
    arguments = [*tiny, "--pop_size", "4", "--epochs", "1", "--save", tmp_path / "EXP"]
    assert call_script("train_search", arguments, monkeypatch) == 0
    folder = only_folder(tmp_path)
    for line in (folder / "history.jsonl").read_text().splitlines():
        record = json.loads(line)
        first, second = record["losses"]
        assert first is None
        assert (second is None) == (ruined == "both of each pair")
        assert record["slow"] == (None if second is None else record["members"][0])
    assert_finite(folder / "weight_set.pt")


def test_a_candidate_trained_on_nan_loses(tiny, tmp_path, monkeypatch):
    poison_batches(monkeypatch, math.nan, lambda count: count <= STEPS // 2)
    arguments = [*tiny, "--pop_size", "4", "--epochs", "1", "--save", tmp_path / "EXP"]
    assert call_script("train_search", arguments, monkeypatch) == 0
    folder = only_folder(tmp_path)
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert records[0]["losses"][0] is None and records[0]["slow"] == records[0]["members"][0]
    assert None not in [records[0]["losses"][1], *records[1]["losses"]]
    assert_finite(folder / "weight_set.pt")
