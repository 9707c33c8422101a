"""Sizes in the report of a search: of the best cell and the population, and losses against them."""

import json
import re

import pytest
from test_report import SEARCH_SECTIONS, make_folder, pair_record, read_page

from genotypes import NASNet, RelativeNAS
from report.charts import loss_against_size
from report.page import write_report
from report.sizes import Size


def test_a_search_within_a_budget(tmp_path):
    records = [
        pair_record() | {"excesses": [0.0, 0.0]},
        pair_record(members=(2, 3), losses=(None, 0.5), slow=2) | {"excesses": [0.1, 0.0]},
        pair_record(generation=1, losses=(None, None)) | {"excesses": [0.1, 0.2], "seconds": 0},
        pair_record(generation=1, losses=(None, 1.5)) | {"excesses": [0.0, 0.0]},
    ]
    budget = {"max_params": 4.5, "max_multiply_adds": 440.0, "target": "imagenet"}
    folder = make_folder(tmp_path / "run", "train_search.py", records, **budget)
    inside = {"genotype": RelativeNAS._asdict(), "loss": 0.4, "accuracy": 70.0}
    outside = {"genotype": NASNet._asdict(), "loss": None, "accuracy": None}
    (folder / "population.json").write_text(json.dumps([outside, inside]))
    (folder / "genotype.json").write_text(json.dumps(RelativeNAS._asdict()))
    write_report(folder)
    page = read_page(folder)
    assert "1 candidates had no finite loss and are left out." in page.text
    assert "3 candidates were outside the budget: not trained." in page.text
    assert "5.05 M parameters, 563.0 M multiply-adds (NetworkImageNet, 46 channels" in page.text
    rows = (folder / "report.html").read_text().split('id="population"')[1]
    cells = re.findall(r"<td class=n>([^<]*)</td>", rows)
    assert cells[:12] == [
        "1", "1", "0.4000", "70.00", "5.05", "562.97",
        "2", "0", "not validated", "", "5.16", "557.08",
    ]  # fmt: skip
    timings = re.findall(r"<td>pairs trained and validated</td><td class=n>(\d)</td>", rows)
    assert timings == ["3"]  # the third pair cost nothing


def test_the_picture_of_losses_and_sizes(tmp_path):
    def points(*pairs):
        return [(Size(int(parameters * 1e6), int(adds * 1e6)), loss)
                for parameters, adds, loss in pairs]  # fmt: skip

    figure = loss_against_size(
        points((3, 400, 0.9), (4, 500, 0.7)),
        points((2, 390, 0.8), (3, 350, 0.9), (4, 500, 0.6), (5, 600, 0.6)),
        ([4.5], [380, 440.0]),
    )
    for axes, candidates, front, limits in zip(
        figure.axes,
        ([(3, 0.9), (4, 0.7)], [(400, 0.9), (500, 0.7)]),
        ([(2, 0.8), (4, 0.6)], [(350, 0.9), (390, 0.8), (500, 0.6)]),
        ([4.5], [380, 440]),
        strict=True,
    ):
        drawn = axes.collections[0].get_offsets().tolist()
        assert drawn == [list(point) for point in candidates]
        steps, *lines = axes.lines
        assert list(zip(*steps.get_data(), strict=True)) == front
        assert [line.get_xdata()[0] for line in lines] == limits
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "candidates of the last generations", "final population", "Pareto front", "budget"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [{"target": "mnist"}, {"target_layers": 10**9}, {"target_channels": "8"}, {"target": [1]}],
)
def test_settings_without_a_network_to_count_sizes_for(settings, tmp_path):
    folder = make_folder(tmp_path / "run", "train_search.py", [pair_record()], **settings)
    member = {"genotype": RelativeNAS._asdict(), "loss": 0.4, "accuracy": 70.0}
    (folder / "population.json").write_text(json.dumps([member]))
    write_report(folder)
    page = read_page(folder)
    assert page.sections == SEARCH_SECTIONS and len(page.images) == 2
    assert any(text.startswith("settings.json: target") for text in page.texts)
