"""A small search of real candidates: optimizer, batches, weight set, results, going on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import (
    STOPPED,
    act_at_step,
    ask_to_stop,
    assert_same_tensors,
    call_script,
    history_without_seconds,
    only_folder,
)
from recording import images_of, numbered_images, numbers_in, recorded

import train_search
from dataset.image_set import ImageSet
from genotypes import DARTS_V1, DARTS_V2, AmoebaNet, Genotype, NASNet
from model_search import Supernet
from report.run import Run
from runtime.checkpoint import load_checkpoint
from runtime.processes import Processes
from runtime.run_folder import RunFolder
from search import candidate, data
from search.candidate import CandidateTrainer
from search.signals import generations_of_turns
from slow_fast_learning import decode
from utils import derive_seed

# Of CIFAR-10's third channel, by which the images are told apart.
MEAN, STD = 0.44653124, 0.26158768


class WatchedTrainer(CandidateTrainer):
    """Keeps of each turn what the weight set was before it, what was asked, and the outcome."""

    turns: list

    def take_turn(self, genotype, recipe, seed):
        before = {name: tensor.clone() for name, tensor in self.supernet.state_dict().items()}
        with recorded() as record:
            outcome = super().take_turn(genotype, recipe, seed)
        self.turns.append(SimpleNamespace(before=before, seed=seed, outcome=outcome, record=record))
        return outcome


FLAGS = [
    "--device", "cpu", "--layers", "3", "--init_channels", "2", "--batch_size", "8",
    "--pop_size", "4", "--epochs", "2", "--learning_rate", "0.05", "--learning_rate_min", "0.01",
    "--momentum", "0.8", "--weight_decay", "0.002", "--grad_clip", "0.5",
    "--drop_path_prob", "0.6", "--seed", "5", "--no-cutout",
]  # fmt: skip


def watched_search(flags, expected_status=0):
    """A search on 40 images; returns its turns."""
    image_set = ImageSet(numbered_images(40), torch.arange(40) % 3, 3, tuple("abc"))
    turns = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WatchedTrainer, "turns", turns, raising=False)
        patch.setattr(data, "load_image_set", lambda *_: image_set)
        patch.setattr(candidate, "CandidateTrainer", WatchedTrainer)
        assert call_script("train_search", flags, patch) == expected_status
    return turns


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The turns of a small search, and its folder."""
    parent = tmp_path_factory.mktemp("search")
    turns = watched_search([*FLAGS, "--save", parent / "EXP"])
    return SimpleNamespace(turns=turns, folder=only_folder(parent))


def test_optimizer_and_drop_path_follow_the_generations(small):
    assert len(small.turns) == 8
    for number, turn in enumerate(small.turns):
        generation = number // 4
        assert len(turn.record.steps) == 3  # 20 images: 8, 8, 4
        for step in turn.record.steps:
            # 0.01 + 0.04·(1 + cos(π·g/2))/2
            assert step.group["lr"] == pytest.approx((0.05, 0.03)[generation])
            assert (step.group["momentum"], step.group["weight_decay"]) == (0.8, 0.002)
            assert step.gradient_norm <= 0.5001
        dropped = {forward.drop_path_prob for forward in turn.record.training}
        assert dropped == {(0.0, 0.3)[generation]}
        assert turn.record.dtypes == {torch.float32}


def test_both_of_a_pair_see_the_same_batches_and_every_pair_others(small):
    orders = []
    for turn in small.turns:
        orders.append(numbers_in(images_of(turn.record.forwards), MEAN, STD))
    assert orders[::2] == orders[1::2]
    assert len({tuple(order) for order in orders}) == 4
    for order in orders:
        assert sorted(order) == list(range(40))
        assert sorted(order[:20]) == sorted(orders[0][:20])
        assert order[20:] == orders[0][20:]


def test_the_weight_set_takes_over_what_each_pair_learned(small):
    expected = small.turns[0].before
    for first, second in zip(small.turns[::2], small.turns[1::2], strict=True):
        assert_same_tensors(first.before, expected)
        assert_same_tensors(second.before, expected)  # both start from the same
        turns = sorted((first, second), key=lambda turn: turn.outcome.loss)
        fast, slow = (turn.outcome.weights for turn in turns)
        expected = {**expected, **slow, **fast}
        assert slow.keys() - fast.keys()
        assert any(not torch.equal(slow[name], fast[name]) for name in slow.keys() & fast.keys())
    saved = torch.load(small.folder / "weight_set.pt")["state_dict"]
    assert_same_tensors(saved, expected)


