"""Networks and the checkpoints that hold them.

Our own checkpoints describe their network; published state dicts hold weights only.
"""

from argparse import BooleanOptionalAction, Namespace

import torch
from torch import nn

from dataset.image_set import SET_NAMES
from dataset.pixel_statistics import statistics_from_dict
from genotypes import Genotype, genotype_from_dict, resolve_genotype
from model import NetworkCIFAR, NetworkImageNet
from report.sizes import TARGETS
from runtime.arguments import ArgumentParser, expanded_path, positive_int
from runtime.checkpoint import check_weights, load_checkpoint, published_state_dict
from runtime.errors import UserError
from runtime.untrusted import is_number, is_whole_number
from utils import multiply_adds, parameter_count

NETWORKS = {"cifar": NetworkCIFAR, "imagenet": NetworkImageNet}

PUBLISHED_SIZES = {kind: (target.channels, target.layers) for kind, target in TARGETS.items()}
"""Channels of the first cells and number of cells, by kind of network."""

LARGEST = {
    "init_channels": 1 << 16,
    "layers": 1000,
    "num_classes": 1 << 16,
    "image_size": 1 << 13,
    "validation_resize": 1 << 13,
    "epoch": 1 << 31,
}
"""What a file may ask for at most, so that it cannot ask for everything."""

DESCRIPTION = (
    "network", "genotype", "auxiliary", "set", "class_names", "mean", "std", "top1", *LARGEST
)  # fmt: skip
"""What our checkpoints say of their network and the images it was trained on."""


def describe_network(
    kind: str,
    genotype: Genotype,
    init_channels: int,
    layers: int,
    auxiliary: bool,
    num_classes: int,
) -> dict:
    """All that `build_network` needs, as plain data for a checkpoint; `kind` is in `NETWORKS`."""
    return {
        "network": kind,
        "genotype": genotype._asdict(),
        "init_channels": init_channels,
        "layers": layers,
        "auxiliary": auxiliary,
        "num_classes": num_classes,
    }


def build_network(description: dict) -> nn.Module:
    """The network that `describe_network` described, its weights new.

    Raises:
        ValueError: the description's genotype is not one.
        KeyError: a part of the description is missing.
    """
    return NETWORKS[description["network"]](
        description["init_channels"],
        description["num_classes"],
        description["layers"],
        description["auxiliary"],
        genotype_from_dict(description["genotype"]),
    )


def check_description(description: dict) -> None:
    """Check what a checkpoint says of its network and images, of which there may be a part.

    Raises:
        ValueError: a field is not what it should be; names it.
    """
    for name, value in description.items():
        smallest = 0 if name == "epoch" else 1  # a training may have been stopped in its first
        if name in LARGEST and not is_whole_number(value, smallest, LARGEST[name]):
            raise ValueError(
                f"field {name!r} must be a whole number from {smallest} to {LARGEST[name]}"
            )
    if not isinstance(description["auxiliary"], bool):
        raise ValueError("field 'auxiliary' must be true or false")
    for name, known in (("network", tuple(NETWORKS)), ("set", (*SET_NAMES, "imagenet"))):
        value = description.get(name, known[0])
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"field {name!r} must be one of {', '.join(known)}")
    if description["network"] == "imagenet" and description["init_channels"] < 2:
        raise ValueError("field 'init_channels' must be at least 2, for the stem")
    genotype_from_dict(description["genotype"])
    _check_class_names(description.get("class_names", []), description["num_classes"])
    if not is_number(description.get("top1", 0)):
        raise ValueError("field 'top1' must be a number")
    if "mean" in description:
        statistics_from_dict(description)


def _check_class_names(names: object, num_classes: int) -> None:
    """Check the classes' names in the order of their labels; "" is none."""
    if (
        not isinstance(names, list)
        or len(names) > num_classes
        or not all(isinstance(name, str) for name in names)
        or len(set(filter(None, names))) < len(list(filter(None, names)))
    ):
        raise ValueError("field 'class_names' must be a list of different names, one for a class")


def add_network_arguments(parser: ArgumentParser) -> None:
    """Add the flags that describe the network of a published state dict."""
    group = parser.add_argument_group("for a published state dict, which holds weights only")
    add = group.add_argument
    add(
        "--arch",
        type=expanded_path,
        help="a genotype: its name, file, run folder, or itself (default RelativeNAS)",
    )
    add(
        "--init_channels",
        type=positive_int,
        help="channels of the first cells (default: as published)",
    )
    add("--layers", type=positive_int, help="number of cells (default: as published)")
    add(
        "--auxiliary",
        action=BooleanOptionalAction,
        help="it has an auxiliary head (default: looked up in the file)",
    )


def load_trained_network(args: Namespace, kind: str | None = None) -> tuple[nn.Module, dict]:
    """The network in the checkpoint `args.model_path`, in eval mode, and its description.

    Flags that are given (see `add_network_arguments`) go before what the checkpoint says of
    itself; a published state dict says nothing, and the published sizes are its defaults.

    Args:
        kind: of network that it must be, in `NETWORKS`; None: any.

    Raises:
        UserError: the file cannot be read or holds another architecture; names what differs.
    """
    path = args.model_path
    checkpoint = load_checkpoint(path)
    state = published_state_dict(checkpoint, path)
    if "classifier.weight" not in state or state["classifier.weight"].dim() != 2:
        raise UserError(f"checkpoint {path}: holds no network (no classifier.weight in it)")
    found = "imagenet" if "stem0.0.weight" in state else "cifar"
    description = describe_network(
        found,
        resolve_genotype(args.arch or "RelativeNAS"),
        *PUBLISHED_SIZES[found],
        any(name.startswith("auxiliary_head.") for name in state),
        state["classifier.weight"].shape[0],
    )
    if "genotype" in checkpoint:
        description |= {name: checkpoint[name] for name in DESCRIPTION if name in checkpoint}
    if args.arch:
        description["genotype"] = resolve_genotype(args.arch)._asdict()
    for name in ("init_channels", "layers", "auxiliary"):
        if getattr(args, name) is not None:
            description[name] = getattr(args, name)
    try:
        check_description(description)
    except ValueError as error:
        raise UserError(f"checkpoint {path}: does not describe a network ({error})") from None
    if kind not in (None, description["network"]):
        raise UserError(
            f"checkpoint {path}: holds a network for {description['network']}, not for {kind}; "
            f"test it with {'test.py' if kind == 'imagenet' else 'test_imagenet.py'}"
        )
    # Without memory at first: a network may be described that is larger than its weights.
    with torch.device("meta"):
        network = build_network(description)
    check_weights(network.state_dict(), state, path)
    network.to_empty(device="cpu").load_state_dict(state)
    return network.eval(), description


def print_size(network: nn.Module, image_size: int | tuple[int, int]) -> None:
    """Print a network's parameters and its multiply-adds for an image (see `multiply_adds`)."""
    print(f"parameters      {parameter_count(network) / 1e6:.2f} M")
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    adds = multiply_adds(network, (height, width))
    print(f"multiply-adds   {adds / 1e6:.1f} M at {height}×{width}")
