"""The weights in trained_model/ are what its README says."""

import hashlib
import re
from statistics import mean

import pytest
import torch
from helpers import ROOT, call_script

from genotypes import genotype_from_dict, load_genotype

FOLDER = ROOT / "trained_model"

README = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_files_are_the_ones_described():
    digests = dict(re.findall(r"\| `(\S+)` \| ([0-9a-f]{64}) \|", README))
    assert sorted(digests) == ["digits_genotype.json", "digits_model.pt"]
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
        f"$ python test.py\ncheckpoint      trained_model/digits_model.pt\n{results}```" in README
    )


def test_the_model_is_the_first_seeds_after_the_last_epoch():
    model = torch.load(FOLDER / "digits_model.pt")
    *accuracies, average = re.search(r"\| top-1 accuracy, % \| (.*) \|", README)[1].split(" | ")
    assert len(accuracies) == 5
    assert f"{model['top1']:.2f}" == accuracies[0]
    assert mean(map(float, accuracies)) == pytest.approx(float(average), abs=0.01)
    assert model["epoch"] == int(re.search(r"train\.py .*--epochs (\d+)", README)[1])
    genotype = load_genotype(FOLDER / "digits_genotype.json")
    assert genotype_from_dict(model["genotype"]) == genotype
    assert "optimizer" not in model
