"""The README and the pages in docs/: every command runs, small, in the order in which they stand.

Every link leads somewhere, and what they say of flags and tests is so.
"""

import gc
import importlib
import pickle
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, TINY_IMAGENET, free_port, write_image_folder
from test_keypoint_annotations import write_coco
from test_nasbench201 import ALL_CELLS, make_table, write_table
from test_segmentation_data import write_cityscapes
from torchvision import datasets

from transfer.detection import made as detection_made

sys.path.append(str(ROOT / "docs"))
from flags import with_flag_tables

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
}
"""The text of each page by its path from the root."""

FIRST = {
    "docs/export.md": ["python train.py --set digits"],
    "docs/imagenet.md": ["python dataset/mk_img_list.py --image_path IMAGES --output_path DATA"]
    + [
        "python dataset/img2lmdb.py --image_path IMAGES --list_path DATA --output_path DATA "
        f"--split {split}"
        for split in ("train", "val")
    ],
    "docs/runs.md": ["make search"],
    "docs/transfer.md": ["python train_imagenet.py --data_path IMAGES --save runs/imagenet"],
}
"""What the reader of a page has done before: commands like the README's."""

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)

TINY = ["--layers", "3", "--init_channels", "2", "--batch_size", "32"]

SMALL_SEARCH = [*TINY, "--pop_size", "2", "--epochs", "1"]

SMALL = {
    "train_search.py": SMALL_SEARCH,
    "train.py": [*TINY, "--epochs", "1", "--gpus", "0"],
    "train_imagenet.py": [*TINY_IMAGENET, "--gpus", "0"],
    "test_imagenet.py": ["--gpus", "0"],
    "transfer/train_keypoints.py": [
        *TINY, "--epochs", "1", "--upsampled_channels", "8", "--image_size", "32", "32",
        "--gpus", "0", "--workers", "0",
    ],
    "transfer/test_keypoints.py": ["--workers", "0"],
    "transfer/train_segmentation.py": [
        "--layers", "3", "--init_channels", "2", "--crop_size", "16", "--epochs", "1",
        "--batch_size", "64", "--warmup_steps", "0", "--workers", "0",
    ],
    "transfer/test_segmentation.py": ["--workers", "0"],
    "transfer/train_detection.py": [
        "--set", "made", "--image_size", "32", "--init_channels", "2", "--layers", "3",
        "--epochs", "1", "--workers", "0",
    ],
    "transfer/test_detection.py": ["--set", "made"],
    "benchmarks/loading.py": ["--image_size", "16", "--rounds", "1"],
    "benchmarks/nasbench201.py": ["--seeds", "2", "--sets", "cifar10"],
    "benchmarks/search_speed.py": [
        *TINY, "--images", "9", "--genotypes", "1", "--rows", "ours",
    ],
    "benchmarks/search_vs_random.py": [
        "--learner", "published", "--searches", "1", "--random_cells", "2",
        "--same_size_cells", "0", "--trainings", "1",
        "--search_flags", shlex.join([*SMALL_SEARCH, "--epochs", "2", "--keep_every", "2"]),
        "--train_flags", shlex.join([*TINY, "--epochs", "1"]),
    ],
    "benchmarks/ranking.py": [
        "--percent", "100", "--signals", "shared", "statistics", "--trainings", "0",
    ],
}  # fmt: skip
"""What is put behind a script's own flags, so that it takes seconds."""


