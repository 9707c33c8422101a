"""One-line mistakes that would change the method, and whether the tests see them.

`make mutants` puts in one after the other, each in a copy of the project, and runs the tests
nearest to it. It prints for each whether it was killed (a test failed), survived (none did), no
longer applies (what it replaces does not stand in the file exactly once) or did not run, and ends
with status 1 unless all were killed. Words after the command choose: `python tests/mutants.py
dropout candidate.py` tries the mutants with one of these words in their file or reason.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parent.parent

TIME_LIMIT = 300
"""Seconds that the tests of a mutant may take."""


class Mutant(NamedTuple):
    """In `file`, `stands` becomes `becomes`; one of `tests` (names of test files) must see it."""

    file: str
    stands: str
    becomes: str
    tests: str
    why: str


SEARCH = []

TRAINING = []

DATA = []

MUTANTS = [*SEARCH, *TRAINING, *DATA]


def outcome(mutant: Mutant, copy: Path) -> str:
    """Try a mutant in a copy of the project, and put the copy right again."""
    path = copy / mutant.file
    source = path.read_text()
    if source.count(mutant.stands) != 1 or mutant.stands == mutant.becomes:
        return "no longer applies"
    path.write_text(source.replace(mutant.stands, mutant.becomes))
    try:
        status = run_tests(mutant.tests, copy)
    except subprocess.TimeoutExpired:
        return "did not run (too slow)"
    finally:
        path.write_text(source)
    return {0: "survived", 1: "killed"}.get(status, f"did not run (pytest's status {status})")


def run_tests(tests: str, copy: Path) -> int:
    """The exit status of pytest for some test files in a copy of the project."""
    files = [f"tests/{name}.py" for name in tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    # Without compiled files: a change within a second and of the same length would not be seen.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, timeout=TIME_LIMIT
    )
    return finished.returncode


def make_copy(parent: Path) -> Path:
    """A copy of the project's files as they stand in the working tree."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    copy = Path(tempfile.mkdtemp(dir=parent))
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def outcomes(mutants: list[Mutant], parent: Path) -> Iterator[str]:
    """The outcomes in the mutants' order, tried side by side, one for each core."""
    cores = len(os.sched_getaffinity(0))
    copies: Queue[Path] = Queue()
    for _ in range(cores):
        copies.put(make_copy(parent))

    def try_one(mutant: Mutant) -> str:
        copy = copies.get()
        try:
            return outcome(mutant, copy)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(cores) as pool:
        yield from pool.map(try_one, mutants)


def main(words: list[str]) -> int:
    chosen = [
        mutant
        for mutant in MUTANTS
        if not words or any(word in mutant.file + " " + mutant.why for word in words)
    ]
    alive = []
    with tempfile.TemporaryDirectory() as parent:
        tests = " ".join(sorted({name for mutant in chosen for name in mutant.tests.split()}))
        if chosen and run_tests(tests, make_copy(Path(parent))) != 0:
            print(f"the tests fail without any mutant: {tests}")
            return 1
        for mutant, result in zip(chosen, outcomes(chosen, Path(parent)), strict=True):
            print(f"{result:18} {mutant.file}: {mutant.why}", flush=True)
            if result != "killed":
                alive.append(mutant)
    print(f"{len(chosen)} mutants, {len(chosen) - len(alive)} killed")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
