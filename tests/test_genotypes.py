"""Genotype files: what is written is read again; what is not a genotype is refused by field."""

import json

import pytest

from genotypes import (
    DARTS_V2,
    NAMED_GENOTYPES,
    RelativeNAS,
    genotype_from_dict,
    load_genotype,
    resolve_genotype,
    save_genotype,
)
from runtime.errors import UserError


@pytest.mark.parametrize("name", NAMED_GENOTYPES)
def test_a_saved_genotype_is_loaded_again(name, tmp_path):
    path = tmp_path / "genotype.json"
    save_genotype(NAMED_GENOTYPES[name], path)
    assert load_genotype(path) == NAMED_GENOTYPES[name]
    assert resolve_genotype(str(path)) == NAMED_GENOTYPES[name]


def test_a_name_is_resolved():
    assert resolve_genotype("RelativeNAS") is RelativeNAS


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"DARTS_V3.*NASNet, AmoebaNet, DARTS_V1, DARTS_V2, Rel"):
        resolve_genotype("DARTS_V3")


def valid():
    return json.loads(json.dumps(DARTS_V2._asdict()))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("normal", None, "'normal' must be a list"),
        ("normal", [["sep_conv_3x3", 0]], "'normal' must be a list"),
        ("reduce", [["sep_conv_3x3", 0], ["none", 1]], r"reduce\[1\].*unknown operation 'none'"),
        ("reduce", [["sep_conv_3x3", 0], ["sep_conv_3x3", 2]], r"reduce\[1\].*from 0 to 1"),
        ("reduce", [["sep_conv_3x3", True], ["sep_conv_3x3", 1]], r"reduce\[0\].*whole number"),
        ("reduce", [["sep_conv_3x3", 0.0], ["sep_conv_3x3", 1]], r"reduce\[0\].*whole number"),
        ("reduce", [["sep_conv_3x3"], ["sep_conv_3x3", 1]], r"reduce\[0\].*must be a pair"),
        ("reduce", [[["a"], 0], ["sep_conv_3x3", 1]], r"reduce\[0\].*unknown operation"),
        ("normal_concat", [], "'normal_concat' must list nodes from 2 to 5"),
        ("normal_concat", [2, 2], "'normal_concat'"),
        ("reduce_concat", [6], "'reduce_concat'"),
        ("reduce_concat", ["2"], "'reduce_concat'"),
    ],
)
def test_a_wrong_field_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        genotype_from_dict(valid() | {field: value})


@pytest.mark.parametrize("field", ["normal", "normal_concat", "reduce", "reduce_concat"])
def test_a_missing_field_is_named(field):
    content = valid()
    del content[field]
    with pytest.raises(ValueError, match=f"'{field}' is missing"):
        genotype_from_dict(content)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, " " * (2 << 20), "\xff", "Genotype(normal=[], reduce=[])",
     "__import__('os').mkdir('owned')"],
)  # fmt: skip
def test_a_genotype_file_is_data(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "genotype.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"genotype\.json: not a JSON file"):
        load_genotype("genotype.json")
    assert not (tmp_path / "owned").exists()


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "genotype.json").write_text("[]")
    with pytest.raises(UserError, match=r"genotype\.json"):
        load_genotype(tmp_path / "genotype.json")
