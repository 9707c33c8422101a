"""The search within a budget: who is fast, what is trained, and what the search ends with."""

import json
import shlex
from argparse import Namespace
from math import inf, nan

import numpy as np
import pytest
import torch
from helpers import (
    STOPPED,
    act_at_step,
    ask_to_stop,
    assert_one_line,
    assert_same_tensors,
    call_script,
    history_without_seconds,
    only_folder,
    run_to_the_end,
    write_small_set,
)

import train
import train_search
from genotypes import RelativeNAS, load_genotype
from model_search import Supernet
from report.history import read_run
from report.run import Run
from report.sizes import TARGETS
from runtime.errors import UserError
from runtime.settings import read_settings
from search import budget as budget_module
from search.budget import Budget, check_budget
from search.candidate import CandidateTrainer
from search.learners import LEARNERS
from search.results import training_command
from slow_fast_learning import decode, search_bounds, slow_and_fast
from training.trained_network import build_network
from utils import multiply_adds, parameter_count

SEARCH = ["--pop_size", "6", "--epochs", "3", "--no-tensorboard"]

TIGHT = [
    "--max_params", "2.7", "--min_multiply_adds", "350",
    "--target_image_size", "32", "--target_classes", "10",
]  # fmt: skip
"""Four of ten random cells are within it."""


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return write_small_set(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("losses", "excesses", "expected"),
    [
        ((1.0, 2.0), (0.0, 0.0), (8, 5)),  # both within: the lower loss
        ((2.0, 1.0), (0.0, 0.0), (5, 8)),
        ((1.0, 1.0), (0.0, 0.0), (8, 5)),
        ((nan, 1.0), (0.0, 0.0), (5, 8)),
        ((9.0, nan), (0.0, 0.1), (8, 5)),  # one within: that one
        ((nan, 9.0), (0.1, 0.0), (5, 8)),
        ((9.0, 1.0), (0.0, 0.1), (8, 5)),  # whatever the losses
        ((nan, nan), (0.2, 0.1), (5, 8)),  # none: who is outside by less
        ((nan, nan), (0.1, 0.2), (8, 5)),
        ((9.0, 1.0), (0.1, 0.2), (8, 5)),
        ((nan, nan), (0.1, 0.1), (8, 5)),
        ((nan, nan), (0.0, 0.0), (None, None)),  # nobody to learn from
        ((inf, nan), (0.0, 0.1), (None, None)),
        ((nan, nan), (0.1, 0.0), (None, None)),
    ],
)
def test_feasibility_goes_before_loss(losses, excesses, expected):
    assert slow_and_fast((5, 8), losses, excesses) == expected


def arguments(**flags):
    names = ("max_params", "max_multiply_adds", "min_params", "min_multiply_adds")
    return Namespace(**(dict.fromkeys(names) | flags))


def test_the_excess_is_the_share_by_which_limits_are_missed():
    size = TARGETS["cifar"].size(RelativeNAS)
    parameters, multiply_adds = (number / 1e6 for number in size)

    def excess(**flags):
        return Budget.of(arguments(**flags)).excess(RelativeNAS)

    assert excess() == 0
    assert excess(max_params=parameters, min_params=parameters) == 0
    assert excess(max_multiply_adds=multiply_adds, min_multiply_adds=multiply_adds) == 0
    assert excess(max_params=parameters / 2) == pytest.approx(1)
    assert excess(min_params=1.25 * parameters) == pytest.approx(0.25)
    assert excess(max_params=parameters / 2, min_multiply_adds=2 * multiply_adds) == pytest.approx(
        2
    )
    # The same cell in another network.
    assert excess(max_params=4.0) == 0
    assert excess(max_params=4.0, target="imagenet") == pytest.approx(5.05 / 4 - 1, abs=1e-2)
    assert excess(max_params=4.0, target="imagenet", target_channels=8) == 0


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_first_population_is_drawn_within_the_budget(learner):
    budget = Budget.of(arguments(max_params=2.7, min_multiply_adds=350.0))
    learning = LEARNERS[learner](*search_bounds(), 20, 7)
    before = learning.positions.copy()
    within = [budget.excess(decode(position)) == 0 for position in before]
    assert 0 < sum(within) < 20
    budget.draw_within(learning)
    assert not any(budget.excess(decode(position)) for position in learning.positions)
    np.testing.assert_array_equal(learning.positions[within], before[within])
    drawn = sorted(map(tuple, learning.positions))
    learning.draw_pairs()
    assert sorted(map(tuple, learning.positions)) == drawn  # the first generation asks these


