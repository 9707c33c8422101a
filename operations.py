"""The candidate operations of a cell, and the blocks around them.

Every module maps (N, C, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride)). The names of
parameters and buffers are those of the published checkpoints.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speed.depthwise import DepthwiseConv2d


class ReLUConvBN(nn.Module):
    """ReLU, convolution, batch norm."""

    def __init__(self, C_in: int, C_out: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(C_in, C_out, kernel_size, stride, padding, bias=False),
            nn.BatchNorm2d(C_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def _depthwise_separable(
    C: int, kernel_size: int, stride: int, dilation: int = 1
) -> list[nn.Module]:
    return [
        nn.ReLU(),
        DepthwiseConv2d(C, kernel_size, stride, dilation),
        nn.Conv2d(C, C, 1, bias=False),
        nn.BatchNorm2d(C),
    ]


class DilConv(nn.Module):
    """A depthwise separable convolution with dilation 2."""

    def __init__(self, C: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(*_depthwise_separable(C, kernel_size, stride, dilation=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class SepConv(nn.Module):
    """Two depthwise separable convolutions; the first has the stride."""

    def __init__(self, C: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            *_depthwise_separable(C, kernel_size, stride), *_depthwise_separable(C, kernel_size, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Conv7x1_1x7(nn.Sequential):
    """A 7×7 convolution factorised into 1×7 and 7×1 (AmoebaNet)."""

    def __init__(self, C: int, stride: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(C, C, (1, 7), stride=(1, stride), padding=(0, 3), bias=False),
            nn.Conv2d(C, C, (7, 1), stride=(stride, 1), padding=(3, 0), bias=False),
            nn.BatchNorm2d(C),
        )


class FactorizedReduce(nn.Module):
    """Halves the size with two 1×1 convolutions, the second one shifted by a pixel."""

    def __init__(self, C_in: int, C_out: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(C_in, C_out // 2, 1, bias=False)
        self.conv_2 = nn.Conv2d(C_in, C_out - C_out // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(C_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        # Every other pixel is taken here and not by a stride: the backward pass of 1×1
        # convolutions with one writes out of bounds on the CPU (channels last, two threads,
        # PyTorch 2.14).
        pixels, shifted = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        if x.shape[2] % 2 or x.shape[3] % 2:
            # Of an odd size the shifted half would come out one pixel smaller.
            shifted = F.pad(shifted, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return self.bn(torch.cat([self.conv_1(pixels), self.conv_2(shifted)], dim=1))


def _max_pool_3x3(C: int, stride: int) -> nn.Module:
    return nn.MaxPool2d(3, stride=stride, padding=1)


def _avg_pool_3x3(C: int, stride: int) -> nn.Module:
    return nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)


def _skip_connect(C: int, stride: int) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(C, C)


OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "max_pool_3x3": _max_pool_3x3,
    "avg_pool_3x3": _avg_pool_3x3,
    "skip_connect": _skip_connect,
    "sep_conv_3x3": lambda C, stride: SepConv(C, 3, stride),
    "sep_conv_5x5": lambda C, stride: SepConv(C, 5, stride),
    "sep_conv_7x7": lambda C, stride: SepConv(C, 7, stride),
    "dil_conv_3x3": lambda C, stride: DilConv(C, 3, stride),
    "dil_conv_5x5": lambda C, stride: DilConv(C, 5, stride),
    "conv_7x1_1x7": Conv7x1_1x7,
}
"""Name → constructor of (channels, stride)."""


def drop_path_scales(
    operations: Sequence[int], probability: float, features: Tensor
) -> tuple[Tensor, ...]:
    """What drop path multiplies operations' outputs by: samples are dropped whole, or scaled up.

    All numbers of a step are drawn at once: for each operation on its own they cost a GPU more
    time than the networks' smaller operations do.

    Args:
        operations: number of operations in each cell.
        probability: of dropping a sample of an operation's output.
        features: a feature map (N, ...) of the step; gives N, the dtype and the device.

    Returns:
        For each cell (operations, N, 1, 1, 1): 0 with `probability`, else 1 / (1 - probability).
    """
    keep = 1.0 - probability
    shape = (sum(operations), len(features), 1, 1, 1)
    scales = torch.empty(shape, dtype=features.dtype, device=features.device).bernoulli_(keep)
    return scales.div_(keep).split(list(operations))
