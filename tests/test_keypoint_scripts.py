"""train_keypoints.py and test_keypoints.py as a user runs them, and a user's mistakes."""

import json
import re
import shutil
import sys

import pytest
import torch
from helpers import (
    STOPPED,
    act_at_step,
    ask_to_stop,
    assert_one_line,
    call_script,
    only_folder,
    read_history,
)
from kill_harness import (
    Script,
    assert_same_run,
    at_step,
    killed_in_the_second_epochs_save,
    resumable,
)
from PIL import Image
from test_keypoint_annotations import read, write_coco

from runtime.checkpoint import load_checkpoint, save_checkpoint
from transfer import train_keypoints
from transfer.keypoints import task
from transfer.keypoints.data import Augmentation
from transfer.keypoints.evaluation import average_precision
from transfer.keypoints.network import load_keypoint_network
from transfer.keypoints.targets import predict_heatmaps
from utils import parameter_count

TRAIN, TEST = "transfer/train_keypoints", "transfer/test_keypoints"

TINY = [
    "--init_channels", "2", "--layers", "3", "--upsampled_channels", "8", "--image_size", "64",
    "32", "--batch_size", "4", "--epochs", "2", "--milestones", "1", "--learning_rate", "0.02",
    "--workers", "0", "--no-tensorboard",
]  # fmt: skip


def forgiving(content):
    """Areas so large that a network which has hardly learned finds some people."""
    for person in content["annotations"]:
        person["area"] = 3e5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    write_coco(root, 8, 0, "train")
    write_coco(root, 5, 1, "val", change=forgiving)
    return root


