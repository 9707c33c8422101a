"""Checkpoints that hold a network for segmentation: ours, and the original's state dicts."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from genotypes import Genotype, RelativeNAS
from report.sizes import TARGETS
from runtime.checkpoint import load_checkpoint, published_state_dict
from runtime.errors import UserError
from transfer.checkpoints import (
    build_backbone,
    check_description,
    described_by,
    given_fields,
    network_with_weights,
)
from transfer.segmentation.network import CLASSES, BiSeNet

SIZES = {
    "init_channels": (2, 1 << 16),
    "layers": (2, 1000),
    "num_classes": (1, 255),
    "crop_size": (1, 1 << 13),
}
"""What a network may have at least and at most.

With fewer cells there is no map at stride 32; in a label map 255 is no class.
"""

CROP_SIZE = 1024
"""Height and width of what the published network is trained on, in pixels."""

IN_PLACE_EPSILON = 1e-5
"""In-place activated batch norm adds this to the absolute value of its weight."""

ORIGINAL_NAMES = {
    "cp.net.": "backbone.network.",
    "cp.arm16.conv.": "context.refine16.features.",
    "cp.arm16.conv_atten.": "context.refine16.attention.1.",
    "cp.arm16.bn_atten.": "context.refine16.attention.2.",
    "cp.arm32.conv.": "context.refine32.features.",
    "cp.arm32.conv_atten.": "context.refine32.attention.1.",
    "cp.arm32.bn_atten.": "context.refine32.attention.2.",
    "cp.conv_avg.": "context.whole_image.1.",
    "cp.conv_head16.": "context.smooth16.",
    "cp.conv_head32.": "context.smooth32.",
    "sp.conv1.": "spatial.0.",
    "sp.conv2.": "spatial.1.",
    "sp.conv3.": "spatial.2.",
    "sp.conv_out.": "spatial.3.",
    "ffm.convblk.": "fusion.features.",
    "ffm.conv1.": "fusion.attention.1.",
    "ffm.conv2.": "fusion.attention.3.",
    "conv_out.conv.": "output.0.",
    "conv_out.conv_out.": "output.1.",
    "conv_out16.conv.": "output8.0.",
    "conv_out16.conv_out.": "output8.1.",
    "conv_out32.conv.": "output16.0.",
    "conv_out32.conv_out.": "output16.1.",
}
"""What names in the original's state dicts begin with, and what ours begin with in their place."""


def describe_segmentation_network(
    genotype: Genotype,
    init_channels: int,
    layers: int,
    num_classes: int = CLASSES,
    crop_size: int = CROP_SIZE,
) -> dict:
    """All that `build_segmentation_network` needs, as plain data for a checkpoint.

    And height and width of what the network is trained on, for the windows that it is tested in.
    """
    return {
        "task": "segmentation",
        "genotype": genotype._asdict(),
        "init_channels": init_channels,
        "layers": layers,
        "num_classes": num_classes,
        "crop_size": crop_size,
    }


def check_segmentation_description(description: Mapping) -> None:
    """Check what `describe_segmentation_network` gave, or a checkpoint says.

    Raises:
        ValueError: a field is not what it should be; names it.
    """
    check_description(description, "segmentation", SIZES)
    names = description.get("class_names")
    if names is not None and (
        not isinstance(names, list)
        or len(names) != description["num_classes"]
        or not all(isinstance(name, str) for name in names)
    ):
        raise ValueError("field 'class_names' must be a list of names, one for each class")


def build_segmentation_network(description: Mapping) -> BiSeNet:
    """The network that `describe_segmentation_network` described, its weights new."""
    return BiSeNet(build_backbone(description), description["num_classes"])


def new_segmentation_network(
    genotype: Genotype | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
    num_classes: int = CLASSES,
) -> BiSeNet:
    """A network with new weights: the published one, as far as nothing else is given.

    Raises:
        UserError: it cannot be built; names what is wrong.
    """
    description = _published_description(num_classes) | given_fields(
        genotype, init_channels, layers
    )
    try:
        check_segmentation_description(description)
    except ValueError as error:
        raise UserError(f"network for segmentation: {error}") from None
    return build_segmentation_network(description)


def load_segmentation_network(
    path: str | Path,
    genotype: Genotype | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
) -> tuple[BiSeNet, dict]:
    """The network in a checkpoint, in eval mode, and its description.

    What is given goes before what the checkpoint says of itself. A state dict of the original's
    repository says nothing; the published network's cell and sizes are its defaults.

    Raises:
        UserError: the file cannot be read or holds another network; names what differs.
    """
    checkpoint = load_checkpoint(path)
    state = converted_state_dict(published_state_dict(checkpoint, path))
    output = state.get("output.1.weight")
    if output is None or output.dim() != 4:
        raise UserError(
            f"checkpoint {path}: holds no network for segmentation (no output.1.weight in it); "
            "give one of transfer/train_segmentation.py, or of the original's repository"
        )
    published = _published_description(output.shape[0])
    given = given_fields(genotype, init_channels, layers)
    description = described_by(checkpoint, published, given)
    try:
        check_segmentation_description(description)
    except ValueError as error:
        raise UserError(f"checkpoint {path}: does not describe a network ({error})") from None
    return network_with_weights(build_segmentation_network, description, state, path), description


def _published_description(num_classes: int) -> dict:
    published = TARGETS["imagenet"]
    return describe_segmentation_network(
        RelativeNAS, published.channels, published.layers, num_classes
    )


def converted_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the original's network under our names; one of ours as it is.

    The original's in-place activated batch norms multiply by |weight| + 1e-5; they become batch
    norms whose weight is that. Names that neither network has are left as they are.
    """
    if not any(name.startswith("cp.") for name in state):
        return dict(state)
    converted = {}
    for name, tensor in state.items():
        parent, _, last = name.rpartition(".")
        if f"{parent}.running_mean" in state and not name.startswith("cp.net."):
            if last == "weight":
                tensor = tensor.abs() + IN_PLACE_EPSILON
            # In-place activated norms count no batches.
            converted.setdefault(our_name(f"{parent}.num_batches_tracked"), torch.tensor(0))
        converted[our_name(name)] = tensor
    return converted


def our_name(name: str) -> str:
    """Our name for what has `name` in the original's state dicts; another one is left as it is."""
    for theirs, ours in ORIGINAL_NAMES.items():
        if name.startswith(theirs):
            rest = name.removeprefix(theirs)
            return ours + re.sub(r"^conv\.", "0.", re.sub(r"^bn\.", "1.", rest))
    return name
