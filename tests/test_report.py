"""Reports of runs: self-contained pages with every section, however far the run got."""

import base64
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
import torch
from helpers import (
    TINY_IMAGENET,
    assert_one_line,
    call_script,
    only_folder,
    write_image_folder,
    write_small_set,
)
from PIL import Image
from test_visualize import assert_is_picture

from genotypes import NASNet, RelativeNAS
from report import live, page
from report.history import read_run
from report.live import LiveReport
from report.page import write_report
from runtime.run_folder import RunFolder
from training import classification
from transfer.pictures import contact_sheet

SEARCH_SECTIONS = ["best-cell", "curves", "sizes", "pairs", "population", "timings", "settings"]

TRAINING_SECTIONS = ["curves", "epochs", "network", "timings", "settings"]


SEARCH = ["--pop_size", "4", "--epochs", "2"]

TRAINING = ["--epochs", "3"]


class Page(HTMLParser):
    """What a page consists of; refuses one that is not well-formed or needs another file."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.texts, self.images, self.open = [], [], [], []
        self.photographs = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag not in ("script", "link", "iframe", "object"), tag
        assert not any(name.startswith("on") for name in attributes)
        if tag == "section":
            self.sections.append(attributes["id"])
        if tag == "img":
            head, data = attributes["src"].split(",")
            assert attributes["alt"]
            if head == "data:image/png;base64":
                self.photographs.append(base64.b64decode(data))
            else:
                assert head == "data:image/svg+xml;base64"
                self.images.append(base64.b64decode(data).decode())
        if "href" in attributes:
            assert attributes["href"].startswith("#")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def read_page(folder):
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    for image in page.images:
        for element in ElementTree.fromstring(image).iter():
            for name, value in element.attrib.items():
                if name.endswith("href"):  # its own parts, and pixels
                    assert value.startswith(("#", "data:image/png"))
        assert not re.findall(r"url\((?!#)", image)
    return page


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return write_small_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def search_folder(small_set, tmp_path_factory):
    return finished_run("train_search", [*small_set, *SEARCH], tmp_path_factory)


@pytest.fixture(scope="module")
def training_folder(small_set, tmp_path_factory):
    return finished_run("train", [*small_set, *TRAINING], tmp_path_factory)


def finished_run(script, flags, tmp_path_factory):
    parent = tmp_path_factory.mktemp(script)
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert call_script(script, [*flags, "--save", parent / "EXP"], monkeypatch) == 0
    return only_folder(parent)


def test_a_search_leaves_its_report(search_folder):
    page = read_page(search_folder)
    assert page.sections == SEARCH_SECTIONS
    assert len(page.images) == 3
    assert "2 of 2 generations done, finished" in page.text
    population = json.loads((search_folder / "population.json").read_text())
    for member in population:
        assert f"{member['loss']:.4f}" in page.texts
        assert f"{member['parameters'] / 1e6:.2f}" in page.texts
        assert f"{member['multiply_adds'] / 1e6:.2f}" in page.texts
    genotype = json.loads((search_folder / "genotype.json").read_text())
    assert str([tuple(pair) for pair in genotype["normal"]]) in page.text
    assert "pop_size" in page.texts
    assert f"report: {search_folder}/report.html" in (search_folder / "log.txt").read_text()


def test_a_training_leaves_its_report(training_folder):
    page = read_page(training_folder)
    assert sorted(page.sections) == sorted([*TRAINING_SECTIONS, "confusion"])
    assert len(page.images) == 3
    assert "3 of 3 epochs done, finished" in page.text
    for line in (training_folder / "history.jsonl").read_text().splitlines():
        assert f"{json.loads(line)['validation']['loss']:.4f}" in page.texts


def test_the_confusion_matrix_is_that_of_the_best_checkpoint(training_folder):
    confusion = json.loads((training_folder / "confusion.json").read_text())
    best = torch.load(training_folder / "best.pt")
    assert confusion["epoch"] == best["epoch"]
    assert confusion["classes"] == ["cat", "dog", "eel"]
    counts = torch.tensor(confusion["counts"])
    assert counts.sum(dim=1).tolist() == [8, 8, 8]  # the rows are the true classes
    assert 100 * counts.trace() / 24 == pytest.approx(best["top1"])


def test_imagenet_leaves_a_report_without_a_confusion_matrix(tmp_path, monkeypatch):
    write_image_folder(tmp_path / "data", {"train": {"a": 8, "b": 8}, "val": {"a": 2, "b": 2}})
    arguments = [*TINY_IMAGENET, "--data_path", tmp_path / "data", "--save", tmp_path / "runs/EXP"]
    assert call_script("train_imagenet", arguments, monkeypatch) == 0
    page = read_page(only_folder(tmp_path / "runs"))
    assert sorted(page.sections) == sorted(TRAINING_SECTIONS)
    assert "4 of 4 epochs done, finished" in page.text


def without_time(text):
    return re.sub(r"drawn [\d-]+ [\d:]+", "", text)


@pytest.mark.parametrize("kind", ["search", "training"])
def test_visualize_writes_the_same_report_without_the_data(
    kind, search_folder, training_folder, monkeypatch, capsys
):
    folder = search_folder if kind == "search" else training_folder
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    capsys.readouterr()
    assert call_script("visualize", [folder], monkeypatch) == 0
    assert capsys.readouterr().out == f"{folder}/report.html\n"
    assert without_time((folder / "report.html").read_text()) == without_time(before)
    # Its own report is written anew; nothing else is left beside it.
    assert call_script("visualize", [folder], monkeypatch) == 0
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("kind", ["search", "training"])
def test_curves_alone_and_the_report_elsewhere(
    kind, search_folder, training_folder, tmp_path, monkeypatch, capsys
):
    folder = search_folder if kind == "search" else training_folder
    for name in ("curves.png", "curves.svg", "elsewhere.html"):
        path = tmp_path / name
        assert call_script("visualize", [folder, "-o", path], monkeypatch) == 0
        if path.suffix == ".html":
            assert path.read_text().startswith("<!DOCTYPE html>")
        else:
            assert_is_picture(path)
        capsys.readouterr()
        status = call_script("visualize", [folder, "-o", path], monkeypatch)
        assert_one_line(status, capsys, str(path), "not overwritten")
    status = call_script("visualize", [folder, "-o", tmp_path / "curves.gif"], monkeypatch)
    assert_one_line(status, capsys, "curves.gif", ".html")


def pair_record(generation=0, members=(0, 1), losses=(1.0, 2.0), slow=1):
    return {
        "generation": generation, "pair": 0, "members": members, "losses": losses, "slow": slow,
        "genotypes": [RelativeNAS._asdict(), NASNet._asdict()], "accuracies": [50.0, 40.0],
        "diversity": 3.0, "seconds": 0.5,
    }  # fmt: skip


def epoch_record(epoch=0, loss=1.0):
    numbers = {"loss": loss, "top1": 50.0, "top5": 90.0, "count": 10}
    return {
        "epoch": epoch, "learning_rate": 0.1, "train": numbers, "validation": numbers,
        "seconds": 2.0,
    }  # fmt: skip


def make_folder(path, script, records=(), tail="", **settings):
    path.mkdir()
    settings = {"script": script, "epochs": 3, "pop_size": 4, **settings}
    (path / "settings.json").write_text(json.dumps(settings))
    if records or tail:
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (path / "history.jsonl").write_text(lines + tail)
    return path


@pytest.mark.parametrize(
    ("script", "sections"), [("train_search.py", SEARCH_SECTIONS), ("train.py", TRAINING_SECTIONS)]
)
def test_a_run_that_has_just_begun(script, sections, tmp_path, monkeypatch, capsys):
    folder = make_folder(tmp_path / "run", script)
    write_report(folder)
    page = read_page(folder)
    assert page.sections == sections
    assert "0 of 3" in page.text and "not finished" in page.text
    status = call_script("visualize", [folder, "-o", tmp_path / "curves.png"], monkeypatch)
    assert_one_line(status, capsys, str(folder), "no curves yet")


def test_a_search_stopped_in_its_second_generation(tmp_path):
    records = [
        pair_record(members=(0, 1)),
        pair_record(members=(2, 3), losses=(None, 0.5), slow=2),
        pair_record(generation=1, members=(0, 2), losses=(None, None), slow=None),
    ]
    half = json.dumps(pair_record(generation=1, members=(1, 3)))[:-20]
    write_report(make_folder(tmp_path / "run", "train_search.py", records, half))
    page = read_page(tmp_path / "run")
    assert page.sections == SEARCH_SECTIONS
    assert "1 of 3 generations done, not finished" in page.text
    assert "the lowest validation loss, 0.5000, of generation 1" in page.text
    assert "3 candidates had no finite loss" in page.text
    assert "not what the script writes" not in page.text
    table = (tmp_path / "run" / "report.html").read_text().split('id="pairs"')[1]
    rows = re.findall(r"<tr><th>(\d)</th><td>(\d of \d)</td>(.*)</tr>", table)
    assert rows == [
        ("0", "1 of 2", "<td class=won>1</td><td class=n>2</td>"),
        ("1", "0 of 1", "<td class=lost>0</td><td class=n></td>"),
        ("2", "0 of 2", "<td class=lost>3</td><td class=n>0</td>"),
        ("3", "1 of 1", "<td class=won>2</td><td class=n></td>"),
    ]


def test_a_search_stopped_in_its_first_generation(tmp_path):
    write_report(make_folder(tmp_path / "run", "train_search.py", [pair_record()]))
    page = read_page(tmp_path / "run")
    assert "0 of 3 generations done" in page.text
    assert len(page.images) == 3


def test_a_training_whose_validation_loss_was_not_a_number(tmp_path):
    records = [epoch_record(), epoch_record(1, float("nan")), epoch_record(2, None)]
    write_report(make_folder(tmp_path / "run", "train.py", records))
    assert "not finite" in read_page(tmp_path / "run").texts
    assert "Best: epoch 1, top-1 50.00 %; last: 50.00 %." in read_page(tmp_path / "run").texts


def segmentation_record(epoch, miou):
    return {
        "epoch": epoch, "learning_rate": 0.1, "train": {"loss": 0.75, "count": 6},
        "validation": {"miou": miou, "pixel_accuracy": 91.25, "count": 4, "unknown": 1},
        "seconds": 2.0,
    }  # fmt: skip


def test_a_training_of_another_task_is_shown_by_what_it_measures(tmp_path):
    records = [segmentation_record(0, 61.5), segmentation_record(1, 60.0)]
    folder = make_folder(tmp_path / "run", "train_segmentation.py", records)
    write_report(folder)
    page = read_page(folder)
    assert "Best: epoch 1, mIoU 61.50 %; last: 60.00 %." in page.texts
    names = ["epoch", "learning rate", "training loss", "validation mIoU %"]
    names += ["validation pixel accuracy %", "time"]
    first = page.texts.index(names[0])
    cells = [text for text in page.texts[first:] if text.strip()]
    assert cells[: len(names)] == names
    assert cells[len(names) : 2 * len(names) - 1] == ["1", "0.1", "0.7500", "61.50", "91.25"]
    assert "mIoU %" in page.images[0] and "top-1" not in page.images[0]
    scalars = read_run(folder).epochs[0].scalars()
    assert scalars == {
        "loss/training": 0.75, "miou/validation": 61.5, "pixel_accuracy/validation": 91.25,
        "learning_rate": 0.1, "seconds": 2.0, "images_per_second": 5.0,
    }  # fmt: skip


def test_pictures_of_predictions_are_in_the_page(tmp_path):
    folder = make_folder(tmp_path / "run", "train_detection.py", [epoch_record()])
    png = contact_sheet([Image.new("RGB", (5, 3), "red")] * 2)
    (folder / "predictions.png").write_bytes(png)
    write_report(folder)
    page = read_page(folder)
    assert page.sections == ["curves", "predictions", "epochs", "network", "timings", "settings"]
    assert page.photographs == [png]
    assert read_run(folder).problems == []


@pytest.mark.parametrize(
    "content", [b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n" + bytes(1 << 27)]
)
def test_pictures_that_are_none_or_too_large_are_left_out(content, tmp_path):
    folder = make_folder(tmp_path / "run", "train_detection.py", [epoch_record()])
    (folder / "predictions.png").write_bytes(content)
    write_report(folder)
    assert read_page(folder).photographs == []
    assert "predictions.png: " in read_page(folder).text


def test_a_pipe_in_the_place_of_pictures_is_not_waited_for(tmp_path):
    folder = make_folder(tmp_path / "run", "train_detection.py", [epoch_record()])
    os.mkfifo(folder / "predictions.png")
    assert read_run(folder).problems == ["predictions.png: not what the script writes"]


HOSTILE = '"><script src="http://example.com/x.js"></script><img src=x onerror=alert(1)>\ud800'


def test_text_in_the_run_folder_is_shown_not_run(tmp_path):
    folder = make_folder(tmp_path / "run<b>", "train.py", [epoch_record()], note=HOSTILE)
    confusion = {"epoch": 1, "classes": [HOSTILE, "$\\x$\x01猫"], "counts": [[3, 1], [0, 2]]}
    (folder / "confusion.json").write_text(json.dumps(confusion))
    write_report(folder)
    page = read_page(folder)
    assert "confusion" in page.sections
    assert any("<script src=" in text for text in page.texts)


@pytest.mark.parametrize(
    "content",
    ["", "[", "[]", "{}", "null", "3", '"text"', "[" * 100_000, '[{"genotype": {}}]', "[[1, 2]]"],
)
def test_files_that_are_not_what_the_scripts_write(content, tmp_path):
    line = content + "\n"
    search = make_folder(tmp_path / "search", "train_search.py", [pair_record()], line)
    (search / "population.json").write_text(content)
    (search / "genotype.json").write_text(content)
    training = make_folder(tmp_path / "training", "train.py", [epoch_record()], line)
    (training / "confusion.json").write_text(content)
    for folder, files in (
        (search, ["genotype", "history.jsonl: 1 lines", "population.json"]),
        (training, ["history.jsonl: 1 lines", "confusion.json"]),
    ):
        problems = read_run(folder).problems
        if content == "[]" and folder == search:
            files.pop()  # a population of nobody
        assert len(problems) == len(files), problems
        assert all(file in problem for file, problem in zip(files, problems, strict=True))


def test_the_page_says_what_could_not_be_read(tmp_path):
    folder = make_folder(tmp_path / "run", "train_search.py", [pair_record()], "{}\n")
    (folder / "population.json").write_text("[1]")
    write_report(folder)
    page = read_page(folder)
    assert "history.jsonl: 1 lines are not what the script writes" in page.texts
    assert "population.json: not what the script writes" in page.texts
    assert page.sections == SEARCH_SECTIONS


@pytest.mark.parametrize(
    "change",
    [
        {"slow": 7}, {"members": [0]}, {"losses": ["1", 2]}, {"diversity": None},
        {"generation": -1}, {"generation": 10**400}, {"genotypes": [{}, {}]}, {"seconds": True},
        {"excesses": [0.0]}, {"excesses": [0.0, None]},
    ],
)  # fmt: skip
def test_a_record_with_a_wrong_field_is_left_out(change, tmp_path):
    records = [pair_record(), pair_record() | change]
    run = read_run(make_folder(tmp_path / "run", "train_search.py", records))
    assert len(run.generations) == 1 and len(run.generations[0].pairs) == 1
    assert run.problems == ["history.jsonl: 1 lines are not what the script writes"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("search_vs_random.py", "train_search.py"),
        (None, "run folder"),
        (["train.py"], "run folder"),
    ],
)
def test_other_folders_have_no_report(script, reason, tmp_path, monkeypatch, capsys):
    folder = make_folder(tmp_path / "run", script)
    status = call_script("visualize", [folder], monkeypatch)
    assert_one_line(status, capsys, str(folder), reason)


def test_the_page_of_a_long_search_stays_small(tmp_path):
    pairs = [(first, first + 10) for first in range(10)]
    records = [pair_record(g, members, slow=members[1]) for g in range(400) for members in pairs]
    write_report(make_folder(tmp_path / "run", "train_search.py", records, pop_size=20))
    assert (tmp_path / "run" / "report.html").stat().st_size < 800_000
    assert "The last 150 generations" in read_page(tmp_path / "run").text


def make_run(tmp_path):
    return RunFolder.create("search", str(tmp_path / "EXP"), {"script": "train_search.py"})


def test_the_report_is_refreshed_as_often_as_its_cost_allows(tmp_path, monkeypatch):
    now, drawn = [100.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def write(folder):
        drawn.append(now[0])
        now[0] += 1.0  # second to draw

    monkeypatch.setattr(page, "write_report", write)
    report = LiveReport(make_run(tmp_path))
    for _ in range(200):
        report.refresh()
        now[0] += 1.0
    assert drawn == [130.0, 181.0, 232.0, 283.0]
    report.finish()
    assert len(drawn) == 5


def test_a_report_that_cannot_be_drawn_stops_no_run(small_set, tmp_path, monkeypatch, capsys):
    def fail(folder):
        raise RuntimeError("no ink")

    monkeypatch.setattr(page, "write_report", fail)
    monkeypatch.setattr(live, "FIRST_SECONDS", 0)
    monkeypatch.setattr(live, "LARGEST_SHARE", 1e9)
    arguments = [*small_set, *TRAINING, "--epochs", "2", "--save", tmp_path / "EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    output, errors = capsys.readouterr()
    assert errors.count("warning: the report could not be drawn (no ink)") == 1
    assert "report:" not in output


def test_both_kinds_of_runs_refresh_it_while_they_run(small_set, tmp_path, monkeypatch):
    lines = []

    def count(folder):
        lines.append(len((folder / "history.jsonl").read_text().splitlines()))

    monkeypatch.setattr(page, "write_report", count)
    monkeypatch.setattr(live, "FIRST_SECONDS", 0)
    monkeypatch.setattr(live, "LARGEST_SHARE", 1e9)
    arguments = [*small_set, *SEARCH, "--save", tmp_path / "search"]
    assert call_script("train_search", arguments, monkeypatch) == 0
    assert lines == [2, 4, 4]
    lines.clear()
    arguments = [*small_set, *TRAINING, "--epochs", "2", "--save", tmp_path / "training"]
    assert call_script("train", arguments, monkeypatch) == 0
    assert lines == [1, 2, 2]


def test_no_confusion_matrix_of_very_many_classes(small_set, tmp_path, monkeypatch):
    monkeypatch.setattr(classification, "LARGEST_CONFUSION", 2)
    arguments = [*small_set, *TRAINING, "--epochs", "1", "--save", tmp_path / "EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    folder = only_folder(tmp_path)
    assert not (folder / "confusion.json").exists()
    assert "confusion" not in read_page(folder).sections
