"""The ImageNet network as a backbone of torchvision's detection and segmentation models."""

import copy
from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from model import NetworkImageNet

ALL_STRIDES = {4: "0", 8: "1", 16: "2", 32: "3"}
"""Every feature map, under the names that torchvision gives a backbone's maps."""


class Backbone(nn.Module):
    """Feature maps of images, in the form that torchvision's models expect of a backbone.

    Maps float images (N, 3, H, W) of any size to an ordered dictionary of maps
    (N, channels, ceil(H / stride), ceil(W / stride)), finest first.

    Args:
        network: its stem and cells are copied, its classifier and auxiliary head left out.
        names: of the maps wanted, by stride. Segmentation heads look for the names "out" and
            "aux".

    Attributes:
        network: the copy. Its `drop_path_prob` is the probability of dropping an operation's
            output in training.
        out_channels: the maps' channels, in their order.

    Raises:
        ValueError: the network has no map at such a stride.
    """

    def __init__(self, network: NetworkImageNet, names: Mapping[int, str] = ALL_STRIDES) -> None:
        super().__init__()
        channels = network.feature_channels
        if not names or not names.keys() <= channels.keys():
            raise ValueError(f"strides {list(names)}: the network has maps at {list(channels)}")
        self.names = dict(sorted(names.items()))
        self.out_channels = [channels[stride] for stride in self.names]
        self.network = copy.deepcopy(network)
        for head in ("classifier", "auxiliary_head"):
            if hasattr(self.network, head):
                delattr(self.network, head)
        # Cells behind the coarsest map wanted would run for nothing.
        while self.network.cells and max(self.network.feature_channels) > max(names):
            del self.network.cells[-1]

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        features = self.network.forward_features(x)
        return OrderedDict((name, features[stride]) for stride, name in self.names.items())
