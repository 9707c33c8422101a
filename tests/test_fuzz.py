"""The three parsers of files of others take anything: they read it, or refuse it as documented."""

import json
import os
import subprocess
import sys

import pytest
from fuzzing import PARSERS
from helpers import ROOT


def fuzz(parsers, count):
    """What came of `count` inputs for each parser, in a process with a gigabyte of memory."""
    process = subprocess.run(
        [sys.executable, "tests/fuzzing.py", ",".join(parsers), str(count)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr[-5000:]
    print(process.stdout)
    results = [json.loads(line) for line in process.stdout.splitlines()]
    assert [result["parser"] for result in results] == list(parsers)
    for result in results:
        assert result["inputs"] >= count
        assert result["memory_growth"] < 1024
    return results


def test_a_few_hundred_inputs_for_each_parser():
    for result in fuzz(PARSERS, 300):
        # Some of what is made is right: parsers that refuse everything would pass, too.
        assert 0 < result["accepted"] < result["inputs"]


@pytest.mark.stress
@pytest.mark.parametrize("parser", PARSERS)
def test_a_hundred_thousand_inputs(parser):
    (result,) = fuzz([parser], 100_000)
    assert 0 < result["accepted"] < result["inputs"]