def arguments_of(data, parent):
    return [*TINY, "--data", data, "--save", parent / "EXP"]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of an uninterrupted run."""
    parent = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        arguments = [*arguments_of(data, parent), "--pictures", "3"]
        assert call_script(TRAIN, arguments, monkeypatch) == 0
    return only_folder(parent)


def test_a_run_leaves_what_it_measured_and_what_it_trained(whole, data):
    records = read_history(whole)
    assert [record["learning_rate"] for record in records] == pytest.approx([0.02, 0.002])
    _, people = read(data, "train")
    _, others = read(data)
    for record in records:
        assert list(record["train"]) == ["loss", "found", "count"]
        assert list(record["validation"])[:3] == ["ap", "ap50", "ap75"]
        assert (record["train"]["count"], record["validation"]["count"]) == (
            len(people),
            len(others),
        )
        assert 0 < record["validation"]["ap"] < record["validation"]["ap50"] <= 100
    best = torch.load(whole / "best.pt")
    assert best["ap"] == max(record["validation"]["ap"] for record in records)
    assert (best["task"], best["image_size"], best["bgr"]) == ("keypoints", [64, 32], False)
    assert best["upsampled_channels"] == 8
    assert (best["mean"], best["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    log = (whole / "log.txt").read_text()
    assert f"val: {len(others)} people; left out: nobody" in log
    assert "--model_path gives it those of ImageNet" in log
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["splits"]["train"]["images"][0] == 8


def test_the_best_networks_people_are_drawn_for_the_report(whole):
    picture = Image.open(whole / "predictions.png")
    assert picture.format == "PNG"
    assert picture.size == (2 * 160 + 4, 2 * 160 + 4)  # three images in two rows
    assert "Predictions" in (whole / "report.html").read_text()


@pytest.mark.parametrize("step", [2, 5])
def test_a_stopped_run_goes_on_with_the_same_bits(step, whole, data, tmp_path, monkeypatch):
    arguments = [*arguments_of(data, tmp_path), "--pictures", "3"]
    with act_at_step(step, ask_to_stop):
        assert call_script(TRAIN, arguments, monkeypatch) == STOPPED
    folder = only_folder(tmp_path)
    kept = torch.load(folder / "last.pt")
    assert kept["epoch_so_far"]["step"] > 0
    moments = kept["optimizer"]["state"][0]
    assert moments["step"] == step and moments["exp_avg_sq"].abs().sum() > 0
    assert call_script(TRAIN, ["--resume", folder], monkeypatch) == 0
    assert_same_run(folder, whole)


def test_killed_while_a_checkpoint_gets_its_name_and_resumed(whole, data, tmp_path):
    parent = tmp_path / "runs"
    parent.mkdir()
    arguments = [*arguments_of(data, parent), "--pictures", "3"]
    assert_same_run(killed_in_the_second_epochs_save(TRAIN, arguments, parent), whole)


def test_a_signal_while_it_validates(whole, data, tmp_path, monkeypatch):
    batches = []

    def ask_and_predict(*arguments):
        batches.append(arguments)
        ask_to_stop()
        return predict_heatmaps(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(task, "predict_heatmaps", ask_and_predict)
        arguments = [*arguments_of(data, tmp_path), "--pictures", "3"]
        assert call_script(TRAIN, arguments, patch) == STOPPED
    assert len(batches) == 1
    folder = only_folder(tmp_path)
    state = torch.load(folder / "last.pt")
    assert (state["epoch"], state["epoch_so_far"]["step"]) == (0, 3)
    assert call_script(TRAIN, ["--resume", folder], monkeypatch) == 0
    assert_same_run(folder, whole)


def of_another_shape(state):
    state[0]["exp_avg"] = torch.zeros(3, 3)


def without_squares(state):
    del state[1]["exp_avg_sq"]


def of_nobody(state):
    state[10**6] = state[0]


def without_a_count_of_steps(state):
    state[0]["step"] = 3.0


def of_less_than_no_steps(state):
    state[0]["step"] = torch.tensor(-1.0)


def of_steps_that_are_no_number(state):
    state[0]["step"] = torch.tensor(True)


def of_negative_squares(state):
    state[1]["exp_avg_sq"][0] = -1


def not_finite(state):
    state[1]["exp_avg"][0] = torch.nan


@pytest.mark.parametrize(
    "damage",
    [
        of_another_shape, without_squares, of_nobody, without_a_count_of_steps,
        of_less_than_no_steps, of_steps_that_are_no_number, of_negative_squares, not_finite,
    ],
)  # fmt: skip
def test_a_damaged_state_of_adam_is_refused(damage, whole, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(whole, tmp_path / "run")
    content = load_checkpoint(folder / "last.pt")
    damage(content["optimizer"]["state"])
    save_checkpoint(content, folder / "last.pt")
    status = call_script(TRAIN, ["--resume", folder], monkeypatch)
    assert_one_line(status, capsys, "last.pt", "optimizer", "train anew")


def test_people_are_scaled_and_turned_as_the_flags_say(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        train_keypoints, "fit", lambda args, run, task, data: seen.append(data.loading.augmentation)
    )
    for flags in ([], ["--scale", "0.1", "--rotation", "0"]):
        arguments = [*arguments_of(data, tmp_path / str(len(seen))), *flags]
        assert call_script(TRAIN, arguments, monkeypatch) == 0
    assert seen == [Augmentation(), Augmentation(scale=0.1, rotation=0.0)]
    assert (seen[0].scale, seen[0].rotation) == (0.3, 40.0)


def figures_in(output):
    """The figures in percent that the test script printed."""
    pairs = re.findall(r"^(\w.{15})(-?\d+\.\d\d) %$", output, re.MULTILINE)
    return {name.strip(): float(value) for name, value in pairs}


def output_of(arguments, monkeypatch, capsys):
    capsys.readouterr()
    assert call_script(TEST, ["--workers", "0", *arguments], monkeypatch) == 0
    return capsys.readouterr().out


def test_what_a_checkpoint_finds_is_printed_and_written(whole, data, tmp_path, monkeypatch, capsys):
    arguments = ["--model_path", whole / "last.pt", "--data", data, "--batch_size", "4"]
    arguments += ["-o", tmp_path / "found", "--pictures", "1"]
    output = output_of(arguments, monkeypatch, capsys)
    annotations, people = read(data)
    assert f"5 of {data}, with {len(people)} people" in output
    assert re.search(r"multiply-adds +\d\.\d M at 64×32", output)
    assert re.search(r"parameters +0\.0\d M", output)
    assert re.search(r"speed +\d+\.\d people/s", output)
    printed = figures_in(output)
    last = read_history(whole)[-1]["validation"]
    names = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "joints found": "found"}
    for name, ours in names.items():
        assert printed[name] == pytest.approx(last[ours], abs=0.0051)
    results = json.loads((tmp_path / "found" / "predictions.json").read_text())
    figures = average_precision(annotations.coco_images, annotations.people, results)
    for name, value in figures.items():
        assert printed[name.replace("_", " ")] == pytest.approx(100 * value, abs=0.0051)
    ids = [result["image_id"] for result in results]
    assert ids == sorted(ids) and set(ids) == {1, 2, 3, 4, 5}
    assert {len(result["keypoints"]) for result in results} == {51}
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "predictions.json",
        "predictions.png",
    ]
    assert Image.open(tmp_path / "found" / "predictions.png").size == (160, 160)


def test_detected_boxes_take_the_place_of_true_ones(whole, data, tmp_path, monkeypatch, capsys):
    _, people = read(data)
    arguments = ["--model_path", whole / "last.pt", "--data", data]
    output_of([*arguments, "-o", tmp_path / "true"], monkeypatch, capsys)
    detections = [
        {"image_id": image_id, "category_id": 1, "bbox": box, "score": 0.5}
        for image_id, box in zip(people.image_ids.tolist(), people.boxes.tolist(), strict=True)
    ]
    detections.append({"image_id": 1, "category_id": 1, "bbox": [5, 5, 0, 9], "score": 0.9})
    (tmp_path / "boxes.json").write_text(json.dumps(detections))
    arguments += ["--detections", tmp_path / "boxes.json", "-o", tmp_path / "detected"]
    output = output_of(arguments, monkeypatch, capsys)
    assert f"{len(people)} detected boxes" in output and "joints found" not in output
    assert "left out        1 without area" in output
    true, detected = (
        json.loads((tmp_path / name / "predictions.json").read_text())
        for name in ("true", "detected")
    )
    assert [result["keypoints"] for result in detected] == [r["keypoints"] for r in true]
    assert [result["score"] for result in detected] == [r["score"] / 2 for r in true]


def test_two_processes_find_what_one_finds(whole, data, tmp_path):
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        arguments = ["--model_path", whole / "last.pt", "--data", data, "--workers", "0"]
        # One image at a time in each, for sums of other batches differ in their last digits.
        arguments += ["--batch_size", processes, "-o", folder, "--pictures", "2"]
        output = Script(TEST, arguments, folder, processes).finish()
        assert output.count("test images") == 1
        written = {path.name: path.read_bytes() for path in folder.iterdir()}
        found[processes] = (figures_in(output), written)
    assert len(found[1][0]) >= 8 and len(found[1][1]) == 2
    assert found[1] == found[2]


def test_two_processes_stopped_go_on_with_the_same_bits(data, tmp_path, monkeypatch, capsys):
    folders = []
    for name, prepare in (("whole", lambda rank: None), ("stopped", at_step(2, ask_to_stop, 1))):
        parent = tmp_path / name
        parent.mkdir()
        script = Script(TRAIN, arguments_of(data, parent), parent, 2, prepare)
        statuses = script.wait()
        if name == "stopped":
            assert statuses == [STOPPED] * 2, script.read_output()
            Script(TRAIN, ["--resume", *resumable(parent)], parent, 2).finish()
        folders.append(only_folder(parent))
    assert_same_run(*folders)
    records = read_history(folders[0])
    assert [record["validation"]["count"] for record in records] == [len(read(data)[1])] * 2
    # The checkpoint has the main process's statistics of batch norm; so had all in validation.
    arguments = ["--model_path", folders[0] / "last.pt", "--data", data, "--batch_size", "2"]
    printed = figures_in(output_of(arguments, monkeypatch, capsys))
    last = records[-1]["validation"]
    assert printed["joints found"] == pytest.approx(last["found"], abs=0.0051)
    assert printed["AP"] == pytest.approx(last["ap"], abs=0.0051)


def test_as_published_trains_and_tests_in_bgr(data, tmp_path, monkeypatch, capsys):
    arguments = [*arguments_of(data, tmp_path), "--as_published", "--epochs", "1"]
    assert call_script(TRAIN, arguments, monkeypatch) == 0
    path = only_folder(tmp_path) / "last.pt"
    assert torch.load(path)["bgr"] is True
    last = read_history(path.parent)[-1]
    assert last["learning_rate"] == 0.02
    joints = {}
    for flags in ((), ("--bgr",), ("--no-bgr",)):
        folder = tmp_path / f"found{len(joints)}"
        arguments = ["--model_path", path, "--data", data, "--batch_size", "4", *flags]
        output = output_of([*arguments, "-o", folder], monkeypatch, capsys)
        if not flags:
            assert figures_in(output)["AP"] == pytest.approx(last["validation"]["ap"], abs=0.0051)
        results = json.loads((folder / "predictions.json").read_text())
        joints[flags] = [result["keypoints"] for result in results]
    assert joints[()] == joints[("--bgr",)] != joints[("--no-bgr",)]


def test_no_flip_looks_once(whole, data, tmp_path, monkeypatch, capsys):
    found = []
    for number, flags in enumerate(([], ["--no-flip"])):
        arguments = ["--model_path", whole / "last.pt", "--data", data, *flags]
        output_of([*arguments, "-o", tmp_path / str(number)], monkeypatch, capsys)
        found.append((tmp_path / str(number) / "predictions.json").read_text())
    assert found[0] != found[1]


def test_the_made_set_is_tested_at_another_size(whole, monkeypatch, capsys):
    arguments = ["--model_path", whole / "last.pt", "--set", "made", "--image_size", "32", "64"]
    output = output_of(arguments, monkeypatch, capsys)
    assert "60 of made, with" in output and "at 32×64" in output
    network, _ = load_keypoint_network(whole / "last.pt")
    assert f"parameters      {parameter_count(network) / 1e6:.2f} M" in output


def without_joints(content):
    for person in content["annotations"]:
        person["keypoints"] = [0] * 51


def nobody_labelled(root):
    shutil.rmtree(root / "val2017")
    write_coco(root, 2, 1, "val", change=without_joints)


BAD_DATA = {
    "no annotations": (
        lambda root: shutil.rmtree(root / "annotations"),
        ["person_keypoints_train2017.json", "--data is the folder", "--set made"],
    ),
    "nobody labelled": (nobody_labelled, ["val2017.json", "labelled joints", "another file"]),
    "an image missing": (
        lambda root: (root / "val2017" / f"{2:012}.png").unlink(),
        ["000000000002.png", "get the images"],
    ),
    "an image cut short": (
        lambda root: (root / "train2017" / f"{2:012}.png").write_bytes(b"\x89PNG"),
        ["000000000002.png", "not an image"],
    ),
}


@pytest.mark.parametrize("damage", BAD_DATA)
def test_damaged_data_is_one_line(damage, data, tmp_path, monkeypatch, capsys):
    root = shutil.copytree(data, tmp_path / "data")
    change, expected = BAD_DATA[damage]
    change(root)
    status = call_script(TRAIN, arguments_of(root, tmp_path / "runs"), monkeypatch)
    assert_one_line(status, capsys, *expected)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--image_size", "64", "40"], ["'image_size'", "multiples of 32"]),
        (["--init_channels", "1"], ["'init_channels'", "from 2"]),
        (["--layers", "1"], ["'layers'", "from 2"]),
        (["--batch_size", "1"], ["--batch_size 1"]),
        (["--milestones", "0"], ["--milestones"]),
        (["--model_path", "nowhere.pt"], ["nowhere.pt", "No such file"]),
    ],
)
def test_flags_that_cannot_be_are_one_line(flags, expected, data, tmp_path, monkeypatch, capsys):
    status = call_script(TRAIN, [*arguments_of(data, tmp_path), *flags], monkeypatch)
    assert_one_line(status, capsys, *expected)
    assert not list(tmp_path.glob("*"))


def test_other_images_are_refused_on_resume(whole, data, tmp_path, monkeypatch, capsys):
    root = shutil.copytree(data, tmp_path / "data")
    path = root / "val2017" / f"{1:012}.png"
    Image.open(path).save(path, compress_level=0)
    folder = shutil.copytree(whole, tmp_path / "run")
    status = call_script(TRAIN, ["--resume", folder, "--data", root], monkeypatch)
    assert_one_line(status, capsys, "val/images has images of other names or sizes")


@pytest.mark.parametrize("script", [TRAIN, TEST])
def test_without_pycocotools_nothing_begins(script, whole, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    arguments = arguments_of(data, tmp_path / "runs")
    if script == TEST:
        arguments = ["--model_path", whole / "last.pt", "--data", data]
    status = call_script(script, arguments, monkeypatch)
    assert_one_line(status, capsys, "pip install -r transfer/requirements.txt")


def test_detections_without_labelled_people_have_no_average_precision(
    whole, data, tmp_path, monkeypatch, capsys
):
    root = shutil.copytree(data, tmp_path / "data")
    nobody_labelled(root)
    box = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 50, 90], "score": 0.9}
    (tmp_path / "boxes.json").write_text(json.dumps([box]))
    arguments = ["--model_path", whole / "last.pt", "--data", root, "--workers", "0"]
    arguments += ["--detections", tmp_path / "boxes.json"]
    status = call_script(TEST, arguments, monkeypatch)
    assert_one_line(status, capsys, "val2017.json", "no average precision")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--pictures", "1"], ["--pictures", "--output"]),
        (["-o", "."], ["-o .", "is there already"]),
        (["--image_size", "60", "32"], ["multiples of 32"]),
        (["--init_channels", "4"], ["another architecture"]),
        (["--detections", "nowhere.json"], ["nowhere.json", "No such file"]),
    ],
)
def test_flags_of_the_test_that_cannot_be(flags, expected, whole, data, monkeypatch, capsys):
    arguments = ["--model_path", whole / "last.pt", "--data", data, *flags]
    assert_one_line(call_script(TEST, arguments, monkeypatch), capsys, *expected)
