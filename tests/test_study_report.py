"""The study's statistics, by hand and on made-up cells whose truth is known."""

from statistics import fmean

import numpy as np
import pytest

from benchmarks import study_statistics
from benchmarks.study_report import accuracy_by_size, report
from benchmarks.study_statistics import (
    TrainedCell,
    at_equal_size,
    best_of,
    bootstrap,
    deviations,
    mean_estimate,
    share_beaten,
)
from report.figure_file import rendered
from report.sizes import Size


def made_up(count, trainings, cell_deviation, training_deviation, mean=60.0, seed=0):
    """Accuracies of `count` cells."""
    random = np.random.default_rng(seed)
    truth = random.normal(mean, cell_deviation, (count, 1))
    return (truth + random.normal(0, training_deviation, (count, trainings))).tolist()


def test_ties_are_half_a_win():
    # 95 beats 94 and 90, 92 beats 90; of 92 and 92 each has half.
    assert share_beaten([[95.0], [91.0, 93.0]], [[94.0], [90.0], [92.0]]) == 75


def test_cells_with_as_many_right_images_tie():
    ours, theirs = (
        [100 * right / 360 for right in cell] for cell in ((352, 352, 355), (353, 353, 353))
    )
    assert fmean(ours) != fmean(theirs)
    assert share_beaten([ours], [theirs]) == 50
    size = Size(1, 1)
    assert TrainedCell("a-0", size, ours).mean == TrainedCell("a-1", size, theirs).mean


@pytest.mark.parametrize(("count", "width"), [(5, 2 * 2.776 / 5**0.5), (20, 2 * 2.093 / 20**0.5)])
def test_the_interval_of_a_mean_covers_the_truth_nineteen_times_in_twenty(count, width):
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = random.normal(60.0, 2.0, count)
        mean, low, high = mean_estimate(values.tolist())
        assert mean == pytest.approx(values.mean())
        assert high - low == pytest.approx(width * values.std(ddof=1), rel=0.05)
        covered += low <= 60.0 <= high
    assert 183 <= covered <= 197


def test_one_value_has_no_interval():
    assert mean_estimate([61.5]).text() == "61.50"


def test_a_bootstrap_sees_cells_and_the_luck_of_trainings(monkeypatch):
    monkeypatch.setattr(study_statistics, "RESAMPLES", 300)

    def mean(trainings):
        return float(np.mean([np.mean(values) for values in trainings]))

    value, low, high = bootstrap(mean, [[60.0, 64.0]] * 5)
    assert value == 62 and 60 <= low < 61.5 and 62.5 < high <= 64
    value, low, high = bootstrap(mean, [[60.0], [64.0]])
    assert (value, low, high) == (62, 60, 64)


def sized(name, accuracy, millions):
    return TrainedCell(name, Size(1, round(1e6 * millions)), [accuracy])


def test_cells_that_are_better_only_by_being_larger_are_not_above_chance_cells():
    random = np.random.default_rng(0)
    sizes = random.uniform(6, 11, 300)
    luck = random.normal(0, 1, 300)
    chance = [sized("random-0", 50 + 2 * x + e, x) for x, e in zip(sizes, luck, strict=True)]
    large = [sized("found-0", 50 + 2 * 11 + e, 11) for e in (-0.5, 0.0, 0.5, 0.2, -0.2)]
    above, above_best_tenth = at_equal_size(large, chance)
    assert above.value == pytest.approx(0, abs=0.2) and above.low < 0 < above.high
    # Of normal luck a tenth is above 1.28.
    assert above_best_tenth.value == pytest.approx(-1.28, abs=0.3) and above_best_tenth.high < 0
    better = [cell._replace(top1=[cell.mean + 3]) for cell in large]
    above, above_best_tenth = at_equal_size(better, chance)
    assert above.value == pytest.approx(3, abs=0.2) and above.low > 2
    assert above_best_tenth.value == pytest.approx(1.72, abs=0.3) and above_best_tenth.low > 0.5


def test_the_interval_at_equal_size_knows_of_both_groups_luck():
    chance = [sized("random-0", 50 + 2 * x + e, x) for x, e in ((6, 1), (7, -1), (8, 0), (9, 0))]
    two = [sized("found-0", 70 + e, 8) for e in (-2.0, 2.0)]
    few, _ = at_equal_size(two, chance)
    assert few.high - few.low > 40  # Student's t of two values: 2 · 12.7 · 2
    many, _ = at_equal_size([sized("found-0", 70 + e, 8) for e in (-0.1, 0.1) * 10], chance)
    assert 0.5 < many.high - many.low < 4  # that of the line
    assert at_equal_size(two[:1], chance).above_mean.text() == "2.10"  # the line is at 65.9


