"""Run folders of others, given to --resume: settings, statistics, history and checkpoints."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from helpers import assert_one_line, call_script, only_folder, write_image_folder


@pytest.fixture(scope="module")
def run_folders(tmp_path_factory):
    """A finished search and a finished training."""
    parent = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        data = parent / "data"
        write_image_folder(data, {"train": {"a": 12, "b": 12}, "test": {"a": 2, "b": 2}}, 8)
        common = ["--set", "folder", "--data", data, "--image_size", "8", "--layers", "1"]
        common += ["--init_channels", "2", "--batch_size", "6", "--epochs", "2", "--no-cutout"]
        search = [*common, "--pop_size", "4", "--save", parent / "search" / "EXP"]
        assert call_script("train_search", search, monkeypatch) == 0
        training = [*common, "--save", parent / "train" / "EXP"]
        assert call_script("train", training, monkeypatch) == 0
    return {
        "train_search": only_folder(parent / "search"), "train": only_folder(parent / "train")
    }  # fmt: skip


SCRIPTS = ("train_search", "train")


def resume_damaged(script, name, damage, run_folders, tmp_path, monkeypatch):
    """Resume a copy of a run after `damage` to one of its files; returns the exit status."""
    # A new one each time: the lock of a run that was refused lasts as long as its process.
    folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "run"
    shutil.copytree(run_folders[script], folder)
    damage(folder / name)
    return call_script(script, ["--resume", folder], monkeypatch)


def changed_json(**fields):
    def damage(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


SETTINGS = {
    "layers": ["3", 10**12, -1, [3], {}, True, None, 2.5],
    "epochs": [10**400, 0, "many"],
    "learning_rate": [float("nan"), float("inf"), "0.1", [0.1], -1, None],
    "set": ["cifar11", 7, None],
    "cutout": [1, "no", None],
    "seed": [-1, 2**64],
    "data": [7, "a\0b", None],
    "batch_size": [[[[]]], False],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_settings_that_no_flag_gives_are_named(script, run_folders, tmp_path, monkeypatch, capsys):
    for name, values in SETTINGS.items():
        for value in values:
            damage = changed_json(**{name: value})
            status = resume_damaged(
                script, "settings.json", damage, run_folders, tmp_path, monkeypatch
            )
            assert_one_line(status, capsys, "settings.json", f"--{name}")


JUNK = [b"", b"[]", b"{", b"\xff\xfe", b"[" * 200_000, b"null", b" " * (2 << 20)]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", ["settings.json", "statistics.json", "history.jsonl"])
def test_junk_in_a_run_folder_is_one_line(script, name, run_folders, tmp_path, monkeypatch, capsys):
    for junk in JUNK:
        status = resume_damaged(
            script, name, lambda path, junk=junk: path.write_bytes(junk), run_folders, tmp_path,
            monkeypatch,
        )  # fmt: skip
        expected = name if name != "settings.json" else "not a run folder"
        assert_one_line(status, capsys, str(tmp_path), expected)


def test_statistics_that_are_no_numbers_are_named(run_folders, tmp_path, monkeypatch, capsys):
    for fields in ({"mean": [1, 2]}, {"std": [0, 1, 1]}, {"mean": [float("nan")] * 3}, {"std": 1}):
        status = resume_damaged(
            "train", "statistics.json", changed_json(**fields), run_folders, tmp_path, monkeypatch
        )
        assert_one_line(status, capsys, "statistics.json", *fields)


def test_a_history_that_this_search_has_not_written(run_folders, tmp_path, monkeypatch, capsys):
    def damage_record(**fields):
        def damage(path):
            lines = path.read_text().splitlines()
            lines[1] = json.dumps(json.loads(lines[1]) | fields)
            path.write_text("\n".join(lines) + "\n")

        return damage

    for fields in (
        {"seconds": float("nan")}, {"generation": 7}, {"losses": "ab"}, {"losses": [[]]},
        {"diversity": None}, {"members": [1]}, {"genotypes": None},
        {"seconds": 10**400},
    ):  # fmt: skip
        status = resume_damaged(
            "train_search", "history.jsonl", damage_record(**fields), run_folders, tmp_path,
            monkeypatch,
        )  # fmt: skip
        assert_one_line(status, capsys, "history.jsonl", "line 2")


def changed_checkpoint(change):
    def damage(path):
        content = torch.load(path)
        change(content)
        torch.save(content, path)

    return damage


def set_to(value, *keys):
    """A change that sets the entry at `keys`; `KeyError` as the value takes it out."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        if value is KeyError:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value

    return change


