"""Depthwise convolutions, with a backward pass that is fast on CPUs too.

The CPU library behind PyTorch (oneDNN) has quick kernels for the forward pass of every depthwise
convolution of the search space, but none for the weight gradient of kernels wider than three
columns or larger than the image, nor for any gradient of dilated ones: those fall back to code that
is up to a hundred times slower than the forward pass. `DepthwiseConv2d` asks for the same
gradients in terms that the library is quick at. Sums are added up in another order, which changes
rounding and nothing else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

FAST_COLUMNS = 3
"""The widest kernel that oneDNN has a quick weight gradient for."""


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias that keeps the size, or halves it with stride 2.

    Names and shapes of its parameters are those of `nn.Conv2d(C, C, ..., groups=C, bias=False)`.
    """

    def __init__(self, C: int, kernel_size: int, stride: int, dilation: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(C, C, kernel_size, stride, padding, dilation, groups=C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            return _DepthwiseConv2d.apply(x.to(dtype), self.weight.to(dtype), self)
        return _DepthwiseConv2d.apply(x, self.weight, self)


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, conv: DepthwiseConv2d) -> Tensor:
        ctx.x_shape = x.shape
        stride, dilation, padding = conv.stride[0], conv.dilation[0], conv.padding[0]
        ctx.subsampled = stride == dilation == 2
        if ctx.subsampled:
            # Only every second row and column is ever read: an ordinary convolution of those.
            x = x[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)
            stride, dilation, padding = 1, 1, padding // 2
        ctx.geometry = stride, padding, dilation
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _input_gradient(grad, x, weight, stride, padding, dilation)
            if ctx.subsampled:
                grad_x = _spread_out(grad_x, ctx.x_shape)
        if ctx.needs_input_grad[1]:
            if dilation > 1:
                x, grad = _split_by_dilation(x, dilation), _split_by_dilation(grad, dilation)
            grad_weight = _weight_gradient(grad, x, weight, stride, padding // dilation)
        return grad_x, grad_weight, None


def _input_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    if stride == 1:
        # The transpose of a convolution that keeps the size is one with the mirrored kernel.
        return F.conv2d(grad, weight.flip(2, 3), None, 1, padding, dilation, groups=len(weight))
    return _gradients(grad, x, weight, stride, [padding, padding], [True, False])[0]


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The weight gradient for dilation 1, a few columns of the kernel at a time."""
    columns = weight.shape[3]
    larger_than_x = min(x.shape[2:]) < columns
    if columns <= FAST_COLUMNS and not larger_than_x:
        return _gradients(grad, x, weight, stride, [padding, padding], [False, True])[1]
    parts = []
    width = (grad.shape[3] - 1) * stride  # from the first to the last place of the kernel
    # No quick gradient pads an image that is smaller than the kernel: rows are padded here, too.
    rows = padding if larger_than_x else 0
    padded = F.pad(x, (padding, padding, rows, rows))
    for first in range(0, columns, FAST_COLUMNS):
        part = weight[:, :, :, first : first + FAST_COLUMNS]
        seen = padded[:, :, :, first : first + width + part.shape[3]]
        parts.append(_gradients(grad, seen, part, stride, [padding - rows, 0], [False, True])[1])
    return torch.cat(parts, dim=3)


def _spread_out(x: Tensor, shape: torch.Size) -> Tensor:
    """`x` at every second row and column of a tensor of `shape`, zero elsewhere."""
    spread = torch.zeros(shape, dtype=x.dtype).to(memory_format=torch.channels_last)
    spread[:, :, ::2, ::2] = x
    return spread


def _split_by_dilation(x: Tensor, dilation: int) -> Tensor:
    """The interleaved grids that a dilated kernel sees one of at a time, as a larger batch."""
    height, width = (-size % dilation for size in x.shape[2:])
    if height or width:
        x = F.pad(x, (0, width, 0, height))
    return torch.cat(
        [
            x[:, :, row::dilation, column::dilation]
            for row in range(dilation)
            for column in range(dilation)
        ]
    )


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: list[int], wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        [stride, stride],
        padding,
        [1, 1],
        False,
        [0, 0],
        len(weight),
        [*wanted, False],
    )[:2]