def test_shuffled_values_are_dealt_out_anew_from_the_second_generation_on():
    budget = Budget.of(arguments(max_params=2.7, min_multiply_adds=350.0))
    learning = LEARNERS["shuffled"](*search_bounds(), 20, 7)
    budget.draw_within(learning)
    learning.draw_pairs()
    resumed = LEARNERS["shuffled"](*search_bounds(), 20, 7)
    budget.draw_within(resumed)
    resumed.load_state_dict(learning.state_dict())
    before = learning.positions.copy()
    learning.draw_pairs()
    assert (learning.positions != before).any(axis=0).all()
    resumed.draw_pairs()
    np.testing.assert_array_equal(resumed.positions, learning.positions)


def test_without_a_budget_nothing_is_drawn():
    learning = LEARNERS["published"](*search_bounds(), 20, 7)
    before = json.dumps(learning.state_dict())
    Budget.of(arguments()).draw_within(learning)
    assert json.dumps(learning.state_dict()) == before


def test_where_hardly_a_cell_is_within_the_nearest_are_taken(monkeypatch):
    monkeypatch.setattr(budget_module, "MAX_DRAWS", 20)
    budget = Budget.of(arguments(max_params=1.4))
    learning = LEARNERS["published"](*search_bounds(), 4, 7)

    def excesses():
        return np.array([budget.excess(decode(position)) for position in learning.positions])

    before = excesses()
    budget.draw_within(learning)
    assert (excesses() <= before).all() and excesses().mean() < before.mean()


