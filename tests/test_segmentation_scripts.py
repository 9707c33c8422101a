"""Training and testing segmentation as users do it, and what they can do wrong."""

import io
import re
import signal

import numpy as np
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
from kill_harness import FileWatch, Moment, Script, assert_same_run, at_step, resumable
from PIL import Image
from test_segmentation_data import write_cityscapes
from test_segmentation_task import norms

from dataset.batching import Batching
from genotypes import RelativeNAS
from model import NetworkImageNet
from transfer import (
    test_segmentation,  # noqa: F401  # imported before processes are forked
    train_segmentation,
)
from transfer.segmentation import made, task
from transfer.segmentation.batches import evaluation_batches
from transfer.segmentation.checkpoints import load_segmentation_network
from transfer.segmentation.data import CITYSCAPES_CLASSES, Cityscapes, class_of_label
from transfer.segmentation.evaluation import (
    Windows,
    class_scores,
    count_pixels,
    intersection_over_union,
    new_counts,
    pixel_metrics,
)
from transfer.segmentation.pictures import GAP

CPU = torch.device("cpu")

TRAIN, TEST = "transfer/train_segmentation", "transfer/test_segmentation"

TINY = ["--layers", "2", "--init_channels", "2", "--crop_size", "16", "--workers", "0"]

TRAINING = [*TINY, "--epochs", "2", "--batch_size", "4", "--warmup_steps", "2", "--pictures", "2"]

SIZE = (20, 28)
"""Height and width: four windows of 16."""


