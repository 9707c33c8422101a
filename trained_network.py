"""Networks and the checkpoints that hold them.

Our own checkpoints describe their network; published state dicts hold weights only.
"""

from argparse import BooleanOptionalAction, Namespace

from torch import nn

from arguments import ArgumentParser, positive_int
from checkpoint import load_checkpoint, load_weights, published_state_dict
from errors import UserError
from genotypes import Genotype, genotype_from_dict, resolve_genotype
from model import NetworkCIFAR, NetworkImageNet
from utils import multiply_adds, parameter_count

NETWORKS = {"cifar": NetworkCIFAR, "imagenet": NetworkImageNet}

PUBLISHED_SIZES = {"cifar": (36, 20), "imagenet": (46, 14)}
"""Channels of the first cells and number of cells, by kind of network."""


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


def add_network_arguments(parser: ArgumentParser) -> None:
    """Add the flags that describe the network of a published state dict."""
    group = parser.add_argument_group("for a published state dict, which holds weights only")
    add = group.add_argument
    add("--arch", help="name of a genotype, or a genotype file (default RelativeNAS)")
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
    if "classifier.weight" not in state:
        raise UserError(f"checkpoint {path}: holds no network (no classifier.weight in it)")
    found = "imagenet" if "stem0.0.weight" in state else "cifar"
    description = describe_network(
        found,
        resolve_genotype(args.arch or "RelativeNAS"),
        *PUBLISHED_SIZES[found],
        any(name.startswith("auxiliary_head.") for name in state),
        len(state["classifier.weight"]),
    )
    if "genotype" in checkpoint:
        description |= {name: value for name, value in checkpoint.items() if name != "state_dict"}
    if kind not in (None, description["network"]):
        raise UserError(
            f"checkpoint {path}: holds a network for {description['network']}, not for {kind}; "
            f"test it with {'test.py' if kind == 'imagenet' else 'test_imagenet.py'}"
        )
    if args.arch:
        description["genotype"] = resolve_genotype(args.arch)._asdict()
    for name in ("init_channels", "layers", "auxiliary"):
        if getattr(args, name) is not None:
            description[name] = getattr(args, name)
    try:
        network = build_network(description)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"checkpoint {path}: does not describe a network ({error})") from None
    load_weights(network, state, path)
    return network.eval(), description


def print_size(network: nn.Module, image_size: int) -> None:
    """Print a network's parameters and its multiply-adds for an image of `image_size` pixels."""
    print(f"parameters      {parameter_count(network) / 1e6:.2f} M")
    adds = multiply_adds(network, image_size)
    print(f"multiply-adds   {adds / 1e6:.1f} M at {image_size}×{image_size}")
