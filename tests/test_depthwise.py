"""Depthwise convolutions: outputs and gradients are those of PyTorch's own, in every geometry."""

import itertools

import pytest
import torch
from torch import nn

from speed.depthwise import DepthwiseConv2d

GEOMETRIES = list(itertools.product((3, 5, 7), (1, 2), (1, 2)))


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (2, 9), (3, 2)])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), GEOMETRIES)
def test_gradients_are_those_of_a_plain_convolution(kernel_size, stride, dilation, size):
    torch.manual_seed(0)
    ours = DepthwiseConv2d(4, kernel_size, stride, dilation).double()
    x = torch.randn(3, 4, *size, dtype=torch.float64, requires_grad=True)
    output, expected = ours(x), nn.Conv2d.forward(ours, x)
    assert type(output.grad_fn) is not type(expected.grad_fn)  # it is not the plain one twice
    torch.testing.assert_close(output, expected)
    grad = torch.randn_like(output)
    for found, plain in zip(
        torch.autograd.grad(output, [x, ours.weight], grad),
        torch.autograd.grad(expected, [x, ours.weight], grad),
        strict=True,
    ):
        torch.testing.assert_close(found, plain)


def test_without_gradients_it_is_the_plain_convolution():
    conv = DepthwiseConv2d(4, 5, 2, 2)
    x = torch.randn(2, 4, 9, 9)
    with torch.no_grad():
        assert torch.equal(conv(x), nn.Conv2d.forward(conv, x))


def test_autocast_computes_in_bfloat16():
    conv = DepthwiseConv2d(4, 5, 1)
    x = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        output = conv(x)
        assert output.dtype == torch.bfloat16
        assert torch.equal(output, nn.Conv2d.forward(conv, x))
    output.float().sum().backward()
    assert conv.weight.grad.dtype == torch.float32