def names(city, count):
    return [f"{city}_{number:06}_000019" for number in range(count)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """12 images to train on in folders for cities, and 5 to validate on."""
    root = tmp_path_factory.mktemp("data")
    write_cityscapes(root, "train", [*names("aachen", 6), *names("bremen", 6)], size=SIZE)
    write_cityscapes(root, "val", names("ulm", 5), size=SIZE)
    return root


@pytest.fixture
def parent(tmp_path):
    parent = tmp_path / "runs"
    parent.mkdir()
    return parent


def start(data, parent, flags=(), processes=1, prepare=lambda rank: None):
    """Start the training in `parent`, or go on with it, in a process or more of its own."""
    begun = resumable(parent)
    new = [*TRAINING, *flags, "--data", data, "--save", parent / "EXP"]
    arguments = ["--resume", begun[-1]] if begun else new
    return Script(TRAIN, arguments, parent, processes, prepare)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of an uninterrupted run."""
    parent = tmp_path_factory.mktemp("whole") / "runs"
    parent.mkdir()
    start(data, parent).finish()
    return only_folder(parent)


def output_of_test(monkeypatch, capsys, *arguments):
    """What the test script prints; it must succeed."""
    capsys.readouterr()
    assert call_script(TEST, ["--workers", "0", *arguments], monkeypatch) == 0
    return capsys.readouterr().out


def figures(output):
    """The percentages that it printed, by their names."""
    return dict(re.findall(r"^ *(\S.*?) +(\d+\.\d\d %|-)$", output, re.MULTILINE))


def label_maps(folder):
    """The classes in the label maps that it wrote, by the images' names."""
    table = class_of_label(CITYSCAPES_CLASSES)
    return {
        path.stem: torch.from_numpy(table[np.asarray(Image.open(path))])
        for path in (folder / "label_maps").iterdir()
    }


def counts_of(found, images):
    """Counts of the pixels in label maps."""
    counts = new_counts(19, CPU)
    for index in range(len(images)):
        count_pixels(counts, found[images.name(index)], images.read(index)[1])
    return counts


def test_the_test_finds_what_the_training_found_last(data, whole, tmp_path, monkeypatch, capsys):
    last = read_history(whole)[-1]
    assert [record["train"]["count"] for record in read_history(whole)] == [12, 12]
    assert last["validation"].keys() == {"miou", "pixel_accuracy", "count"}
    assert last["validation"]["count"] == 5
    output = output_of_test(
        monkeypatch, capsys, "--model_path", whole / "last.pt", "--data", data,
        "-o", tmp_path / "found", "--pictures", "4",
    )  # fmt: skip
    images = Cityscapes(data, "val")
    found = label_maps(tmp_path / "found")
    assert sorted(found) == names("ulm", 5)
    counts = counts_of(found, images)
    metrics = {name: last["validation"][name] for name in ("miou", "pixel_accuracy")}
    assert metrics == pixel_metrics(counts)
    printed = figures(output)
    assert printed.pop("mIoU") == f"{metrics['miou']:.2f} %"
    assert printed.pop("pixel accuracy") == f"{metrics['pixel_accuracy']:.2f} %"
    assert list(printed) == [pixel_class.name for pixel_class in CITYSCAPES_CLASSES]
    for text, value in zip(printed.values(), intersection_over_union(counts), strict=True):
        assert text == ("-" if value.isnan() else f"{100 * value:.2f} %")
    assert "test images     5 of cityscapes\n" in output
    assert re.search(r"^parameters +\d\.\d\d M\nmultiply-adds +\d+\.\d M at 16×16$", output, re.M)
    # Four of three parts each, in two rows.
    width, height = 3 * SIZE[1] + 2 * GAP, SIZE[0]
    with Image.open(tmp_path / "found" / "predictions.png") as picture:
        assert picture.format == "PNG" and picture.size == (2 * width + 4, 2 * height + 4)


def test_scores_of_scales_and_mirrored_windows_add_up(data, whole, tmp_path, monkeypatch, capsys):
    output_of_test(
        monkeypatch, capsys, "--model_path", whole / "best.pt", "--data", data,
        "-o", tmp_path / "found", "--scales", "0.5", "1.25", "--flip", "--crop_size", "12",
    )  # fmt: skip
    assert not (tmp_path / "found" / "predictions.png").exists()
    found = label_maps(tmp_path / "found")
    network, description = load_segmentation_network(whole / "best.pt")
    assert description["crop_size"] == 16
    assert description["class_names"][:2] == ["road", "sidewalk"]
    images = Cityscapes(data, "val")
    windows = Windows(12, scales=(0.5, 1.25), flip=True)
    with torch.inference_mode():
        for index, (pixels, _) in enumerate(evaluation_batches(images, Batching(1, CPU))):
            expected = class_scores(network, pixels, windows).argmax(dim=1)[0]
            assert torch.equal(found[images.name(index)].long(), expected)


def test_pictures_are_in_the_run_folder_and_the_report(whole):
    content = (whole / "predictions.png").read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        assert picture.size == (2 * (3 * SIZE[1] + 2 * GAP) + 4, SIZE[0])
    assert "What the best checkpoint (best.pt) finds" in (whole / "report.html").read_text()


@pytest.mark.parametrize("moment", ["a step", "the validation", "a file"])
def test_stopped_or_killed_and_resumed(moment, data, whole, parent, monkeypatch):
    def stop_in_validation(rank):
        def scores(*arguments):
            ask_to_stop()
            return class_scores(*arguments)

        task.class_scores = scores  # in a process of its own

    prepare, status = {
        "a step": (at_step(5, ask_to_stop), STOPPED),
        "the validation": (stop_in_validation, STOPPED),
        "a file": (FileWatch(parent, Moment("os.rename", "last.pt.*.tmp", 1)), -signal.SIGKILL),
    }[moment]
    script = start(data, parent, prepare=prepare)
    assert script.wait() == [status]
    place = {"a step": "step 2/3 of epoch 2", "the validation": "step 3/3 of epoch 1"}
    assert place.get(moment, "") in script.read_output()
    start(data, parent).finish()
    assert_same_run(only_folder(parent), whole)


@pytest.fixture(scope="module")
def whole_of_two(data, tmp_path_factory):
    """The folder of an uninterrupted run in two processes."""
    parent = tmp_path_factory.mktemp("whole_of_two") / "runs"
    parent.mkdir()
    start(data, parent, processes=2).finish()
    return only_folder(parent)


def test_two_processes_are_stopped_and_resumed(data, whole_of_two, parent):
    # They stop after the step in which the others hear of it, the second one.
    script = start(data, parent, processes=2, prepare=at_step(4, ask_to_stop, rank=1))
    assert script.wait() == [STOPPED, STOPPED]
    start(data, parent, processes=2).finish()
    assert_same_run(only_folder(parent), whole_of_two)


def test_two_processes_find_what_one_does(data, whole_of_two, tmp_path):
    printed, found = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        arguments = ["--model_path", whole_of_two / "last.pt", "--data", data, "--workers", "0"]
        arguments += ["-o", folder, "--pictures", "3"]
        output = Script(TEST, arguments, tmp_path / f"out{processes}", processes).finish()
        printed.append(figures(output))
        files = (path for path in folder.rglob("*") if path.is_file())
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert printed[0] == printed[1] and len(printed[0]) == 21
    assert found[0] == found[1] and len(found[0]) == 6
    validation = read_history(whole_of_two)[-1]["validation"]
    assert printed[0]["mIoU"] == f"{validation['miou']:.2f} %"


def test_as_published_the_backbones_norms_are_not_trained(data, whole, parent, tmp_path):
    flags = ["--as_published"]
    script = start(data, parent, flags, prepare=at_step(4, ask_to_stop))
    assert script.wait() == [STOPPED]
    start(data, parent).finish()
    uninterrupted = tmp_path / "uninterrupted"
    uninterrupted.mkdir()
    start(data, uninterrupted, flags).finish()
    assert_same_run(only_folder(parent), only_folder(uninterrupted))
    weights = norms(torch.load(only_folder(parent) / "last.pt")["state_dict"])
    assert len(weights) == 34
    assert all(torch.equal(value, torch.full_like(value, name.endswith(".weight")))
               for name, value in weights.items())  # fmt: skip
    trained = norms(torch.load(whole / "last.pt")["state_dict"])
    changed = [name for name in weights if not torch.equal(weights[name], trained[name])]
    assert len(changed) > len(weights) / 2


def test_as_published_images_are_enlarged_to_the_crop(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        train_segmentation, "fit", lambda args, run, task, data: seen.append(data.as_published)
    )
    for flag in ("--as_published", "--no-as_published"):
        arguments = [*TRAINING, "--data", data, flag, "--save", tmp_path / flag / "EXP"]
        assert call_script(TRAIN, arguments, monkeypatch) == 0
    assert seen == [True, False]


def test_made_shapes_are_trained_on_and_tested(parent, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(made, "IMAGES", {"train": 9, "val": 4})
    arguments = [*TRAINING, "--set", "made", "--epochs", "1", "--save", parent / "EXP"]
    arguments += ["--batch_size", "3", "--crop_size", "24"]
    assert call_script(TRAIN, arguments, monkeypatch) == 0
    last = only_folder(parent) / "last.pt"
    output = output_of_test(
        monkeypatch, capsys, "--set", "made", "--model_path", last, "-o", tmp_path / "found"
    )
    validation = read_history(only_folder(parent))[-1]["validation"]
    assert figures(output)["mIoU"] == f"{validation['miou']:.2f} %"
    paths = sorted((tmp_path / "found" / "label_maps").iterdir())
    assert [path.stem for path in paths] == [f"shapes_val_{number:04}" for number in range(4)]
    assert all(Image.open(path).size == (24, 24) for path in paths)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--warmup_steps", "6"], ["--warmup_steps 6", "less than", "6 (--epochs 2 of 3)"]),
        (["--batch_size", "1"], ["--batch_size 1", "batch norm"]),
        (["--layers", "1"], ["'layers'", "from 2"]),
        (["--crop_size", "10000"], ["'crop_size'", "from 1 to 8192"]),
        (["--data", "nowhere"], ["nowhere/leftImg8bit/train: is not a folder"]),
        (["--model_path", "BEST"], ["best.pt is of another architecture"]),
    ],
)
def test_mistakes_in_training(flags, expected, data, whole, parent, monkeypatch, capsys):
    flags = [whole / "best.pt" if flag == "BEST" else flag for flag in flags]
    arguments = [*TRAINING, "--data", data, "--save", parent / "EXP", *flags]
    assert_one_line(call_script(TRAIN, arguments, monkeypatch), capsys, *expected)
    assert not any(parent.iterdir())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--set", "made"], ["has 19 classes (road, ", "--set made has 4 (background, "]),
        (["--model_path", "IMAGENET"], ["holds no network for segmentation"]),
        (["--scales", "1", "0"], ["--scales 0", "above 0"]),
        (["--pictures", "1"], ["--pictures: give --output"]),
        (["-o", "DATA"], ["is there already"]),
        (["--batch_size", "1"], ["--batch_size 1"]),
    ],
)
def test_mistakes_in_testing(flags, expected, data, whole, tmp_path, monkeypatch, capsys):
    torch.save(NetworkImageNet(2, 10, 2, False, RelativeNAS).state_dict(), tmp_path / "imagenet")
    stand_for = {"IMAGENET": tmp_path / "imagenet", "DATA": data}
    flags = [stand_for.get(flag, flag) for flag in flags]
    arguments = ["--model_path", whole / "best.pt", "--data", data, "--workers", "0", *flags]
    assert_one_line(call_script(TEST, arguments, monkeypatch), capsys, *expected)