def test_deviations_of_cells_and_trainings_are_told_apart():
    cells, trainings = deviations(made_up(2000, 2, 2.0, 0.5))
    assert cells == pytest.approx(2.0, rel=0.06) and trainings == pytest.approx(0.5, rel=0.06)
    cells, trainings = deviations(made_up(500, 3, 0.0, 1.0))
    assert cells < 0.25 and trainings == pytest.approx(1.0, rel=0.1)
    # By hand: means 1 and 5, within (1 + 1) / 2 = 1, between 2 · (4 + 4) / 1 = 16, (16 − 1) / 2.
    assert deviations([[0.0, 2.0], [5.0]]) is not None
    assert deviations([[0.2929, 1.7071], [4.2929, 5.7071]]) == pytest.approx(
        (2.7386, 1.0), abs=1e-3
    )
    assert deviations([[1.0], [2.0]]) is None and deviations([[1.0, 2.0]]) is None


def test_the_best_of_several_is_not_chosen_by_what_it_is_judged_by():
    # Cells that do not differ: however many one tries, the best is like all others.
    same = made_up(400, 2, 0.0, 1.0)
    assert best_of(20, same).mean() == pytest.approx(60.0, abs=0.2)
    # Trainings without luck: the best of ten is 1.54 deviations above the mean.
    sure = made_up(4000, 2, 2.0, 0.0)
    assert best_of(10, sure).mean() == pytest.approx(60 + 1.54 * 2, abs=0.15)
    # Different cells are tried: of all three the best is among them.
    assert set(best_of(3, [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])) == {3.0}
    assert best_of(2, [[1.0, 1.0], [2.0]]) is None


def cells(group, *trainings, multiply_adds=8_000_000):
    size = Size(50_000, multiply_adds)
    return [TrainedCell(f"{group}-{i}", size, list(top1)) for i, top1 in enumerate(trainings)]


CELLS = [
    *cells("published", (64, 66), (60, 60), multiply_adds=9_500_000),
    *cells("random", (58, 58), (63, 61), (59, 61)),
    *cells("same-size", (60, 62), multiply_adds=9_400_000),
]


def test_the_report_has_groups_cells_and_costs():
    seconds = {"published": [900.0, 1100.0], "training": [180.0, 200.0, 220.0]}
    lines = report(CELLS, ("random", "same-size"), seconds)
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    assert rows[0][-2:] == ["beats random", "beats same-size"]
    # 65 beats all three, 60 beats 58 and is equal to 60.
    assert rows[2][:3] == ["published", "2", "4"] and rows[2][3].startswith("62.50 [")
    assert (
        rows[2][4] == "9.5 (9.5 to 9.5)"
        and rows[2][5].startswith("75 [")
        and rows[2][6].startswith("50 [")
    )
    assert rows[3][:3] == ["random", "3", "6"] and rows[3][5:] == ["", ""]
    best = next(row for row in rows if row[0] == "published-0")
    assert best == ["published-0", "65.00", "64.00, 66.00", "0.050 M", "9.5 M", "100 %"]
    order = [row[0] for row in rows if "-" in row[0] and row[0][-1].isdigit()]
    assert order[0] == "published-0" and order[-1] == "random-0" and len(order) == 6
    text = "\n".join(lines)
    assert "A published search took 1000 s, its final validation left out, a training 200 s" in text
    assert "instead of a search and the training of its cell 6 random cells" in text
    assert "Standard deviations, random: cells " in text
    start = lines.index("| group | above the mean of chance cells | above 90 % of chance cells |")
    assert lines[start + 2].startswith("| published | ") and lines[start + 3] == ""


def test_a_study_without_second_trainings_or_costs_is_reported_too():
    few = [*cells("published", (64,)), *cells("random", (58,), (63,))]
    lines = report(few, ("random", "same-size"), {"published": [10.0], "training": []})
    assert lines[0].rstrip(" |").endswith("beats random")
    assert not any("deviations" in line or "took" in line for line in lines)


def test_the_picture_has_every_group():
    picture = rendered(accuracy_by_size(CELLS), "svg")
    assert picture.startswith(b"<?xml") and len(picture) > 5000
    legend = accuracy_by_size(CELLS).legends[0].get_texts()
    assert [text.get_text() for text in legend] == ["published", "random", "same-size"]
