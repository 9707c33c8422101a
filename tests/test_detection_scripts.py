"""transfer/train_detection.py and transfer/test_detection.py as a user runs them."""

import io
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
    assert_same_tensors,
    call_script,
    only_folder,
    read_history,
)
from kill_harness import Script, assert_same_run, at_step, killed_in_the_second_epochs_save
from PIL import Image
from test_detection_annotations import OBJECT

from genotypes import RelativeNAS
from model import NetworkImageNet
from transfer import train_detection
from transfer.detection import made
from transfer.detection.annotations import VOC_CLASSES, VOC_TEST, VOC_TRAINING
from transfer.detection.network import build_detector, describe_detector, new_detector
from transfer.detection.task import Detection

TRAIN, TEST = "transfer/train_detection", "transfer/test_detection"


TINY = [
    "--init_channels", "2", "--layers", "2", "--image_size", "32", "--batch_size", "4",
    "--epochs", "2", "--workers", "0", "--no-tensorboard",
]  # fmt: skip

COUNTS = {("2007", "trainval"): 6, ("2012", "trainval"): 6, ("2007", "test"): 5}


def made_image(digits, number):
    """An image of the made set, smaller, and its objects; one in five has none."""
    image, target = digits.read(number, training=False)
    boxes = target["boxes"].tolist()
    objects = [(1 + (number + place) % 10, box) for place, box in enumerate(boxes)]
    if number % 5 == 4:
        image, objects = torch.zeros_like(image), []
    return Image.fromarray(image.permute(1, 2, 0).numpy()), objects


