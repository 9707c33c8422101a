"""The concatenation of a cell's nodes: that of PyTorch, with gradients without gaps."""

import pytest
import torch

from speed.concatenation import concatenate

LAYOUTS = [torch.channels_last, torch.contiguous_format]


def features(layout, dtype=torch.float32):
    torch.manual_seed(0)
    return [
        torch.randn(3, channels, 4, 5, dtype=dtype)
        .contiguous(memory_format=layout)
        .requires_grad_()
        for channels in (2, 4, 3)
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_and_gradients_are_those_of_pytorchs(layout):
    ours, plain = features(layout), features(layout)
    output, expected = concatenate(ours), torch.cat(plain, dim=1)
    assert type(output.grad_fn) is not type(expected.grad_fn)  # it is not the plain one twice
    assert torch.equal(output, expected)
    grad = torch.randn_like(output)
    for found, other in zip(
        torch.autograd.grad(output, ours, grad),
        torch.autograd.grad(expected, plain, grad),
        strict=True,
    ):
        assert torch.equal(found, other)
        assert not other.is_contiguous(memory_format=layout)
        assert found.is_contiguous(memory_format=layout)


def test_without_gradients_it_is_the_plain_concatenation():
    with torch.no_grad():
        output = concatenate(features(torch.channels_last))
    assert output.shape == (3, 9, 4, 5)
    assert torch.equal(output, torch.cat(features(torch.channels_last), dim=1))


def test_gradients_have_the_dtypes_of_the_parts():
    first, second = features(torch.channels_last), features(torch.channels_last, torch.float64)
    output = concatenate([first[0], second[1]])
    assert output.dtype == torch.float64
    output.sum().backward()
    assert first[0].grad.dtype == torch.float32
    assert second[1].grad.dtype == torch.float64