def test_the_final_population_is_validated_with_the_final_weights(small):
    network = Supernet(2, 3, 3).eval()
    network.load_state_dict(torch.load(small.folder / "weight_set.pt")["state_dict"])
    images = images_of(small.turns[0].record.evaluation)
    labels = torch.tensor(numbers_in(images, MEAN, STD)) % 3
    population = json.loads((small.folder / "population.json").read_text())
    assert len(population) == 4
    for member in population:
        logits = network(images, network.arch_info(Genotype(**member["genotype"])))
        assert member["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
        correct = (logits.argmax(dim=1) == labels).sum().item()
        assert member["accuracy"] == pytest.approx(100 * correct / 20)
    best = min(population, key=lambda member: member["loss"])
    assert json.loads((small.folder / "genotype.json").read_text()) == best["genotype"]


@pytest.mark.parametrize("name", ["turn", "turns", "middle", "annealed"])
def test_the_final_population_is_chosen_from_by_own_turns(name, small, tmp_path):
    turns = watched_search([*FLAGS, "--choose_by", name, "--save", tmp_path / "EXP"])
    folder = only_folder(tmp_path)
    assert history_without_seconds(folder) == history_without_seconds(small.folder)
    weight_set = load_checkpoint(folder / "weight_set.pt")["state_dict"]
    population = json.loads((folder / "population.json").read_text())
    rate = 0.03  # of the second generation, the last and the middle one
    own, twice = turns[8:], name in ("turns", "annealed")
    assert len(own) == (8 if twice else 4)
    firsts, lasts = (own[::2], own[1::2]) if twice else (own, own)
    for first, last, member in zip(firsts, lasts, population, strict=True):
        assert_same_tensors(first.before, weight_set)
        assert first.seed == derive_seed(5, 2)
        assert first.record.steps[0].group["lr"] == pytest.approx(rate)
        assert last.outcome.genotype == decode(np.array(member["vector"]))
        assert (member["loss"], member["accuracy"]) == (last.outcome.loss, last.outcome.accuracy)
    best = min(population, key=lambda member: member["loss"])
    assert json.loads((folder / "genotype.json").read_text()) == best["genotype"]


@pytest.mark.parametrize(
    ("name", "generation", "generations", "expected"),
    [
        ("shared", None, 8, []),
        ("turn", 4, 8, [4]),
        ("turn", 8, 8, [7]),
        ("turn", None, 8, [7]),
        ("turns", None, 8, [7, 7]),
        ("middle", 2, 8, [4]),
        ("middle", None, 1, [0]),
        ("annealed", None, 8, [4, 7]),
        ("annealed", 6, 8, [4, 6]),
    ],
)
def test_whose_recipe_a_signals_turns_are_taken_by(name, generation, generations, expected):
    assert generations_of_turns(name, generations, generation) == expected


def as_read(genotype):
    """A genotype as JSON gives it back, with lists for pairs."""
    return Genotype(**json.loads(json.dumps(genotype._asdict())))


def test_history_tells_the_outcomes_and_who_was_slow(small):
    records = history_without_seconds(small.folder)
    for number, record in enumerate(records):
        outcomes = [turn.outcome for turn in small.turns[2 * number : 2 * number + 2]]
        assert (record["generation"], record["pair"]) == divmod(number, 2)
        losses = [outcome.loss for outcome in outcomes]
        assert record["losses"] == losses
        assert record["accuracies"] == [outcome.accuracy for outcome in outcomes]
        assert record["slow"] == record["members"][losses.index(max(losses))]
        genotypes = [Genotype(**content) for content in record["genotypes"]]
        assert genotypes == [as_read(outcome.genotype) for outcome in outcomes]
    for pair_records in (records[:2], records[2:]):
        members = [member for record in pair_records for member in record["members"]]
        assert sorted(members) == [0, 1, 2, 3]


def test_a_search_goes_on_in_the_middle_of_a_generation_as_if_nothing_had_happened(small, tmp_path):
    with act_at_step(22, ask_to_stop):  # the first of the fourth pair's second turn
        turns = watched_search([*FLAGS, "--save", tmp_path / "EXP"], STOPPED)
    assert len(turns) == 7
    folder = only_folder(tmp_path)
    rest = watched_search(["--resume", folder])
    assert [turn.seed for turn in rest] == [turn.seed for turn in small.turns[6:]]
    for turn, expected in zip(rest, small.turns[6:], strict=True):
        assert_same_tensors(turn.before, expected.before)
        assert turn.outcome.genotype == expected.outcome.genotype
        assert turn.outcome.loss == expected.outcome.loss
    assert history_without_seconds(folder) == history_without_seconds(small.folder)
    for name in ("population.json", "genotype.json"):
        assert (folder / name).read_text() == (small.folder / name).read_text()


def test_weight_sets_are_kept_after_the_generations_asked_for(small, tmp_path):
    turns = watched_search(
        [*FLAGS, "--epochs", "5", "--keep_every", "2", "--save", tmp_path / "EXP"]
    )
    folder = only_folder(tmp_path)
    kept = sorted(path.name for path in folder.glob("weight_set-*"))
    assert kept == ["weight_set-generation-2.pt", "weight_set-generation-4.pt"]
    for name, turn in zip(kept, (turns[8], turns[16]), strict=True):
        # What the next generation starts from.
        assert_same_tensors(load_checkpoint(folder / name)["state_dict"], turn.before)
    assert not list(small.folder.glob("weight_set-*"))


def test_the_best_is_the_one_with_the_lowest_loss(tmp_path):
    genotypes = [DARTS_V1, NASNet, DARTS_V2, AmoebaNet]
    losses, accuracies = (None, 0.7, 0.5, 0.6), (99.0, 80.0, 10.0, 90.0)
    population = [
        {"genotype": genotype._asdict(), "vector": [], "loss": loss, "accuracy": accuracy}
        for genotype, loss, accuracy in zip(genotypes, losses, accuracies, strict=True)
    ]
    folder = RunFolder.create("search", str(tmp_path / "EXP"), {})
    args = train_search.parse_arguments([])
    run = Run(folder, Processes(torch.device("cpu")))
    budget = train_search.Budget.of(args)
    images = SimpleNamespace(class_names="abc")
    train_search.write_results(args, run, budget, population, {"weight": torch.zeros(1)}, images)
    folder.close()
    found = json.loads((folder.path / "genotype.json").read_text())
    assert Genotype(**found) == as_read(DARTS_V2)
    assert json.loads((folder.path / "population.json").read_text())[2]["genotype"] == found
