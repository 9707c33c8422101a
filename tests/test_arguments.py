"""Numbers and paths on the command line: what is taken, and what is refused with the flag."""

import os
import pwd
import sys

import pytest
from helpers import ROOT, TINY_TRAINING, call_script, only_folder

sys.path.append(str(ROOT / "docs"))
from flags import script_parser

from runtime.arguments import (
    ArgumentParser,
    expanded_path,
    non_negative_float,
    non_negative_int,
    positive_int,
    probability,
    seed_number,
)
from runtime.errors import UserError


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive_int, "1", 1),
        (non_negative_int, "0", 0),
        (non_negative_float, "0", 0.0),
        (non_negative_float, "1e-3", 0.001),
        (probability, "0.999", 0.999),
    ],
)
def test_a_number_in_its_range_is_taken(kind, text, value):
    parser = ArgumentParser(None)
    parser.add_argument("--number", type=kind)
    assert parser.parse_args(["--number", text]).number == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (positive_int, "0"),
        (positive_int, "2147483648"),
        (positive_int, "9" * 400),
        (positive_int, "9" * 5000),
        (seed_number, "9223372036854775808"),
        (positive_int, "1.5"),
        (positive_int, "many"),
        (non_negative_int, "-1"),
        (non_negative_float, "-0.1"),
        (non_negative_float, "nan"),
        (non_negative_float, "inf"),
        (probability, "1"),
    ],
)
def test_a_number_out_of_its_range_is_refused(kind, text):
    parser = ArgumentParser(None)
    parser.add_argument("--number", type=kind)
    with pytest.raises(UserError, match=r"^--number: .*--help\)$"):
        parser.parse_args([f"--number={text}"])


def test_an_unknown_flag_is_named():
    with pytest.raises(UserError, match="--layer 3"):
        parser = ArgumentParser(None)
        parser.add_argument("--layers")
        parser.parse_args(["--layer", "3"])


PATHS = {
    "train_search": "data save resume",
    "train": "data arch save resume",
    "train_imagenet": "data_path arch save resume",
    "test": "data model_path arch",
    "test_imagenet": "data_path model_path arch",
    "export": "model_path output arch",
    "visualize": "what output",
    "dataset/mk_img_list": "image_path output_path",
    "dataset/img2lmdb": "image_path list_path output_path",
    "transfer/train_detection": "data model_path arch save resume",
    "transfer/test_detection": "data model_path output arch",
    "benchmarks/loading": "data",
    "benchmarks/nasbench201": "table save",
    "benchmarks/search_speed": "data",
    "benchmarks/search_vs_random": "data save resume",
    "benchmarks/budgets": "data save resume",
    "benchmarks/ranking": "study save resume",
}


@pytest.mark.parametrize("script", PATHS)
def test_a_tilde_is_the_home_folder_in_every_path(script, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    actions = {action.dest: action for action in script_parser(script)._actions}
    for name in PATHS[script].split():
        assert actions[name].type("~/x") == "/home/me/x", name
        assert actions[name].type("~") == "/home/me", name
        assert actions[name].type("a/~/x") == "a/~/x", name


def test_the_home_folder_of_another_user():
    user = pwd.getpwuid(os.getuid())
    assert expanded_path(f"~{user.pw_name}/x") == f"{user.pw_dir}/x"
    parser = ArgumentParser(None)
    parser.add_argument("--data", type=expanded_path)
    with pytest.raises(UserError, match=r"^--data: ~nobody-here/x: .* \./~nobody-here/x"):
        parser.parse_args(["--data=~nobody-here/x"])


def test_a_run_is_saved_in_and_resumed_from_the_home_folder(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(home))
    arguments = [*TINY_TRAINING, "--epochs", "1", "--save=~/runs/EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    folder = only_folder(home / "runs")
    assert call_script("train", [f"--resume=~/runs/{folder.name}"], monkeypatch) == 0
    assert not list((tmp_path / "here").iterdir())