def commands(page: str) -> list[str]:
    """The commands in a page: `sh` blocks, and what stands behind `$` in `text` blocks."""
    lines = []
    for language, block in BLOCK.findall(PAGES[page]):
        block = block.replace("\\\n", " ")
        if language == "sh":
            lines += block.splitlines()
        elif language == "text":
            lines += [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return [command for line in lines if (command := line.partition(" #")[0].strip())]


def slug(heading: str) -> str:
    """What a link to a heading has behind its #, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_no_command_hides_in_the_prose(page):
    prose = BLOCK.sub("", PAGES[page])
    assert not re.findall(r"`((?:python|torchrun|bash) [^`]*)`", prose)


def test_the_tables_of_flags_are_those_of_the_scripts():
    page = PAGES["docs/flags.md"]
    assert set(re.findall(r"<!-- flags of (\S+) -->", page)) >= {
        path.name for path in ROOT.glob("*.py") if '"__main__"' in path.read_text(encoding="utf-8")
    }
    assert with_flag_tables(page) == page, "to mend it: python docs/flags.py"


@pytest.mark.parametrize("page", [*PAGES, "dataset/README.md", "trained_model/README.md"])
def test_what_a_page_links_to_is_there(page):
    prose = BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^):]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            text = BLOCK.sub("", target.read_text(encoding="utf-8"))
            assert anchor in map(slug, re.findall(r"^#+ (.+)$", text, re.MULTILINE)), link


def test_the_readme_leads_to_every_page_and_is_short():
    readme = PAGES["README.md"]
    assert [page for page in PAGES if page != "README.md" and f"]({page})" not in readme] == []
    assert readme.count("\n") <= 220


def test_the_readme_has_the_figures_of_the_pages():
    readme = PAGES["README.md"]
    accuracies = re.findall(r"\d+\.\d+ ± \d\.\d+", readme)
    assert len(accuracies) == 12
    assert [figure for figure in accuracies if figure not in PAGES["docs/learners.md"]] == []
    (times,) = re.findall(r"^\| the plain way \|.*\n.*\n.*$", readme, re.MULTILINE)
    measured = PAGES["docs/speed.md"].split()
    figures = re.findall(r"[\d.]+x?(?= \|)", times)
    assert len(figures) == 15
    assert [figure for figure in figures if figure not in measured] == []


def test_every_promise_names_a_test_that_exists():
    names = re.findall(r"`(test_\w+)`", PAGES["docs/promises.md"])
    assert len(names) > 15
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert [name for name in names if f"def {name}(" not in tests] == []


def test_the_pages_have_commands():
    assert sum(len(commands(page)) for page in PAGES) > 35


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_runs(page, tmp_path, monkeypatch):
    work = Workplace(tmp_path, monkeypatch)
    readme = commands("README.md")
    own = [command for command in commands(page) if page == "README.md" or command not in readme]
    for command in FIRST.get(page, []) + own:
        try:
            work.run(command)
        except Exception as error:
            pytest.fail(f"{command}: {error!r}")


class Workplace:
    """A folder with small data in which a page's commands run one after the other."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.monkeypatch = monkeypatch
        self.benchmarks_run = {"benchmarks/budgets.py"}  # by tests/test_budgets.py, for stress
        monkeypatch.chdir(path)
        for split in detection_made.IMAGES:
            monkeypatch.setitem(detection_made.IMAGES, split, 8)
        write_cifar(path / "data", monkeypatch)
        two_classes = {"train": {"cat": 9, "dog": 9}, "test": {"cat": 2, "dog": 2}}
        write_image_folder(path / "DIR", two_classes)
        write_image_folder(
            path / "IMAGES", {"train": {"a": 8, "b": 8}, "val": {"a": 3, "b": 3}}, suffix="JPEG"
        )
        write_table(path / "TABLE.csv", make_table(), ALL_CELLS)
        for split in ("train", "val"):
            write_coco(path / "COCO", split=split)
            write_cityscapes(path / "CITYSCAPES", split)

    def run(self, command: str) -> None:
        words = [self.fill_in(word) for word in shlex.split(command)]
        if words[0] == "make":
            self.make(words[1])
        elif words[0] == "torchrun":
            self.torchrun(words[1:])
        elif Path(words[0]).name == "python":
            self.python(words[1:])
        else:
            raise ValueError("the tests do not know how to run this")

    def fill_in(self, word: str) -> str:
        """A word of a command with what the pages' placeholders stand for."""
        if re.fullmatch(r"GENOTYPE|runs/search-[^/]+/genotype.json", word):
            return str(self.newest("search") / "genotype.json")
        if re.fullmatch(r"MODEL|runs/train-[^/]+/last.pt", word):
            return str(self.newest("train") / "last.pt")
        if word == "IMAGENET_MODEL":
            return str(self.newest("train-imagenet") / "last.pt")
        if word in ("SEARCH_RUN", "TRAIN_RUN"):
            return str(self.newest(word.removesuffix("_RUN").lower()))
        if word == "STUDY":
            return str(self.newest("compare"))
        return {"TABLE": "TABLE.csv", "HOST:PORT": f"localhost:{free_port()}"}.get(word, word)

    def newest(self, kind: str) -> Path:
        return max(self.path.glob(f"runs/{kind}-*"), key=lambda folder: folder.stat().st_mtime_ns)

    def make(self, target: str) -> None:
        """Run the scripts of `target` here; `make test`, which this is part of, is only shown."""
        shown = subprocess.run(
            ["make", "-C", ROOT, "-n", target], check=True, capture_output=True, text=True
        ).stdout
        if target == "test":
            assert "-m pytest" in shown and "ruff check" in shown
            return
        self.run(shown[shown.index(".venv/bin/python train_search.py") :].splitlines()[0])

    def python(self, words: list[str]) -> None:
        if words[:2] == ["-m", "pip"]:
            words = [str(ROOT / word) if word.endswith(".txt") else word for word in words]
            subprocess.run([sys.executable, *words], check=True)
            return
        script, *arguments = words
        if "--resume" not in arguments:
            arguments += SMALL.get(script, [])
        if script.startswith("benchmarks/"):  # they start processes that import the script again
            if script in self.benchmarks_run:  # a page's second study only has to be understood
                name = script.removesuffix(".py").replace("/", ".")
                importlib.import_module(name).parse_arguments(arguments)
                return
            self.benchmarks_run.add(script)
            subprocess.run([sys.executable, ROOT / script, *arguments], check=True)
            return
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [script, *arguments])
            patch.setattr(sys, "path", [str((ROOT / script).parent), *sys.path])
            try:
                runpy.run_path(str(ROOT / script), run_name="__main__")
            except SystemExit as end:
                assert not end.code, f"exit status {end.code}"
        gc.collect()  # an LMDB must not be opened twice in a process

    def torchrun(self, words: list[str]) -> None:
        """On every machine that the command is for, here two processes at most."""
        at = next(i for i, word in enumerate(words) if word.endswith(".py"))
        launcher, script, arguments = words[:at], words[at], words[at + 1 :]
        machines = int(launcher[launcher.index("--nnodes") + 1]) if "--nnodes" in launcher else 1
        if machines == 1:
            launcher = ["--standalone", *launcher]
        else:
            launcher[launcher.index("--nproc-per-node") + 1] = "1"
        if script != "train_imagenet.py":
            arguments += ["--set", "digits"]
        command = [
            str(Path(sys.executable).with_name("torchrun")), *launcher, str(ROOT / script),
            *arguments, *SMALL[script],
        ]  # fmt: skip
        launched = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(machines)
        ]
        for process in launched:
            output = process.communicate()[0]
            assert process.returncode == 0, output


def write_cifar(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random images in the files of CIFAR-10 and CIFAR-100, whose checksums are not looked at."""
    random = np.random.default_rng(0)
    files = {f"cifar-10-batches-py/data_batch_{number}": 16 for number in range(1, 6)} | {
        "cifar-10-batches-py/test_batch": 10,
        "cifar-100-python/train": 100,
        "cifar-100-python/test": 100,
    }
    for name, count in files.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [index % (100 if "100" in name else 10) for index in range(count)]
        path.write_bytes(pickle.dumps({"data": pixels, "labels": labels, "fine_labels": labels}))
    names = [str(number) for number in range(100)]
    meta = {"batches.meta": {"label_names": names[:10]}, "meta": {"fine_label_names": names}}
    (data / "cifar-10-batches-py/batches.meta").write_bytes(pickle.dumps(meta["batches.meta"]))
    (data / "cifar-100-python/meta").write_bytes(pickle.dumps(meta["meta"]))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
