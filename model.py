"""The networks trained from scratch: a genotype's cells, stacked.

Names and shapes of parameters and buffers are those of the published checkpoints.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from genotypes import Genotype
from operations import OPERATIONS, FactorizedReduce, ReLUConvBN, drop_path_scales
from speed.concatenation import concatenate


class Cell(nn.Module):
    """One cell: two inputs, intermediate nodes that each add up two operations, concatenated.

    Maps (N, C_prev_prev, ...) and (N, C_prev, H, W) to (N, out_channels, H', W'), where H' and W'
    are halved (rounded up) in a reduction cell. `scales` are drop path's for its operations.
    """

    def __init__(
        self,
        genotype: Genotype,
        C_prev_prev: int,
        C_prev: int,
        C: int,
        reduction: bool,
        reduction_prev: bool,
    ) -> None:
        super().__init__()
        self.reduction = reduction
        if reduction_prev:
            self.preprocess0: nn.Module = FactorizedReduce(C_prev_prev, C)
        else:
            self.preprocess0 = ReLUConvBN(C_prev_prev, C, 1, 1, 0)
        self.preprocess1 = ReLUConvBN(C_prev, C, 1, 1, 0)
        pairs = genotype.reduce if reduction else genotype.normal
        self._concat = genotype.reduce_concat if reduction else genotype.normal_concat
        self._inputs = [source for _, source in pairs]
        self._ops = nn.ModuleList(
            # Only the cell's two inputs still have the size before the reduction.
            OPERATIONS[name](C, 2 if reduction and source < 2 else 1)
            for name, source in pairs
        )
        self.out_channels = len(self._concat) * C

    def forward(self, s0: Tensor, s1: Tensor, scales: Tensor | None = None) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for first in range(0, len(self._ops), 2):
            terms = []
            for index in (first, first + 1):
                operation = self._ops[index]
                term = operation(states[self._inputs[index]])
                # Skip connections are spared: a whole way through the cell stays open.
                if scales is not None and not isinstance(operation, nn.Identity):
                    term = term * scales[index]
                terms.append(term)
            states.append(terms[0] + terms[1])
        return concatenate([states[index] for index in self._concat])


class AuxiliaryPool(nn.Module):
    """Pools any feature map to 2×2.

    The published networks pool windows of 5×5 with a fixed stride, which gives 2×2 at their image
    sizes only; maps of other sizes are pooled adaptively.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if all((size - 5) // self.stride + 1 == 2 for size in x.shape[2:]):
            return F.avg_pool2d(x, 5, self.stride, count_include_pad=False)
        return F.adaptive_avg_pool2d(x, 2)


class AuxiliaryHead(nn.Module):
    """The classifier two thirds of the way through the network, used in training only.

    Maps (N, C, H, W) to logits (N, num_classes).
    """

    def __init__(self, C: int, num_classes: int, pool_stride: int, last_batch_norm: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            AuxiliaryPool(pool_stride),
            nn.Conv2d(C, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
            nn.Conv2d(128, 768, 2, bias=False),
            *([nn.BatchNorm2d(768)] if last_batch_norm else []),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class _Network(nn.Module):
    """What both networks share: the stack of cells, the auxiliary head and the classifier."""

    auxiliary_pool_stride: int
    auxiliary_last_batch_norm: bool

    def __init__(self, num_classes: int, layers: int, auxiliary: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self._layers = layers
        self._auxiliary = auxiliary
        self.drop_path_prob = 0.0

    def _add_cells(self, genotype: Genotype, C: int, C_stem: int, reduction_prev: bool) -> None:
        """Append the cells and the classifiers behind a stem with `C_stem` output channels."""
        C_prev_prev, C_prev, C_curr = C_stem, C_stem, C
        self.cells = nn.ModuleList()
        for index in range(self._layers):
            reduction = index in (self._layers // 3, 2 * self._layers // 3)
            if reduction:
                C_curr *= 2
            cell = Cell(genotype, C_prev_prev, C_prev, C_curr, reduction, reduction_prev)
            self.cells.append(cell)
            reduction_prev = reduction
            C_prev_prev, C_prev = C_prev, cell.out_channels
            if index == 2 * self._layers // 3 and self._auxiliary:
                self.auxiliary_head = AuxiliaryHead(
                    C_prev,
                    self.num_classes,
                    self.auxiliary_pool_stride,
                    self.auxiliary_last_batch_norm,
                )
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(C_prev, self.num_classes)

    def _drop_path_scales(self, features: Tensor) -> Sequence[Tensor | None]:
        """What each cell's operations are multiplied by, None out of training."""
        if not self.training or not self.drop_path_prob:
            return [None] * len(self.cells)
        operations = [len(cell._ops) for cell in self.cells]
        return drop_path_scales(operations, self.drop_path_prob, features)

    def _forward_cells(self, s0: Tensor, s1: Tensor) -> tuple[Tensor, Tensor | None]:
        logits_aux = None
        scales = self._drop_path_scales(s0)
        for index, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, scales[index])
            if index == 2 * self._layers // 3 and self._auxiliary and self.training:
                logits_aux = self.auxiliary_head(s1)
        return self.classifier(self.global_pooling(s1).flatten(1)), logits_aux


class NetworkCIFAR(_Network):
    """The network for small images (CIFAR, digits, a folder of images).

    Args:
        C: channels of the first cells; the stem has three times as many.
        num_classes: outputs of the classifier.
        layers: number of cells; those at layers//3 and 2·layers//3 are reduction cells.
        auxiliary: whether there is an auxiliary head behind the second reduction cell.
        genotype: the two cells.

    `forward` maps float images (N, 3, H, W) to `(logits, logits_aux)`, each (N, num_classes);
    `logits_aux` is None unless training with the auxiliary head. `drop_path_prob` is the
    probability of dropping an operation's output in training, 0 by default.
    """

    auxiliary_pool_stride = 3
    auxiliary_last_batch_norm = True

    def __init__(
        self, C: int, num_classes: int, layers: int, auxiliary: bool, genotype: Genotype
    ) -> None:
        super().__init__(num_classes, layers, auxiliary)
        C_stem = 3 * C
        self.stem = nn.Sequential(
            nn.Conv2d(3, C_stem, 3, padding=1, bias=False), nn.BatchNorm2d(C_stem)
        )
        self._add_cells(genotype, C, C_stem, reduction_prev=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.stem(x)
        return self._forward_cells(features, features)


class NetworkImageNet(_Network):
    """The network for large images: a stem that halves the size three times, then the cells.

    Arguments and outputs are those of `NetworkCIFAR`. Its auxiliary head has no batch norm before
    the last ReLU, as in the published network.
    """

    auxiliary_pool_stride = 2
    auxiliary_last_batch_norm = False

    def __init__(
        self, C: int, num_classes: int, layers: int, auxiliary: bool, genotype: Genotype
    ) -> None:
        super().__init__(num_classes, layers, auxiliary)
        self.stem0 = nn.Sequential(
            nn.Conv2d(3, C // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(C // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(C // 2, C, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(C),
        )
        self.stem1 = nn.Sequential(
            nn.ReLU(), nn.Conv2d(C, C, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(C)
        )
        self._add_cells(genotype, C, C, reduction_prev=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        s0 = self.stem0(x)
        return self._forward_cells(s0, self.stem1(s0))

    def forward_features(self, x: Tensor) -> dict[int, Tensor]:
        """The last feature map at each stride: 4, 8, 16 and 32 (with fewer than 3 cells, some).

        Maps images (N, 3, H, W) to maps (N, channels, ceil(H / stride), ceil(W / stride)), by
        stride; `feature_channels` has their channels. They come from a batch norm or a sum of
        such, so they are not rectified.
        """
        s0 = self.stem0(x)
        s1 = self.stem1(s0)
        stride = 8
        features = {4: s0, stride: s1}
        scales = self._drop_path_scales(s0)
        for index, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, scales[index])
            stride *= 1 + cell.reduction
            features[stride] = s1
        return features

    @property
    def feature_channels(self) -> dict[int, int]:
        """Channels of the maps of `forward_features`, by stride."""
        stride = 8
        channels = {4: self.stem0[-1].num_features, stride: self.stem1[-1].num_features}
        for cell in self.cells:
            stride *= 1 + cell.reduction
            channels[stride] = cell.out_channels
        return channels


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