def test_the_budget_of_any_cell_is_possible():
    random = np.random.default_rng(3)
    for kind in TARGETS:
        for _ in range(5):
            size = TARGETS[kind].size(decode(random.uniform(*search_bounds())))
            parameters, multiply_adds = (number / 1e6 for number in size)
            both = {"max_params": parameters, "min_params": parameters}
            both |= {"max_multiply_adds": multiply_adds, "min_multiply_adds": multiply_adds}
            check_budget(arguments(target=kind, **both))
            both["max_params"] = both["min_params"] = parameters + 1e-6
            with pytest.raises(UserError, match="no cell is within"):
                check_budget(arguments(target=kind, **both))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--max_params", "1.3"], ["--max_params 1.3", "1.37 M parameters", "817.8 M"]),
        (["--max_params", "0"], ["--max_params 0", "5.14 M parameters"]),
        (["--min_params", "3.2", "--max_params", "3.1"], ["--max_params 3.1 --min_params 3.2"]),
        (["--max_multiply_adds", "240", "--min_params", "3"], ["227.3 M multiply-adds"]),
        (["--target", "imagenet", "--min_multiply_adds", "800"], ["NetworkImageNet, 46 channels"]),
        (["--target_layers", "5", "--min_params", "2"], ["5 cells"]),
        (["--target_layers", "5000"], ["--target_layers"]),
        (["--max_params", "-1"], ["--max_params"]),
        (["--min_multiply_adds", "1e303"], ["--min_multiply_adds", "must be less than"]),
        (["--pop_size", "20000"], ["--pop_size 20000", "10000 members"]),
        (["--pop_size", "5000", "--epochs", "30"], ["--epochs 30", "100000 candidates"]),
        (["--target", "digits"], ["--target", "imagenet"]),
    ],
)
def test_an_impossible_budget_is_refused_before_anything_is_loaded(
    flags, expected, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("train_search.run_session", None)
    status = call_script("train_search", [*flags, "--save", tmp_path / "EXP"], monkeypatch)
    assert_one_line(status, capsys, *expected)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def trained(monkeypatch):
    """The genotypes that are trained, as they are."""
    genotypes = []
    train = CandidateTrainer.train

    def noting(self, genotype, recipe, seed):
        genotypes.append(genotype)
        train(self, genotype, recipe, seed)

    monkeypatch.setattr(CandidateTrainer, "train", noting)
    return genotypes


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_search_within_a_budget(learner, small_set, tmp_path, trained, monkeypatch, capsys):
    flags = [*small_set, *SEARCH, *TIGHT, "--learner", learner, "--save", tmp_path / "EXP"]
    assert call_script("train_search", flags, monkeypatch) == 0
    folder = only_folder(tmp_path)
    budget = Budget.of(Namespace(**read_settings(folder)))
    pairs = [pair for g in read_run(folder).generations for pair in g.pairs]
    assert len(pairs) == 9
    within = []
    for pair in pairs:
        assert pair.excesses == tuple(map(budget.excess, pair.genotypes))
        for genotype, excess, loss in zip(pair.genotypes, pair.excesses, pair.losses, strict=True):
            assert (loss is None) == (excess > 0)
            within += [] if excess else [genotype]
        losses = tuple(nan if loss is None else loss for loss in pair.losses)
        assert pair.slow == slow_and_fast(pair.members, losses, pair.excesses)[0]
    assert trained == within and len(within) < 18
    found = load_genotype(folder / "genotype.json")
    assert budget.excess(found) == 0
    population = json.loads((folder / "population.json").read_text())
    best = min((m for m in population if m["loss"] is not None), key=lambda m: m["loss"])
    assert best["genotype"] == json.loads((folder / "genotype.json").read_text())
    for member in population:
        genotype = decode(np.array(member["vector"]))
        size = budget.target.size(genotype)
        assert (member["parameters"], member["multiply_adds"]) == size
        assert (member["loss"] is None) == (budget.excess(genotype) > 0)
    output = capsys.readouterr().out
    for target in TARGETS.values():
        assert f"its size: {target.size(found)} ({target})" in output


def test_a_search_that_finds_no_cell_within_its_budget_costs_nothing_and_says_so(
    small_set, tmp_path, trained, monkeypatch, capsys
):
    monkeypatch.setattr(budget_module, "MAX_DRAWS", 0)
    flags = [*small_set, *SEARCH, "--max_params", "1.4", "--save", tmp_path / "EXP"]
    assert call_script("train_search", flags, monkeypatch) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "no cell of the final population" in error
    folder = only_folder(tmp_path)
    assert trained == []
    assert not (folder / "genotype.json").exists()
    # Nothing has written to the weight set, and the vectors have moved to smaller networks.
    torch.manual_seed(7)
    fresh = Supernet(2, 3, 3).state_dict()
    assert_same_tensors(torch.load(folder / "checkpoint.pt")["weight_set"], fresh)
    records = history_without_seconds(folder)
    assert all(record["slow"] is not None for record in records)
    means = [np.mean([r["excesses"] for r in records if r["generation"] == g]) for g in (0, 2)]
    assert means[1] < means[0]


def test_a_budget_that_all_cells_meet_changes_no_bit(small_set, tmp_path, monkeypatch):
    folders = []
    for name, flags in (("none", []), ("wide", ["--max_params", "100"])):
        flags = [*small_set, *SEARCH, *flags, "--save", tmp_path / name / "EXP"]
        assert call_script("train_search", flags, monkeypatch) == 0
        folders.append(only_folder(tmp_path / name))
    none, wide = folders
    records = history_without_seconds(wide)
    assert [record.pop("excesses") for record in records] == [[0.0, 0.0]] * 9
    assert history_without_seconds(none) == records
    assert (none / "population.json").read_bytes() == (wide / "population.json").read_bytes()
    weights = [torch.load(folder / "weight_set.pt")["state_dict"] for folder in folders]
    assert_same_tensors(*weights)


@pytest.mark.parametrize("learner", LEARNERS)
def test_it_is_resumed_bit_for_bit(learner, small_set, tmp_path, monkeypatch, capsys):
    flags = [*small_set, *SEARCH, *TIGHT, "--learner", learner]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert call_script("train_search", [*flags, "--save", whole / "EXP"], monkeypatch) == 0
    with act_at_step(7, ask_to_stop):
        arguments = [*flags, "--save", stopped / "EXP"]
        assert call_script("train_search", arguments, monkeypatch) == STOPPED
    resume = ["--resume", only_folder(stopped)]
    capsys.readouterr()
    status = call_script("train_search", [*resume, "--max_params", "3"], monkeypatch)
    assert_one_line(status, capsys, "--max_params was 2.7")
    assert call_script("train_search", resume, monkeypatch) == 0
    folders = [only_folder(whole), only_folder(stopped)]
    histories = [history_without_seconds(folder) for folder in folders]
    assert histories[0] == histories[1]
    populations = [(folder / "population.json").read_bytes() for folder in folders]
    assert populations[0] == populations[1]
    weights = [torch.load(folder / "weight_set.pt")["state_dict"] for folder in folders]
    assert_same_tensors(*weights)


def test_two_processes(small_set, tmp_path):
    arguments = [*small_set, *SEARCH, *TIGHT, "--save", tmp_path / "EXP"]
    run_to_the_end("train_search", arguments, torchrun=2)
    folder = only_folder(tmp_path)
    budget = Budget.of(Namespace(**read_settings(folder)))
    pairs = [pair for g in read_run(folder).generations for pair in g.pairs]
    assert len(pairs) == 9
    assert any(max(pair.excesses) > 0 for pair in pairs)
    for pair in pairs:
        assert pair.excesses == tuple(map(budget.excess, pair.genotypes))
    assert budget.excess(load_genotype(folder / "genotype.json")) == 0


@pytest.mark.parametrize(
    ("flags", "command", "size"),
    [
        ([], "train.py --set digits --arch run/genotype.json --epochs 10 --batch_size 32 "
         "--no-cutout --init_channels 8 --layers 5", (8, 5, 16, 10)),
        (["--target_channels", "4"], "--no-cutout --init_channels 4 --layers 5", (4, 5, 16, 10)),
        (["--set", "cifar10"], "train.py --set cifar10 --arch run/genotype.json --data images",
         (36, 20, 32, 10)),
        (["--set", "cifar100"], "--data images", (36, 20, 32, 100)),
        (["--set", "folder", "--target_layers", "9", "--image_size", "48"],
         "--data images --layers 9 --image_size 48", (36, 9, 48, 3)),
        (["--set", "folder"], "--data images", (36, 20, 32, 3)),
        (["--set", "folder", "--target_image_size", "64", "--image_size", "48"],
         "--image_size 64", (36, 20, 64, 3)),
        (["--set", "folder", "--target", "imagenet", "--target_channels", "50"],
         "train_imagenet.py --arch run/genotype.json --data_path DIR --init_channels 50",
         (50, 14, 224, 1000)),
    ],
)  # fmt: skip
def test_the_command_that_follows_trains_the_network_of_the_budget(
    flags, command, size, tmp_path, monkeypatch
):
    write_small_set(tmp_path / "images")
    flags = ["--set", "digits", "--data", str(tmp_path / "images"), *flags]
    args = train_search.parse_arguments([*flags, "--max_params", "9"])
    target = Budget.of(args).target
    assert (target.channels, target.layers, target.image_size, target.num_classes) == size
    printed = training_command(args, tmp_path / "run").replace(f"{tmp_path}/", "")
    assert printed.endswith(command)
    # What the command builds is of the size that was counted.
    script, *rest = shlex.split(printed[printed.index("train") :])
    if script == "train.py":
        handed_over = []
        monkeypatch.setattr(
            train, "fit", lambda args, run, task, data: handed_over.append(task.description)
        )
        monkeypatch.setattr(train, "run_genotype", lambda args: RelativeNAS)
        rest[rest.index("--arch") + 1] = "RelativeNAS"
        if args.set.startswith("cifar"):
            return  # their images are not here
        rest = [str(tmp_path / "images") if word == "images" else word for word in rest]
        process = Namespace(
            device=torch.device("cpu"), rank=0, size=1, is_main=True, broadcast=lambda value: value
        )
        train.train(train.parse_arguments(rest), Run(None, process))
        built = build_network({**handed_over[0], "auxiliary": False})
        image_size = handed_over[0]["image_size"]
        counted = (parameter_count(built), multiply_adds(built, image_size))
        assert target.size(RelativeNAS) == counted