SEARCH_STATES = {
    "no generation": set_to(KeyError, "generation"),
    "a generation beyond the end": set_to(10**9, "generation"),
    "pairs of strangers": set_to([(0, 1), (2, 9)], "pairs"),
    "pairs that are none": set_to([0, 1], "pairs"),
    "pairs done beyond the pairs": set_to(5, "pairs_done"),
    "records of other pairs": set_to(10**9, "history_length"),
    "no learning": set_to(KeyError, "learning"),
    "vectors of another length": set_to([[0.0]] * 4, "learning", "positions"),
    "vectors out of bounds": set_to([[99.0] * 32] * 4, "learning", "positions"),
    "vectors of NaN": set_to([[float("nan")] * 32] * 4, "learning", "velocities"),
    "vectors of text": set_to([["0"] * 32] * 4, "learning", "positions"),
    "other random numbers": set_to({"bit_generator": "MT19937"}, "learning", "random"),
    "random numbers of text": set_to("PCG64", "learning", "random"),
    "no weight set": set_to(KeyError, "weight_set"),
    "a weight set of another": set_to(torch.zeros(9), "weight_set", "classifier.bias"),
    "a weight set of NaN": set_to(torch.full((2,), float("nan")), "weight_set", "classifier.bias"),
}


@pytest.mark.parametrize("change", SEARCH_STATES)
def test_a_state_that_this_search_cannot_have(change, run_folders, tmp_path, monkeypatch, capsys):
    damage = changed_checkpoint(SEARCH_STATES[change])
    status = resume_damaged(
        "train_search", "checkpoint.pt", damage, run_folders, tmp_path, monkeypatch
    )
    assert_one_line(status, capsys, "checkpoint.pt")


def so_far(step, sums):
    return {"step": step, "sums": sums.double(), "seconds": 1.0}


TRAINING_STATES = {
    "no weights": set_to(KeyError, "state_dict"),
    "weights of another": set_to(torch.zeros(9), "state_dict", "classifier.bias"),
    "no epoch": set_to(KeyError, "epoch"),
    "an epoch beyond the end": set_to(10**9, "epoch"),
    "an accuracy of NaN": set_to(float("nan"), "best_top1"),
    "no optimizer": set_to(KeyError, "optimizer"),
    "an optimizer of text": set_to("SGD", "optimizer"),
    "an optimizer without momentum": set_to({}, "optimizer", "state", 0),
    "a momentum of another": set_to(torch.zeros(9), "optimizer", "state", 0, "momentum_buffer"),
    "a momentum of nobody": set_to({"momentum_buffer": None}, "optimizer", "state", 10**9),
    "steps of no image": set_to(so_far(3, torch.zeros(1, 4)), "epoch_so_far"),
    "steps beyond the epoch": set_to(so_far(10**6, torch.ones(1, 4)), "epoch_so_far"),
    "sums of no process": set_to(so_far(0, torch.zeros(0, 4)), "epoch_so_far"),
}


@pytest.mark.parametrize("change", TRAINING_STATES)
def test_a_state_that_this_training_cannot_have(change, run_folders, tmp_path, monkeypatch, capsys):
    damage = changed_checkpoint(TRAINING_STATES[change])
    status = resume_damaged("train", "last.pt", damage, run_folders, tmp_path, monkeypatch)
    assert_one_line(status, capsys, "last.pt")
