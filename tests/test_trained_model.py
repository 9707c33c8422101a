"""The weights in trained_model/ are what its README says."""

import hashlib
import re
import tarfile
from statistics import mean

import pytest
import torch
from helpers import ROOT, call_script, read_history

from genotypes import genotype_from_dict, load_genotype
from model import NetworkCIFAR
from report.sizes import Target
from training.trained_network import build_network, print_size

FOLDER = ROOT / "trained_model"

README = (FOLDER / "README.md").read_text(encoding="utf-8")

_, DIGITS, SMALL, _ = re.split(r"^## ", README, flags=re.MULTILINE)
"""What the README says of each of our two models."""


def test_the_files_are_the_ones_described():
    digests = dict(re.findall(r"\| `(\S+)` \| ([0-9a-f]{64}) \|", README))
    assert sorted(digests) == ["cifar10_small_model.pt", "digits_genotype.json", "digits_model.pt"]
    for name, digest in digests.items():
        content = (FOLDER / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert len(content) < 2e6


@pytest.mark.parametrize("flags", [[], ["--model_path", FOLDER / "digits_model.pt"]])
def test_test_py_prints_what_the_readme_states(flags, monkeypatch, capsys):
    assert call_script("test", flags, monkeypatch) == 0
    checkpoint, results = capsys.readouterr().out.split("\n", 1)
    assert checkpoint.endswith("trained_model/digits_model.pt")
    assert (
        f"$ python test.py\ncheckpoint      trained_model/digits_model.pt\n{results}```" in DIGITS
    )


def test_the_model_is_the_first_seeds_after_the_last_epoch():
    model = torch.load(FOLDER / "digits_model.pt")
    *accuracies, average = re.search(r"\| top-1 accuracy, % \| (.*) \|", DIGITS)[1].split(" | ")
    assert len(accuracies) == 5
    assert f"{model['top1']:.2f}" == accuracies[0]
    assert mean(map(float, accuracies)) == pytest.approx(float(average), abs=0.01)
    assert model["epoch"] == int(re.search(r"train\.py .*--epochs (\d+)", DIGITS)[1])
    genotype = load_genotype(FOLDER / "digits_genotype.json")
    assert genotype_from_dict(model["genotype"]) == genotype
    assert "optimizer" not in model


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """The run folders of the three trainings for the small CIFAR-10 model, by cell."""
    folder = tmp_path_factory.mktemp("trainings")
    with tarfile.open(ROOT / "docs" / "results" / "cifar10_small.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return {run.name.split("-")[1]: run for run in folder.glob("small/train-*")}


@pytest.fixture(scope="module")
def table():
    """By cell its accuracy in percent, and parameters and multiply-adds in millions."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    _, section = page.split("\n## The weights that are shipped\n")
    row = r"^\| (\w+).*\| ([\d.]+) \| ([\d.]+) M \| ([\d.]+) M \|$"
    rows = re.findall(row, section, re.MULTILINE)
    return {cell: tuple(map(float, numbers)) for cell, *numbers in rows}


def test_the_table_of_the_three_cells_is_that_of_their_logs(trainings, table):
    assert sorted(trainings) == sorted(table) == ["found", "published", "random"]
    epochs = int(re.search(r"train\.py .*--epochs (\d+)", SMALL)[1])
    for cell, run in trainings.items():
        history = read_history(run)
        assert len(history) == epochs
        accuracy = history[-1]["validation"]["top1"]
        size = Target(NetworkCIFAR, 16, 8, 32, 10).size(load_genotype(run / "genotype.json"))
        parameters, multiply_adds = (number / 1e6 for number in size)
        assert (round(accuracy, 2), round(parameters, 2), round(multiply_adds, 1)) == table[cell]


def test_the_small_cifar10_model_is_the_one_that_the_rule_takes(trainings, table, capsys):
    best = max(accuracy for accuracy, _, _ in table.values())
    good = [cell for cell, (accuracy, _, _) in table.items() if accuracy >= round(best - 0.3, 2)]
    shipped = min(good, key=lambda cell: table[cell][2])
    model = torch.load(FOLDER / "cifar10_small_model.pt")
    genotype = load_genotype(trainings[shipped] / "genotype.json")
    assert genotype_from_dict(model["genotype"]) == genotype
    assert round(model["top1"], 2) == table[shipped][0]
    assert f"runs/train-{shipped}-*/last.pt --format checkpoint" in SMALL
    assert "optimizer" not in model
    print_size(build_network(model), model["image_size"])
    size = capsys.readouterr().out
    error, top1 = (f"{value:.2f} %" for value in (100 - model["top1"], model["top1"]))
    assert f"error rate      {error}\ntop-1 accuracy  {top1}\ntop-5" in SMALL
    assert f"\n{size}```" in SMALL
    # As in CIFAR-10, which the README says.
    assert model["class_names"] == [
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
    ]  # fmt: skip
