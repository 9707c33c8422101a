"""Reference data of the authors' detector, and what its tests share."""

import gzip
import json

import torch
from helpers import FIXTURES
from torch import Tensor

TINY = {"init_channels": 2, "layers": 2, "num_classes": 3, "image_size": 64}
"""Of a network for tests that need no larger one."""


def read_reference(name: str) -> dict:
    """A file in tests/fixtures/transfer, by its name without endings."""
    with gzip.open(FIXTURES / "transfer" / f"{name}.json.gz", "rt") as file:
        return json.load(file)


def assert_like_reference(found: Tensor, expected: dict, tolerance: float) -> None:
    """Within `tolerance` of the largest number, or of the 6 digits that the file has."""
    assert list(found.shape) == expected["shape"], expected["name"]
    values = torch.tensor(expected["values"])
    there = found.flatten()[torch.tensor(expected["positions"])]
    largest = values.abs().max().item()
    assert (there - values).abs().max().item() < (tolerance + 5e-6) * largest, expected["name"]
    # Of a sum the digits in the file are those of its size.
    for name, total in (("sum", found), ("sum_of_absolute_values", found.abs())):
        size = expected["sum_of_absolute_values"]
        difference = abs(total.double().sum().item() - expected[name])
        assert difference < (tolerance + 1e-5) * size, (expected["name"], name)
