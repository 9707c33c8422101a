"""What the benchmarks that search, train and compare share: their runs, and cells by size."""

import threading
import time

import pytest
from helpers import TINY_TRAINING, only_folder

from benchmarks import study as study_module
from benchmarks.study import Study, add_study_arguments, cell_of_size, parse_study, run_study
from genotypes import DARTS_V1, RelativeNAS, save_genotype
from report.sizes import TARGETS
from runtime.arguments import ArgumentParser
from runtime.errors import UserError


def parse(*arguments):
    parser = ArgumentParser(None)
    add_study_arguments(parser, "study")
    return parse_study(parser, ["--set", "digits", *map(str, arguments)])


def run(tmp_path, work, *arguments):
    run_study("study", parse("--save", tmp_path / "EXP", *arguments), work)


def test_random_cells_of_a_size():
    target = TARGETS["cifar"]
    wanted = target.size(RelativeNAS).multiply_adds
    cells = [cell_of_size(target, wanted, 0.05, 3, number) for number in range(3)]
    assert len({str(cell) for cell in cells}) == 3
    for cell in cells:
        assert abs(target.size(cell).multiply_adds - wanted) <= 0.05 * wanted
    assert cells[1] == cell_of_size(target, wanted, 0.05, 3, 1)


def test_a_size_that_no_random_cell_has(monkeypatch):
    monkeypatch.setattr(study_module, "MAX_DRAWS", 100)
    with pytest.raises(UserError, match=r"--same_size 0: none of 100 .* 616\.8 M multiply-adds"):
        cell_of_size(TARGETS["cifar"], 616.8e6, 0, 3, 0)


def test_a_mistake_in_the_scripts_flags_is_passed_on_and_leaves_no_folder(tmp_path):
    def work(study: Study):
        study.run_to_its_end("train", "found", ["--arch", "DARTS_V3"])

    with pytest.raises(UserError, match=r"^train\.py: .*DARTS_V3"):
        run(tmp_path, work)
    assert not list(tmp_path.iterdir())


def test_a_training_has_ended_after_its_last_epoch(tmp_path):
    one_epoch = [*TINY_TRAINING[2:], "--epochs", "1"]

    def train(study: Study):
        assert study.finished("train", "a") is None
        (folder,) = {study.run_to_its_end("train", "a", one_epoch) for _ in range(2)}
        assert study.finished("train", "a") == folder and folder.parent == study.path
        assert study.finished("train", "b") is None

    run(tmp_path, train)
    (settings,) = tmp_path.glob("study-*/train-a-*/settings.json")
    settings.write_text(settings.read_text().replace('"epochs": 1', '"epochs": 2'))

    def look(study: Study):
        assert study.finished("train", "a") is None

    run_study("study", parse("--resume", only_folder(tmp_path)), look)


def test_a_training_begun_with_another_cell_is_not_taken_for_this_ones(tmp_path):
    def work(study: Study):
        begun = study.path / "train-a-EXP-20260101-000000"
        begun.mkdir()
        (begun / "settings.json").write_text('{"epochs": 1}')
        save_genotype(DARTS_V1, study.path / "a.json")
        assert study.trained("a", DARTS_V1) is None  # it has not ended
        for ask in (study.trained, lambda name, cell: study.train(name, cell, 0)):
            with pytest.raises(UserError, match=r"train-a-EXP.*begun with another cell"):
                ask("a", RelativeNAS)

    run(tmp_path, work)


def test_jobs_run_at_the_same_time_and_a_mistake_in_one_ends_all(tmp_path):
    both = threading.Barrier(2, timeout=60)

    def meet(study: Study):
        assert study.all(range(4), lambda _: both.wait())

    run(tmp_path, meet, "--jobs", 2)
    done = []

    def fail(number):
        if number == 1:
            raise UserError("the second")
        done.append(number)

    with pytest.raises(UserError, match="the second"):
        run(tmp_path, lambda study: study.all(range(9), fail))
    assert done == [0]


def test_nothing_begins_after_the_time_is_up(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    done = []

    def work(number):
        done.append(number)
        clock[0] += 40

    def minute(study: Study):
        assert not study.all(range(9), work)

    run(tmp_path, minute, "--minutes", 1)
    assert done == [0, 1]
    run(tmp_path, minute, "--minutes", 0)
    assert done == [0, 1]


def test_what_runs_is_asked_to_stop_when_the_study_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "ROOT", tmp_path)
    (tmp_path / "train.py").write_text("import time; print(flush=True); time.sleep(60)\n")

    def leave(study: Study):
        def end_soon():
            while not study._running:
                time.sleep(0.01)
            study.stop()

        threading.Thread(target=end_soon).start()
        started = time.monotonic()
        with pytest.raises(UserError, match=r"train\.py: exit status -15"):
            study.run_to_its_end("train", "a", [])
        assert time.monotonic() - started < 50

    run(tmp_path / "runs", leave)


def test_scripts_share_the_processors(tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "ROOT", tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = "import os, sys; sys.exit(f\"error: threads {os.environ.get('OMP_NUM_THREADS')}\")\n"
    (tmp_path / "train.py").write_text(script)

    def threads(study: Study):
        study.run_to_its_end("train", "a", [])

    for jobs, expected in ((1, "None"), (4, "2")):
        with pytest.raises(UserError, match=f"threads {expected}"):
            run(tmp_path / "runs", threads, "--jobs", jobs)