def test_other_classes_of_the_same_number_are_refused(data, whole, tmp_path, monkeypatch, capsys):
    content = torch.load(whole / "best.pt")
    content["class_names"][3] = "hedge"
    torch.save(content, tmp_path / "best.pt")
    arguments = ["--model_path", tmp_path / "best.pt", "--data", data, "--workers", "0"]
    assert_one_line(call_script(TEST, arguments, monkeypatch), capsys, "hedge", "wall")
    content["class_names"] = ["road"]
    torch.save(content, tmp_path / "best.pt")
    status = call_script(TEST, arguments, monkeypatch)
    assert_one_line(status, capsys, "'class_names'", "one for each class")


def test_images_without_any_class_are_refused(data, whole, tmp_path):
    write_cityscapes(tmp_path / "data", "val", names("ulm", 2), size=SIZE)
    for path in (tmp_path / "data" / "gtFine").rglob("*labelIds.png"):
        Image.fromarray(np.zeros(SIZE, dtype=np.uint8)).save(path)
    arguments = ["--model_path", whole / "best.pt", "--data", tmp_path / "data", "--workers", "0"]
    for processes in (1, 2):
        script = Script(TEST, arguments, tmp_path / "out", processes)
        assert script.wait() == [2] * processes
        lines = script.read_output().splitlines()
        assert len(lines) == processes
        assert all("the 2 validation images have no pixel of any class" in line for line in lines)


def test_other_images_on_resume_are_named(data, parent, tmp_path, monkeypatch, capsys):
    arguments = [*TRAINING, "--data", data, "--save", parent / "EXP"]
    with act_at_step(2, ask_to_stop):
        assert call_script(TRAIN, arguments, monkeypatch) == STOPPED
    capsys.readouterr()
    write_cityscapes(tmp_path / "other", "train", names("aachen", 7), size=SIZE)
    write_cityscapes(tmp_path / "other", "val", names("ulm", 5), size=SIZE)
    arguments = ["--resume", only_folder(parent), "--data", tmp_path / "other"]
    status = call_script(TRAIN, arguments, monkeypatch)
    assert_one_line(
        status, capsys, "train/aachen had 6 images and has 7", "train/bremen is missing"
    )
