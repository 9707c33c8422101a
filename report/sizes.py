"""Parameters and multiply-adds of the network that a genotype gives, without building it.

Both add up over a network's parts. So each part is measured once, as shapes without numbers
(PyTorch's meta device), and looked up from then on: an operation at its channels, image size and
stride, and the network around the operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from genotypes import Genotype
from model import NetworkCIFAR, NetworkImageNet
from operations import OPERATIONS
from runtime.untrusted import is_whole_number
from utils import multiply_adds, parameter_count

SETTINGS = {
    "target_channels": ("channels", 1 << 16),
    "target_layers": ("layers", 1000),
    "target_image_size": ("image_size", 1 << 13),
    "target_classes": ("num_classes", 1 << 20),
}
"""Settings of a search: the attribute of its target that each is, and what it may be at most."""


class Size(NamedTuple):
    """Of a network without its auxiliary head; multiply-adds as `utils.multiply_adds` has them."""

    parameters: int
    multiply_adds: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.2f} M parameters, "
            f"{self.multiply_adds / 1e6:.1f} M multiply-adds"
        )


@dataclass(frozen=True)
class Target:
    """The network that a genotype is to be trained in.

    Attributes:
        network: `NetworkCIFAR` or `NetworkImageNet`.
        channels: of the first cells.
        layers: number of cells.
        image_size: in pixels.
        num_classes: outputs of the classifier.
    """

    network: type[NetworkCIFAR] | type[NetworkImageNet]
    channels: int
    layers: int
    image_size: int
    num_classes: int

    def size(self, genotype: Genotype) -> Size:
        """Size of the network with `genotype`: that of the built one, in microseconds."""
        size = _frame_size(self, len(genotype.normal_concat), len(genotype.reduce_concat))
        for reduction, pairs in ((False, genotype.normal), (True, genotype.reduce)):
            for name, source in pairs:
                size += self.operation_size(name, reduction, source < 2)
        return size

    def operation_size(self, name: str, reduction: bool, from_input: bool) -> Size:
        """What an operation adds to the network, in all cells of its kind together.

        Args:
            reduction: it is of the reduction cells, not of the normal ones.
            from_input: it reads an input of the cell, which reduction cells halve.
        """
        return _operation_size(self, name, reduction, from_input)

    def __str__(self) -> str:
        return (
            f"{self.network.__name__}, {self.channels} channels, {self.layers} cells, "
            f"{self.num_classes} classes, {self.image_size}×{self.image_size}"
        )


TARGETS = {
    "cifar": Target(NetworkCIFAR, 36, 20, 32, 10),
    "imagenet": Target(NetworkImageNet, 46, 14, 224, 1000),
}
"""The published networks."""

FOR_DIGITS = {"channels": 8, "layers": 5, "image_size": 16}
"""A network that suits 1,437 images of 16×16."""


def target_of(settings: Mapping[str, object]) -> Target:
    """The target that a search's settings ask for by `target` and `target_...`, all optional.

    The network for small images is the one for the images searched on, as far as nothing else is
    asked for.

    Raises:
        ValueError: a setting is not what it should be; names it.
    """
    name = settings.get("target", "cifar")
    if not isinstance(name, str) or name not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    image_set, image_size = settings.get("set"), settings.get("image_size")
    if name == "cifar" and image_set == "cifar100":
        target = replace(target, num_classes=100)
    elif name == "cifar" and image_set == "digits":
        target = replace(target, **FOR_DIGITS)
    elif name == "cifar" and image_set == "folder" and image_size is not None:
        if not is_whole_number(image_size, 1, SETTINGS["target_image_size"][1]):
            raise ValueError("image_size must be a whole number, and not larger than images are")
        target = replace(target, image_size=image_size)
    for setting, (attribute, largest) in SETTINGS.items():
        value = settings.get(setting)
        # The stem for large images begins with half of the channels.
        smallest = 2 if (name, setting) == ("imagenet", "target_channels") else 1
        if value is not None:
            if not is_whole_number(value, smallest, largest):
                raise ValueError(f"{setting} must be a whole number from {smallest} to {largest}")
            target = replace(target, **{attribute: value})
    return target


@cache
def _frame_size(target: Target, normal_nodes: int, reduce_nodes: int) -> Size:
    """All but the cells' operations, in whose places are pools: those have no size.

    Args:
        normal_nodes, reduce_nodes: concatenated into the outputs of the cells.
    """
    pools = [("max_pool_3x3", 0)] * (2 * max(normal_nodes, reduce_nodes))
    genotype = Genotype(
        pools, list(range(2, 2 + normal_nodes)), pools, list(range(2, 2 + reduce_nodes))
    )
    with torch.device("meta"):
        network = target.network(
            target.channels, target.num_classes, target.layers, False, genotype
        )
    return _measure(network, 3, target.image_size)


@cache
def _operation_size(target: Target, name: str, reduction: bool, from_input: bool) -> Size:
    channels = target.channels
    image_size = target.image_size
    if target.network is NetworkImageNet:
        image_size = -(-image_size // 8)  # behind the stem
    total = Size(0, 0)
    for index in range(target.layers):
        is_reduction = index in (target.layers // 3, 2 * target.layers // 3)
        halved = -(-image_size // 2) if is_reduction else image_size
        channels *= 1 + is_reduction
        if is_reduction == reduction:
            stride = 2 if reduction and from_input else 1
            total += _module_size(name, channels, stride, image_size if from_input else halved)
        image_size = halved
    return total


@cache
def _module_size(name: str, channels: int, stride: int, image_size: int) -> Size:
    with torch.device("meta"):
        operation = OPERATIONS[name](channels, stride)
    return _measure(operation, channels, image_size)


def _measure(module: nn.Module, channels: int, image_size: int) -> Size:
    with torch.device("meta"):  # pools have no parameters that would say where they are
        return Size(parameter_count(module), multiply_adds(module, image_size, channels))
