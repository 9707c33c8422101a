"""Tensors copied as one: the same numbers in the same layout, and apart from the given ones."""

import pickle

import pytest
import torch

from model_search import Supernet
from runtime.flat_tensors import FlatTensors


def some_tensors():
    torch.manual_seed(0)
    weights = Supernet(2, 3, 3).to(memory_format=torch.channels_last).state_dict()
    views = {"column": torch.rand(3, 4)[:, 1], "expanded": torch.rand(1, 3).expand(2, 3)}
    return {**weights, **views, "none": torch.zeros(0, 3), "half": torch.rand(5).bfloat16()}


@pytest.mark.parametrize("sent", [False, True])
def test_copies_have_the_numbers_dtypes_and_layouts_of_the_given(sent):
    tensors = some_tensors()
    copies = FlatTensors(tensors)
    if sent:
        message = pickle.dumps(copies)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        assert len(message) < size + 200_000  # not the whole piece for each of a thousand names
        copies = pickle.loads(message)
    assert list(copies) == list(tensors)
    assert len(copies.pieces) == 3
    for name, tensor in tensors.items():
        assert copies[name].dtype == tensor.dtype
        assert torch.equal(copies[name], tensor), name
        if name not in ("column", "expanded"):  # those have no memory of their own
            assert copies[name].clone().stride() == tensor.stride(), name


def test_copies_stay_when_the_given_ones_change():
    tensors = {"a": torch.ones(3), "b": torch.ones(2, dtype=torch.int64)}
    copies = FlatTensors(tensors)
    for tensor in tensors.values():
        tensor.zero_()
    assert copies["a"].tolist() == [1, 1, 1] and copies["b"].tolist() == [1, 1]
