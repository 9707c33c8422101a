"""Checkpoints of the transfer tasks' networks: what they say of themselves, and how they load."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from dataset.pixel_statistics import statistics_from_dict
from genotypes import Genotype, genotype_from_dict
from model import NetworkImageNet
from runtime.checkpoint import check_weights
from runtime.untrusted import is_whole_number

Network = TypeVar("Network", bound=nn.Module)


def check_description(
    description: Mapping, task: str, sizes: Mapping[str, tuple[int, int]]
) -> None:
    """Check what a checkpoint of `task` says of its network.

    Args:
        sizes: by field what a network may have at least and at most.

    Raises:
        ValueError: a field is not what it should be; names it.
    """
    if description.get("task") != task:
        raise ValueError(f"field 'task' must be {task!r}")
    for name, (smallest, largest) in sizes.items():
        if not is_whole_number(description.get(name), smallest, largest):
            raise ValueError(f"field {name!r} must be a whole number from {smallest} to {largest}")
    genotype_from_dict(description.get("genotype"))
    if "mean" in description:
        statistics_from_dict(description)


def build_backbone(description: Mapping) -> NetworkImageNet:
    """The network for ImageNet that a description has, its weights new."""
    return NetworkImageNet(
        description["init_channels"],
        1,  # the classifier is left out
        description["layers"],
        False,
        genotype_from_dict(description["genotype"]),
    )


def given_fields(
    genotype: Genotype | None, init_channels: int | None, layers: int | None
) -> dict[str, object]:
    """The fields of a description that somebody asked for."""
    genotype_fields = genotype and genotype._asdict()
    fields = {"genotype": genotype_fields, "init_channels": init_channels, "layers": layers}
    return {name: value for name, value in fields.items() if value is not None}


def described_by(checkpoint: Mapping, published: Mapping, given: Mapping) -> dict:
    """A description: the published one, what a checkpoint says in its place, then what is given."""
    own = (*published, "class_names", "mean", "std")
    return {**published, **{name: checkpoint[name] for name in own if name in checkpoint}, **given}


def network_with_weights(
    build: Callable[[Mapping], Network],
    description: Mapping,
    state: Mapping[str, Tensor],
    path: str | Path,
) -> Network:
    """The network that `build` makes of a description, in eval mode, with the weights of `state`.

    Raises:
        UserError: the weights are another network's; names what differs, and `path`.
    """
    # Without memory at first: a network may be described that is larger than its weights.
    with torch.device("meta"):
        network = build(description)
    check_weights(network.state_dict(), state, path)
    network.to_empty(device="cpu").load_state_dict(state)
    return network.eval()
