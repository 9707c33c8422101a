"""The concatenation of a cell's nodes, with gradients that CPUs go on with quickly.

The gradient of a part of a concatenation is a view into that of the whole, with gaps between its
pixels. Batch norm, which most nodes end with, takes several times as long backwards from such a
view as from a tensor without gaps, and copying it costs next to nothing. (On a GPU the library
copies it itself; with drop path the nodes' products are without gaps already.)
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


def concatenate(features: list[Tensor]) -> Tensor:
    """The feature maps (N, C, H, W) as one, their channels one after the other."""
    if features[0].device.type != "cpu" or not torch.is_grad_enabled():
        return torch.cat(features, dim=1)
    return _Concatenation.apply(*features)


class _Concatenation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *features: Tensor) -> Tensor:
        ctx.channels = [part.shape[1] for part in features]
        channels_last = features[0].is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if channels_last else torch.contiguous_format
        return torch.cat(features, dim=1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:
        parts = grad.split(ctx.channels, dim=1)
        return tuple(part.contiguous(memory_format=ctx.layout) for part in parts)
