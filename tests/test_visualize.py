"""visualize.py as a user runs it: pictures of genotypes, and every mistake a user can make."""

import io
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from helpers import ROOT, assert_one_line, call_script
from PIL import Image

from genotypes import DARTS_V1, save_genotype
from report import cell_drawing


def assert_is_picture(path):
    content = path.read_bytes()
    if path.suffix == ".png":
        Image.open(io.BytesIO(content)).verify()
    elif path.suffix == ".pdf":
        assert content.startswith(b"%PDF") and b"/Type3" not in content
    else:
        assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_named_genotype_is_drawn_in_each_format(suffix, tmp_path, monkeypatch, capsys):
    path = tmp_path / f"cells{suffix}"
    assert call_script("visualize", ["RelativeNAS", "-o", path], monkeypatch) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert_is_picture(path)


def test_the_sizes_for_cifar_and_imagenet_are_under_the_cells(tmp_path, monkeypatch):
    notes = []
    draw = cell_drawing.draw_genotype

    def noting(genotype, lines):
        notes.extend(lines)
        return draw(genotype, lines)

    monkeypatch.setattr(cell_drawing, "draw_genotype", noting)
    assert call_script("visualize", ["RelativeNAS", "-o", tmp_path / "x.svg"], monkeypatch) == 0
    assert notes == [
        "CIFAR-10: 3.93 M parameters, 616.8 M multiply-adds",
        "ImageNet: 5.05 M parameters, 563.0 M multiply-adds",
    ]


def test_a_genotype_file_is_drawn_into_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    save_genotype(DARTS_V1, tmp_path / "there" / "mine.json")
    assert call_script("visualize", ["there/mine.json"], monkeypatch) == 0
    assert capsys.readouterr().out == "mine.png\n"
    assert_is_picture(tmp_path / "mine.png")


def test_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "NASNet.png").write_text("mine")
    for arguments in (["NASNet"], ["DARTS_V1", "-o", "NASNet.png"]):
        status = call_script("visualize", arguments, monkeypatch)
        assert_one_line(status, capsys, "NASNet.png", "-o")
    assert (tmp_path / "NASNet.png").read_text() == "mine"


def test_the_text_of_a_genotype_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call_script("visualize", [str(DARTS_V1)], monkeypatch) == 0
    assert capsys.readouterr().out == "genotype.png\n"
    assert_is_picture(tmp_path / "genotype.png")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["DARTS_V3"], ["DARTS_V3", "RelativeNAS", "run folder"]),
        (["broken.json"], ["broken.json", "not a JSON file"]),
        (["NASNet", "-o", "cells.bmp"], ["cells.bmp", ".png, .svg, .pdf"]),
        (["NASNet", "-o", "cells"], ["cells", ".png, .svg, .pdf"]),
        (["NASNet", "-o", "nowhere/cells.png"], ["nowhere/cells.png", "-o"]),
        (["empty"], ["empty", "not a run folder"]),
        (["empty", "-o", "curves.png"], ["empty", "not a run folder"]),
        ([], ["NAME_OR_FILE_OR_RUN_DIR"]),
    ],
)
def test_mistakes_end_in_one_line(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty").mkdir()
    assert_one_line(call_script("visualize", arguments, monkeypatch), capsys, *expected)
    assert {path.name for path in tmp_path.iterdir()} == {"broken.json", "empty"}


def test_the_scripts_load_what_draws_only_when_they_draw():
    heavy = "{'matplotlib', 'tensorboard'}"
    code = f"import sys, train_search, train, visualize; print({heavy} & set(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout == "set()\n"
