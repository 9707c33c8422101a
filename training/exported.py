"""Networks as export.py writes them: from images as they are to tensors with names."""

import torch
from torch import Tensor, nn

from dataset.pixel_statistics import Statistics


class ExportedNetwork(nn.Module):
    """A trained network with its images' normalisation inside, the base of each task's.

    Subclasses map float32 RGB images (N, 3, H, W) with pixels in [0, 1] to a tensor, or to several.

    Args:
        network: as it was trained.
        description: of the network, for a lean checkpoint.
        image_size: height and width of the images.
        statistics: of the normalisation.

    Attributes:
        outputs: names of what it gives.
    """

    outputs: tuple[str, ...]

    def __init__(
        self,
        network: nn.Module,
        description: dict,
        image_size: tuple[int, int],
        statistics: Statistics,
    ) -> None:
        super().__init__()
        self.network = network
        self.description = description
        self.image_size = image_size
        mean, std = statistics.tensors(torch.device("cpu"))
        self.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.register_buffer("std", std.view(1, 3, 1, 1))

    def normalized(self, images: Tensor) -> Tensor:
        """Images as the network takes them."""
        return (images - self.mean) / self.std