def write_voc(root):
    """Digits as the first ten of VOC's classes; the last one of an image is difficult."""
    digits = {name: made.MadeDigits(name) for name in ("train", "val")}
    for (year, name), count in COUNTS.items():
        folder = root / "VOCdevkit" / f"VOC{year}"
        for part in ("ImageSets/Main", "Annotations", "JPEGImages"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        images = [f"{year}_{name[:2]}{number:02}" for number in range(count)]
        (folder / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(images) + "\n")
        for number, image_id in enumerate(images):
            image, objects = made_image(digits["val" if name == "test" else "train"], number)
            image.save(folder / "JPEGImages" / f"{image_id}.jpg")
            nodes = [
                OBJECT.format(VOC_CLASSES[label - 1], int(i == 2), *(1 + int(x) for x in box))
                for i, (label, box) in enumerate(objects)
            ]
            text = f"<annotation>{''.join(nodes)}</annotation>"
            (folder / "Annotations" / f"{image_id}.xml").write_text(text)


def write_coco(root):
    """Digits with ids that are not in a row."""
    categories = [{"id": 10 * digit + 7, "name": f"digit {digit}"} for digit in range(10)]
    for split, count in (("train", 12), ("val", 5)):
        digits = made.MadeDigits(split)
        images, annotations = [], []
        (root / f"{split}2017").mkdir(parents=True)
        for number in range(count):
            image, objects = made_image(digits, number)
            name = f"{number:012}.png"
            image.save(root / f"{split}2017" / name)
            images.append({"id": 100 + number, "file_name": name, "width": 160, "height": 160})
            for label, (x1, y1, x2, y2) in objects:
                box = [x1, y1, x2 - x1, y2 - y1]
                annotations.append(
                    {"id": len(annotations), "image_id": 100 + number, "bbox": box}
                    | {"category_id": 10 * label - 3, "area": box[2] * box[3], "iscrowd": 0}
                )
        (root / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = root / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    write_voc(root)
    return root


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    write_coco(root)
    return root


def train(folder, *arguments):
    """Train in this process; returns the run folder."""
    with pytest.MonkeyPatch.context() as patch:
        assert call_script(TRAIN, ["--save", folder / "x", *arguments], patch) == 0
    return only_folder(folder)


@pytest.fixture(scope="module")
def voc_run(voc, tmp_path_factory):
    return train(tmp_path_factory.mktemp("run"), *TINY, "--data", voc)


@pytest.fixture(scope="module")
def coco_run(coco, tmp_path_factory):
    flags = ["--set", "coco", "--data", coco, "--pictures", "3", "--as_published"]
    return train(tmp_path_factory.mktemp("run"), *TINY, *flags)


def test_the_batches_are_as_the_flags_say(voc, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        train_detection,
        "fit",
        lambda args, run, task, data: seen.append((data.as_published, data.image_size)),
    )
    for flags in (["--as_published"], ["--image_size", "64"]):
        arguments = [*TINY, "--data", voc, *flags, "--save", tmp_path / str(len(seen)) / "EXP"]
        assert call_script(TRAIN, arguments, monkeypatch) == 0
    assert seen == [(True, 32), (False, 64)]


def test_a_run_goes_on_from_another_folder(voc, tmp_path, monkeypatch):
    monkeypatch.chdir(voc.parent)
    network = NetworkImageNet(2, 10, 2, False, RelativeNAS)
    torch.save(network.state_dict(), tmp_path / "imagenet.pt")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(voc)
    begun = [*TINY, "--epochs", "1", "--data", "data", "--model_path", "imagenet.pt"]
    assert call_script(TRAIN, [*begun, "--save", "runs/EXP"], monkeypatch) == 0
    folder = only_folder(tmp_path / "runs")
    monkeypatch.chdir("/")
    # From the checkpoint before the last, which needs no other weights; then as if there were none.
    (folder / "last.pt").rename(folder / "last.previous.pt")
    (tmp_path / "imagenet.pt").rename(tmp_path / "away.pt")
    assert call_script(TRAIN, ["--resume", folder], monkeypatch) == 0
    (tmp_path / "away.pt").rename(tmp_path / "imagenet.pt")
    for path in folder.glob("last*.pt"):
        path.unlink()
    assert call_script(TRAIN, ["--resume", folder], monkeypatch) == 0
    assert (folder / "last.pt").exists()


@pytest.mark.parametrize(
    ("output", "reason"),
    [("", "is empty"), ("file/x", "cannot be made there"), ("file", "already")],
)
def test_an_output_that_cannot_be_made_is_refused_at_once(
    output, reason, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    arguments = ["--model_path", "is not read.pt", "--set", "made", "-o", output]
    assert_one_line(call_script(TEST, arguments, monkeypatch), capsys, "-o", reason)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_more_pictures_than_a_report_can_show_are_refused(monkeypatch, capsys):
    arguments = ["--set", "made", "--pictures", "101"]
    assert_one_line(call_script(TRAIN, arguments, monkeypatch), capsys, "--pictures", "at most 100")


def test_a_mistake_of_one_of_two_processes_is_one_line_of_each(voc, voc_run, tmp_path):
    data = shutil.copytree(voc, tmp_path / "data")
    names = sorted((data / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main").glob("test.txt"))
    second = names[0].read_text().split()[1]
    (data / "VOCdevkit" / "VOC2007" / "JPEGImages" / f"{second}.jpg").write_bytes(b"no image")
    arguments = ["--model_path", voc_run / "last.pt", "--data", data, "--workers", "0"]
    script = Script(TEST, arguments, tmp_path / "out", 2)
    assert script.wait() == [2, 2]
    lines = sorted(script.read_output().splitlines())
    assert len(lines) == 2
    assert "another process of this test has ended" in lines[0]
    assert f"{second}.jpg: cannot be read" in lines[1]


def test_the_defaults_are_the_published_recipe():
    args = train_detection.parse_arguments([])
    expected = {
        "set": "voc", "years": ["2007", "2012"], "image_size": 320, "init_channels": 46,
        "layers": 14, "epochs": 200, "batch_size": 32, "learning_rate": 0.01, "momentum": 0.9,
        "weight_decay": 5e-4, "grad_clip": 0.0, "as_published": False,
    }  # fmt: skip
    assert {name: getattr(args, name) for name in expected} == expected
    assert tuple((year, "trainval") for year in args.years) == VOC_TRAINING
    assert VOC_TEST == (("2007", "test"),)


def test_training_on_voc(voc_run):
    records = read_history(voc_run)
    assert [record["learning_rate"] for record in records] == pytest.approx([0.01, 0.005])
    for record in records:
        assert record["train"].keys() == {"loss", "count"} and record["train"]["count"] == 12
        assert record["validation"].keys() == {"map", "count"}
        assert record["validation"]["count"] == 5 and 0 <= record["validation"]["map"] <= 100
    state = torch.load(voc_run / "last.pt")
    assert state["task"] == "detection" and state["class_names"] == list(VOC_CLASSES)
    assert state["image_size"] == 32 and state["num_classes"] == 21
    (group,) = state["optimizer"]["param_groups"]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, False)
    assert len(group["params"]) == len(list(build_detector(state).parameters()))
    manifest = json.loads((voc_run / "manifest.json").read_text())
    assert manifest["splits"]["train"]["images"][0] == 12
    assert manifest["splits"]["val"]["images"][0] == 5


def test_stopped_in_an_epoch_and_resumed_it_is_the_uninterrupted_run(
    voc, voc_run, tmp_path, monkeypatch
):
    arguments = [*TINY, "--data", voc, "--save", tmp_path / "x"]
    with act_at_step(5, ask_to_stop):  # of three in an epoch
        assert call_script(TRAIN, arguments, monkeypatch) == STOPPED
    folder = only_folder(tmp_path)
    assert torch.load(folder / "last.pt")["epoch_so_far"]["step"] == 2
    resume = ["--resume", folder, "--workers", "1"]
    assert call_script(TRAIN, resume, monkeypatch) == 0
    assert_same_run(folder, voc_run)


def test_killed_while_a_checkpoint_gets_its_name_and_resumed(voc, voc_run, tmp_path):
    parent = tmp_path / "runs"
    parent.mkdir()
    arguments = [*TINY, "--data", voc, "--save", parent / "x"]
    assert_same_run(killed_in_the_second_epochs_save(TRAIN, arguments, parent), voc_run)


def figure(output, name):
    return float(re.search(rf"^{name} +(\d+\.\d\d) %$", output, re.MULTILINE)[1])


def test_testing_on_voc(voc, voc_run, tmp_path, monkeypatch, capsys):
    arguments = ["--model_path", voc_run / "last.pt", "--data", voc, "--workers", "0"]
    arguments += ["--batch_size", "4", "-o", tmp_path / "found", "--pictures", "2"]
    assert call_script(TEST, arguments, monkeypatch) == 0
    output = capsys.readouterr().out
    assert f"test images     5 of {voc}\n" in output
    last = read_history(voc_run)[-1]["validation"]["map"]
    assert figure(output, "mAP") == pytest.approx(last, abs=0.005)
    assert "AP50" not in output
    assert re.search(r"parameters +0\.\d\d M", output)
    assert re.search(r"multiply-adds +\d+\.\d M at 32×32", output)
    assert re.search(r"speed +\d+\.\d images/s", output)
    results = json.loads((tmp_path / "found" / "predictions.json").read_text())
    images = [entry["image_id"] for entry in results]
    assert images == sorted(images) and set(images) == {f"2007_te{n:02}" for n in range(5)}
    assert all(1 <= entry["category_id"] <= 20 for entry in results)
    assert all(0.01 < entry["score"] <= 1 and entry["bbox"][2] > 0 for entry in results)
    assert png_size(tmp_path / "found" / "predictions.png") == (2 * 160 + 4, 160)


def png_size(path):
    content = path.read_bytes()
    assert content[1:4] == b"PNG"
    return Image.open(io.BytesIO(content)).size


def test_training_and_testing_on_coco(coco, coco_run, tmp_path, monkeypatch, capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    last = read_history(coco_run)[-1]["validation"]
    assert list(last) == ["map", "ap50", "ap75", "count"]
    state = torch.load(coco_run / "last.pt")
    assert state["class_names"] == [f"digit {digit}" for digit in range(10)]
    arguments = ["--set", "coco", "--model_path", coco_run / "last.pt", "--data", coco]
    arguments += ["--workers", "0", "--batch_size", "4", "-o", tmp_path / "found"]
    capsys.readouterr()
    assert call_script(TEST, arguments, monkeypatch) == 0
    output = capsys.readouterr().out
    for name, key in (("mAP", "map"), ("AP50", "ap50"), ("AP75", "ap75")):
        assert figure(output, name) == pytest.approx(last[key], abs=0.005)
    assert not (tmp_path / "found" / "predictions.png").exists()
    # pycocotools takes what was written, and has the same figures.
    truth = COCO(str(coco / "annotations" / "instances_val2017.json"))
    found = truth.loadRes(str(tmp_path / "found" / "predictions.json"))
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    expected = [100 * evaluation.stats[place] for place in (0, 1, 2)]
    assert [last["map"], last["ap50"], last["ap75"]] == pytest.approx(expected, abs=0.05)


def test_the_report_has_the_pictures_of_the_best_checkpoint(coco_run, voc_run):
    assert png_size(coco_run / "predictions.png") == (2 * 160 + 4, 2 * 160 + 4)
    report = (coco_run / "report.html").read_text()
    assert "Predictions" in report and "data:image/png;base64," in report
    assert not (voc_run / "predictions.png").exists()


def test_two_processes_find_what_one_finds(voc, voc_run, tmp_path):
    outcomes = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        # As many images at a time in each, for rounding differs with their number.
        arguments = ["--model_path", voc_run / "best.pt", "--data", voc, "--workers", "0"]
        arguments += ["--batch_size", 2 * processes, "-o", folder, "--pictures", "5"]
        output = Script(TEST, arguments, folder, processes).finish()
        files = [(folder / name).read_bytes() for name in ("predictions.json", "predictions.png")]
        outcomes.append((figure(output, "mAP"), files))
        assert output.count("test images     5") == 1
    assert outcomes[0] == outcomes[1]


def test_two_processes_train_and_resume(voc, tmp_path):
    folders = [tmp_path / name for name in ("whole", "stopped")]
    arguments = [*TINY, "--data", voc, "--pictures", "1"]
    for folder in folders:
        folder.mkdir()
    whole = Script(TRAIN, [*arguments, "--save", folders[0] / "x"], folders[0], 2)
    stopped = Script(
        TRAIN, [*arguments, "--save", folders[1] / "x"], folders[1], 2, at_step(4, ask_to_stop, 1)
    )
    assert stopped.wait() == [STOPPED] * 2, stopped.read_output()
    whole.finish()
    run = only_folder(folders[1])
    Script(TRAIN, ["--resume", run], folders[1], 2).finish()
    assert_same_run(run, only_folder(folders[0]))
    for record in read_history(run):
        assert record["train"]["count"] == 12 and record["validation"]["count"] == 5


def test_the_backbone_begins_with_a_network_for_imagenet(tmp_path):
    torch.manual_seed(1)
    network = NetworkImageNet(2, 1000, 2, True, RelativeNAS)
    torch.save(network.state_dict(), tmp_path / "imagenet.pt")
    args = train_detection.parse_arguments([*TINY, "--model_path", str(tmp_path / "imagenet.pt")])
    description = describe_detector(RelativeNAS, 2, 2, 21, 32)
    built = Detection(args, description, None).build()
    body = built.backbone.body.network.state_dict()
    assert_same_tensors(body, {name: network.state_dict()[name] for name in body})


def test_batches_without_objects_are_trained_on(tmp_path, monkeypatch):
    write_voc(tmp_path / "data")
    for path in (tmp_path / "data").glob("VOCdevkit/VOC20*/Annotations/*_tr0[1-9].xml"):
        path.write_text("<annotation></annotation>")
    run = train(tmp_path / "runs", *TINY, "--batch_size", "2", "--data", tmp_path / "data")
    losses = [record["train"]["loss"] for record in read_history(run)]
    assert all(0 < loss < 100 for loss in losses)


def no_objects(root, name):
    for path in root.glob(f"VOCdevkit/VOC20*/Annotations/*_{name}*.xml"):
        path.write_text("<annotation></annotation>")


def damage_image(root):
    path = root / "VOCdevkit/VOC2007/JPEGImages/2007_tr03.jpg"
    path.write_bytes(path.read_bytes()[:200])


VOC_MISTAKES = {
    "no data": (shutil.rmtree, ["no VOCdevkit/VOC2007"]),
    "nothing to learn": (lambda r: no_objects(r, "tr"), ["train on have no objects"]),
    "nothing to find": (lambda r: no_objects(r, "te"), ["test on have no objects"]),
    "damaged image": (damage_image, ["2007_tr03.jpg", "cannot be read"]),
}


@pytest.mark.parametrize("mistake", VOC_MISTAKES)
def test_bad_data_is_one_line(mistake, voc, tmp_path, monkeypatch, capsys):
    damage, expected = VOC_MISTAKES[mistake]
    shutil.copytree(voc, tmp_path / "data")
    damage(tmp_path / "data")
    arguments = [*TINY, "--data", tmp_path / "data", "--save", tmp_path / "runs" / "x"]
    status = call_script(TRAIN, arguments, monkeypatch)
    error = capsys.readouterr().err.splitlines()[-1]
    assert status == 2 and error.startswith("error: ")
    assert all(text in error for text in expected), error
    assert list((tmp_path / "runs").iterdir()) == [] or mistake == "damaged image"


def test_other_categories_to_validate_on_are_one_line(coco, tmp_path, monkeypatch, capsys):
    shutil.copytree(coco, tmp_path / "data")
    path = tmp_path / "data/annotations/instances_val2017.json"
    path.write_text(path.read_text().replace("digit 3", "eight"))
    arguments = [*TINY, "--set", "coco", "--data", tmp_path / "data", "--save", tmp_path / "x"]
    status = call_script(TRAIN, arguments, monkeypatch)
    assert_one_line(status, capsys, "categories", "'digit 3' and 'eight'")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--layers", "1"], ["--layers 1", "from 2"]),
        (["--image_size", "31"], ["--image_size 31", "from 32"]),
        (["--init_channels", "1"], ["--init_channels 1"]),
        (["--years", "2006"], ["--years", "2006"]),
        (["--batch_size", "1"], ["--batch_size 1", "batch norm"]),
        (["--model_path", "none.pt"], ["none.pt"]),
    ],
)
def test_bad_arguments_are_one_line(arguments, expected, voc, tmp_path, monkeypatch, capsys):
    common = [*TINY, "--data", voc, "--save", tmp_path / "x"]
    status = call_script(TRAIN, [*common, *arguments], monkeypatch)
    assert_one_line(status, capsys, *expected)


def test_without_pycocotools_nothing_begins(coco, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    arguments = [*TINY, "--set", "coco", "--data", coco, "--save", tmp_path / "x"]
    status = call_script(TRAIN, arguments, monkeypatch)
    assert_one_line(status, capsys, "needs pycocotools; install it")


def test_what_cannot_be_tested_is_one_line(
    voc, coco, voc_run, coco_run, tmp_path, monkeypatch, capsys
):
    (tmp_path / "there").mkdir()
    torch.save(new_detector(None, 2, 2, 11, 32).state_dict(), tmp_path / "plain.pt")
    described = torch.load(coco_run / "best.pt")
    described["class_names"][3] = "eight"
    torch.save(described, tmp_path / "renamed.pt")
    on_coco = ["--set", "coco", "--data", coco, "--model_path"]
    for arguments, expected in (
        ([*on_coco, voc_run / "best.pt"], ["finds 20 classes", "has 10"]),
        ([*on_coco, tmp_path / "renamed.pt"], ["'eight' is 'digit 3'"]),
        ([*on_coco, tmp_path / "plain.pt"], ["another architecture", "--init_channels"]),
        (["--data", voc, "--model_path", voc_run / "best.pt", "-o", tmp_path / "there"], ["-o"]),
        (["--data", voc, "--model_path", voc_run / "best.pt", "--pictures", "2"], ["--output"]),
    ):
        status = call_script(TEST, [*arguments, "--workers", "0"], monkeypatch)
        assert_one_line(status, capsys, *expected)


def test_a_state_dict_is_tested_with_flags(coco, tmp_path, monkeypatch, capsys):
    torch.save(new_detector(None, 2, 2, 11).state_dict(), tmp_path / "plain.pt")
    arguments = ["--set", "coco", "--data", coco, "--model_path", tmp_path / "plain.pt"]
    arguments += ["--init_channels", "2", "--layers", "2", "--workers", "0"]
    assert call_script(TEST, arguments, monkeypatch) == 0
    assert "M at 320×320" in capsys.readouterr().out


def test_a_resumed_training_needs_the_images_that_it_began_with(
    voc, voc_run, tmp_path, monkeypatch, capsys
):
    shutil.copytree(voc, tmp_path / "data")
    shutil.copytree(voc_run, tmp_path / "run")
    path = tmp_path / "data/VOCdevkit/VOC2012/ImageSets/Main/trainval.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    arguments = ["--resume", tmp_path / "run", "--data", tmp_path / "data"]
    status = call_script(TRAIN, arguments, monkeypatch)
    assert_one_line(status, capsys, "train/images had 12 images and has 11")
