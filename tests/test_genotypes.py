"""Genotype files: what is written is read again; what is not a genotype is refused by field."""

import json
import re

import pytest

from genotypes import (
    DARTS_V2,
    NAMED_GENOTYPES,
    RelativeNAS,
    genotype_from_dict,
    genotype_from_text,
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


AS_DARTS_PRINTS = repr(DARTS_V2).replace("[2, 3, 4, 5]", "range(2, 6)")

TEXTS = {
    "alone": AS_DARTS_PRINTS,
    "assigned": f"# found on 4 GPUs\nmine = {AS_DARTS_PRINTS}\n",
    "with list(range())": AS_DARTS_PRINTS.replace("range(2, 6)", "list(range(2, 6))"),
    "without names": re.sub(r"\w+=", "", AS_DARTS_PRINTS),
    "on several lines": AS_DARTS_PRINTS.replace("), ", "),  # it's (a comment\n    "),
    "of a module": f"genotypes.{AS_DARTS_PRINTS}",
    "in a log": f"11/24 10:10:10 best genotype: {AS_DARTS_PRINTS}, it's (good\n11/24 done\n",
    "twice in a log": f"genotype = {AS_DARTS_PRINTS}\nbest: {DARTS_V2}",
    "JSON": json.dumps(DARTS_V2._asdict()),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_genotype_is_read_as_it_is_printed(kind, encoding, tmp_path):
    path = tmp_path / "genotype.txt"
    path.write_text(TEXTS[kind], encoding=encoding)
    assert resolve_genotype(str(path)) == DARTS_V2


@pytest.mark.parametrize("kind", TEXTS)
def test_a_genotype_is_given_as_it_is_printed(kind):
    assert resolve_genotype(TEXTS[kind]) == DARTS_V2


def test_a_text_on_the_command_line_that_is_no_genotype():
    with pytest.raises(UserError, match=r"--arch Genotype\(normal=.*: field 'reduce' is missing"):
        resolve_genotype("Genotype(normal=[], normal_concat=[])")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AS_DARTS_PRINTS[:-5], "does not end"),
        (AS_DARTS_PRINTS.replace("reduce_concat", "normal_concat"), "'normal_concat' .* twice"),
        (f"Genotype([], {AS_DARTS_PRINTS[9:]}", "'normal' is in it twice"),
        ("Genotype([], [], [], [], [])", "5 values"),
        (AS_DARTS_PRINTS.replace("normal=[", "normal=[, "), "damaged"),
        (AS_DARTS_PRINTS.replace("range(2, 6)", "range(2, 7)"), "'normal_concat' must list nodes"),
        (AS_DARTS_PRINTS.replace("range(2, 6)", "range()"), "'normal_concat' must be written out"),
        (AS_DARTS_PRINTS.replace("range(2, 6)", "range(2, 6)()"), "'normal_concat' must be"),
        (AS_DARTS_PRINTS.replace("'sep_conv_3x3'", "sep_conv_3x3"), "'sep_conv_3x3' is not part"),
        (f"{AS_DARTS_PRINTS}\n{RelativeNAS}", "2 genotypes in it, which differ"),
        ('{"normal": [], "normal": []}', "the key 'normal' is in it twice"),
    ],
)
def test_a_text_that_is_no_genotype_says_why(text, message):
    with pytest.raises(ValueError, match=message):
        genotype_from_text(text)


def test_a_run_folder_stands_for_its_genotype(tmp_path):
    with pytest.raises(UserError, match=r"a folder without genotype\.json"):
        resolve_genotype(str(tmp_path))
    save_genotype(DARTS_V2, tmp_path / "genotype.json")
    assert resolve_genotype(str(tmp_path)) == DARTS_V2


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


MAKE_FOLDER = "__import__('os').mkdir('owned')"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON file"),
        ("{", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ("\xff", "can.t decode"),
        (MAKE_FOLDER, "not a JSON file"),
        (" " * (2 << 20), "larger than 1 MiB"),
        (f"Genotype({MAKE_FOLDER})", "'__import__' is not part"),
        (f'Genotype(normal=[f"{{{MAKE_FOLDER}}}"])', "f.* is not part"),
        ("Genotype(normal=range(2, 10**9))", "'\\*\\*' is not part"),
        ("Genotype(normal=list(range(2, 1000000000)))", "normal_concat"),
        ("Genotype(" + "[" * 100_000, "'\\[' is not part"),
        ("Genotype(" * 100_000, "'\\(' is not part"),
        ("Genotype(normal=" + "-" * 15_000 + "1)", "'-' is not part"),
        ("Genotype(normal=f'{" + "a." * 7_000 + "a}')", "f.* is not part"),
        ("Genotype(normal=[(" + "'a' " * 3_000 + ", 0)])", "normal_concat"),
    ],
)
def test_a_genotype_file_is_data(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "genotype.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=rf"genotype\.json: .*({message})"):
        load_genotype("genotype.json")
    assert not (tmp_path / "owned").exists()


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "genotype.json").write_text("[]")
    with pytest.raises(UserError, match=r"genotype\.json"):
        load_genotype(tmp_path / "genotype.json")
