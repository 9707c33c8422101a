"""A run is resumed on the images that it began with; what differs is named."""

import json
import shutil

import pytest
from helpers import (
    TINY_IMAGENET,
    TINY_TRAINING,
    assert_one_line,
    call_script,
    only_folder,
    write_image_folder,
    write_lmdb_set,
    write_small_set,
)

from dataset.encoded_images import open_images
from dataset.encoded_manifest import encoded_manifest, image_size
from dataset.lmdb_set import encode_value
from dataset.manifest import differences

SCRIPTS = ("train_search", "train", "train_imagenet")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of each script, and the images of each."""
    parent = tmp_path_factory.mktemp("runs")
    small = [*write_small_set(parent / "train"), "--epochs", "1", "--no-cutout"]
    shutil.copytree(parent / "train", parent / "train_search")
    classes = {"cat": 8, "dog": 8, "eel": 8}
    write_image_folder(parent / "train_imagenet", {"train": classes, "val": classes}, 8)
    arguments = {
        "train": small,
        "train_search": [*small, "--pop_size", "2", "--data", parent / "train_search"],
        "train_imagenet": [
            *TINY_IMAGENET,
            "--epochs",
            "2",
            "--data_path",
            parent / "train_imagenet",
        ],
    }
    with pytest.MonkeyPatch.context() as monkeypatch:
        for script in SCRIPTS:
            save = ["--save", parent / "saved" / script / "EXP"]
            assert call_script(script, [*arguments[script], *save], monkeypatch) == 0
    return parent


@pytest.fixture
def resume(finished, tmp_path, monkeypatch):
    """Resume a copy of a run on a copy of its images that `change` has changed."""
    count = 0

    def resume(script, change, change_run=lambda run: None):
        nonlocal count
        count += 1
        data, run = tmp_path / f"data{count}", tmp_path / f"run{count}"
        shutil.copytree(finished / script, data)
        shutil.copytree(only_folder(finished / "saved" / script), run)
        change(data)
        change_run(run)
        flag = "--data_path" if script == "train_imagenet" else "--data"
        return call_script(script, ["--resume", run, flag, data], monkeypatch)

    return resume


def both_splits(change):
    def changed(data):
        for split in data.iterdir():
            change(split)

    return changed


def grow(data):
    with open(data / "train" / "dog" / "3.png", "ab") as file:
        file.write(b"\0")


CHANGES = {
    "a class renamed": (
        both_splits(lambda split: (split / "dog").rename(split / "cow")),
        ["class dog is missing; class cow is new"],
    ),
    "a class added": (
        both_splits(lambda split: shutil.copytree(split / "dog", split / "ant")),
        ["class ant is new;"],
    ),
    "an image added": (
        lambda data: shutil.copy(data / "train/dog/0.png", data / "train/dog/more.png"),
        ["train/dog had 8 images and has 9;"],
    ),
    "an image renamed": (
        lambda data: (data / "train/eel/0.png").rename(data / "train/eel/9.png"),
        ["train/eel has images of other names or sizes;"],
    ),
    "an image of another size": (grow, ["train/dog has images of other names or sizes;"]),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("change", CHANGES)
def test_resuming_on_other_images_is_refused(script, change, resume, capsys):
    make, expected = CHANGES[change]
    assert_one_line(resume(script, make), capsys, "--resume", *expected, "manifest.json")


def test_other_test_images_are_named_too(resume, capsys):
    def remove_one(data):
        folder = data / "test" if (data / "test").exists() else data / "val"
        (folder / "cat" / "0.png").unlink()

    assert_one_line(resume("train", remove_one), capsys, "test/cat had 8 images and has 7")
    assert_one_line(resume("train_imagenet", remove_one), capsys, "val/cat had 8 images and has 7")
    assert resume("train_search", remove_one) == 0  # it does not look at them


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_same_images_elsewhere_are_the_same(script, resume):
    assert resume(script, lambda data: (data / "train/dog/.hidden").write_text("")) == 0


def test_runs_without_a_manifest_are_resumed_and_get_one(resume, finished, tmp_path):
    """Those of before there were any; and the user may remove it to go on with other images."""
    make, _ = CHANGES["an image added"]
    assert resume("train", make, lambda run: (run / "manifest.json").unlink()) == 0
    manifest = json.loads((tmp_path / "run1" / "manifest.json").read_text())
    assert manifest["class_names"] == ["cat", "dog", "eel"]
    assert manifest["splits"]["train"]["dog"][0] == 9


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "[]",
        "{}",
        '{"class_names": [1], "splits": {}}',
        '{"class_names": [], "splits": {"a": 1}}',
        '{"class_names": [], "splits": {"train": {"a": [1]}}}',
        '{"class_names": [], "splits": {"train": {"a": [-1, ""]}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_manifest_is_named(junk, resume, capsys):
    def damage(run):
        (run / "manifest.json").write_text(junk)

    status = resume("train", lambda data: None, damage)
    assert_one_line(status, capsys, "manifest.json: damaged", "remove it")


def test_sets_without_files_have_their_counts(tmp_path, monkeypatch):
    arguments = [*TINY_TRAINING, "--epochs", "1", "--save", tmp_path / "EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    folder = only_folder(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["class_names"] == list("0123456789")
    assert sum(count for count, _ in manifest["splits"]["train"].values()) == 1437
    assert sum(count for count, _ in manifest["splits"]["test"].values()) == 360
    assert call_script("train", ["--resume", folder], monkeypatch) == 0


def test_an_lmdb_has_the_manifest_of_its_images(tmp_path):
    data = write_lmdb_set(tmp_path, {"train": {"a": 2, "b": 1}, "val": {"a": 1}})
    manifests = [
        encoded_manifest({s: open_images(path, s) for s in ("train", "val")}, ["a", "b"])
        for path in (data, data.parent / "images")
    ]
    assert manifests[0] == manifests[1]
    assert manifests[0]["splits"]["train"].keys() == {"a", "b"}


@pytest.mark.parametrize("size", [1, 253, 254, 65_533, 65_534, 1_000_000])
def test_the_size_of_an_image_is_that_of_its_value_less_the_rest(size):
    assert image_size(len(encode_value(bytes(size), 3))) == size


def test_labels_that_changed_places_are_named():
    splits = {"train": {"a": [1, "x"], "b": [1, "y"]}}
    before = {"class_names": ["a", "", "b"], "splits": splits}
    assert differences(before, before) == []
    found = differences(before, {"class_names": ["b", "", "a"], "splits": splits})
    assert found == ["class b had label 2 and has 0", "class a had label 0 and has 2"]
    found = differences(before, {**before, "splits": {"train": {"a": [1, "x"]}}})
    assert found == ["train/b is missing"]
    # Without names for the labels, as where two classes share one.
    before = {"class_names": [], "splits": splits}
    more = {"train": {**splits["train"], "c": [1, "z"]}}
    assert differences(before, {**before, "splits": more}) == ["train/c is new"]
    assert differences({**before, "splits": more}, before) == ["train/c is missing"]
