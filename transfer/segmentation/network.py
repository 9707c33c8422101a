"""BiSeNet (Yu et al., 2018, arXiv:1808.00897) with a network for ImageNet as its backbone.

A spatial path of few convolutions keeps the details, a context path gathers what the backbone
knows of the whole image, and both are fused at stride 8.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import Backbone, NetworkImageNet

CLASSES = 19
"""Those of Cityscapes."""

CONTEXT_CHANNELS, SPATIAL_CHANNELS = 128, 64


class ConvNorm(nn.Sequential):
    """A convolution that keeps the size or halves it (rounded up), batch norm, leaky ReLU."""

    def __init__(self, C_in: int, C_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(C_in, C_out, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(C_out),
            nn.LeakyReLU(0.01, inplace=True),
        )


class AttentionRefinement(nn.Module):
    """Brings a feature map to `C_out` channels and weighs them by their means over the image."""

    def __init__(self, C_in: int, C_out: int) -> None:
        super().__init__()
        self.features = ConvNorm(C_in, C_out, 3)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(C_out, C_out, 1, bias=False),
            nn.BatchNorm2d(C_out),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return x * self.attention(x)


class ContextPath(nn.Module):
    """What the backbone's maps say of the surroundings, handed down from coarse to fine.

    Maps the feature maps at strides 16 and 32, (N, C16, H16, W16) and (N, C32, H32, W32), and the
    size of the one at stride 8 to (N, 128, H8, W8) and (N, 128, H16, W16).
    """

    def __init__(self, C16: int, C32: int) -> None:
        super().__init__()
        self.refine16 = AttentionRefinement(C16, CONTEXT_CHANNELS)
        self.refine32 = AttentionRefinement(C32, CONTEXT_CHANNELS)
        self.whole_image = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvNorm(C32, CONTEXT_CHANNELS, 1)
        )
        self.smooth16 = ConvNorm(CONTEXT_CHANNELS, CONTEXT_CHANNELS, 3)
        self.smooth32 = ConvNorm(CONTEXT_CHANNELS, CONTEXT_CHANNELS, 3)

    def forward(self, x16: Tensor, x32: Tensor, size8: torch.Size) -> tuple[Tensor, Tensor]:
        context32 = self.refine32(x32) + self.whole_image(x32)
        context32 = self.smooth32(F.interpolate(context32, x16.shape[2:]))
        context16 = self.refine16(x16) + context32
        return self.smooth16(F.interpolate(context16, size8)), context32


class FeatureFusion(nn.Module):
    """Fuses both paths at stride 8 and weighs the channels by their means over the image.

    Maps two maps (N, 128, H, W) to (N, 256, H, W).
    """

    def __init__(self) -> None:
        super().__init__()
        channels = 2 * CONTEXT_CHANNELS
        self.features = ConvNorm(channels, channels, 1)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 4, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x = self.features(torch.cat([spatial, context], dim=1))
        return x + x * self.attention(x)


class BiSeNet(nn.Module):
    """Classes of all pixels of images.

    Maps float images (N, 3, H, W), normalised by ImageNet's mean and deviation, of any size to
    logits (N, num_classes, H, W); in training to three such: the output, and the two auxiliary
    ones, from the context path at strides 8 and 16.

    Args:
        network: its stem and cells are copied (see `Backbone`).
        num_classes: channels of the logits.

    Attributes:
        backbone: the copy. Its parameters and buffers are under `backbone.network.`.

    Raises:
        ValueError: the network has no feature map at stride 16 or 32.
    """

    def __init__(self, network: NetworkImageNet, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = Backbone(network, {16: "16", 32: "32"})
        self.context = ContextPath(*self.backbone.out_channels)
        self.spatial = nn.Sequential(
            ConvNorm(3, SPATIAL_CHANNELS, 7, stride=2),
            ConvNorm(SPATIAL_CHANNELS, SPATIAL_CHANNELS, 3, stride=2),
            ConvNorm(SPATIAL_CHANNELS, SPATIAL_CHANNELS, 3, stride=2),
            ConvNorm(SPATIAL_CHANNELS, CONTEXT_CHANNELS, 1),
        )
        self.fusion = FeatureFusion()
        self.output = _output(2 * CONTEXT_CHANNELS, 256, num_classes)
        self.output8 = _output(CONTEXT_CHANNELS, 64, num_classes)
        self.output16 = _output(CONTEXT_CHANNELS, 64, num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        features = self.backbone(images)
        spatial = self.spatial(images)
        context8, context16 = self.context(features["16"], features["32"], spatial.shape[2:])
        logits = _enlarge(self.output(self.fusion(spatial, context8)), images)
        if not self.training:
            return logits
        logits8 = _enlarge(self.output8(context8), images)
        return logits, logits8, _enlarge(self.output16(context16), images)


def share_batch_norms(network: BiSeNet, as_published: bool = False) -> None:
    """Let batch norms take their statistics over the images of all processes, in place.

    For GPUs only: PyTorch has no such norms on the CPU. Names in the state dict stay.

    Args:
        as_published: leave out the backbone's.
    """
    for name, part in list(network.named_children()):
        if not (as_published and name == "backbone"):
            setattr(network, name, nn.SyncBatchNorm.convert_sync_batchnorm(part))


def _output(C_in: int, channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(C_in, channels, 3), nn.Conv2d(channels, num_classes, 1, bias=False)
    )


def _enlarge(logits: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=True)
