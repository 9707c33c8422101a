"""The network for keypoints, and the checkpoints that hold one.

SimpleBaseline (Xiao et al., ECCV 2018, arXiv:1804.06208): the coarsest map of the backbone, three
transposed convolutions that double its sides, and a heatmap for each joint.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from genotypes import Genotype, RelativeNAS
from model import Backbone, NetworkImageNet
from report.sizes import TARGETS
from runtime.checkpoint import load_checkpoint, published_state_dict
from runtime.errors import UserError
from runtime.untrusted import is_whole_number
from transfer.checkpoints import (
    build_backbone,
    check_description,
    described_by,
    given_fields,
    network_with_weights,
)

JOINTS = 17
"""Of a person in COCO."""

HEATMAP_STRIDE = 4
"""Pixels of an image in one of its heatmaps, on each side."""

UPSAMPLED_CHANNELS = 256
"""Outputs of the published network's transposed convolutions."""

IMAGE_SIZE = (256, 192)
"""Height and width of the published network's images, in pixels."""

COARSEST_STRIDE = 32
"""The network's images have sides that are multiples of this."""

LARGEST_SIDE = 1 << 13
"""Of the network's images."""

SIZES = {
    "init_channels": (2, 1 << 16),
    "layers": (2, 1000),
    "joints": (1, 1 << 10),
    "upsampled_channels": (1, 1 << 16),
}
"""What a network may have at least and at most; with fewer cells there is no map at stride 32."""

NAMES_OF_ORIGINAL = {
    "backbone.": "backbone.network.",
    "deconv_layers.": "upsampling.",
    "final_layer.": "heatmaps.",
}
"""What parameters' names begin with in the original's repository, and here."""


class KeypointNetwork(nn.Module):
    """Heatmaps of joints in images of one person each.

    Maps float images (N, 3, H, W) to heatmaps (N, joints, H/4, W/4), not bounded, 1 where a joint
    is. Sides that are no multiple of 32 give the heatmaps of the next one that is.

    Args:
        network: its stem and cells are copied (see `Backbone`).
        joints: number of heatmaps.
        upsampled_channels: outputs of the transposed convolutions. In small networks these are most
            of the work.

    Raises:
        ValueError: the network has no map at stride 32.
    """

    def __init__(
        self,
        network: NetworkImageNet,
        joints: int = JOINTS,
        upsampled_channels: int = UPSAMPLED_CHANNELS,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(network, {32: "coarsest"})
        (channels,) = self.backbone.out_channels
        steps: list[nn.Module] = []
        for _ in range(3):
            steps += [
                nn.ConvTranspose2d(channels, upsampled_channels, 4, 2, padding=1, bias=False),
                nn.BatchNorm2d(upsampled_channels),
                nn.ReLU(inplace=True),
            ]
            channels = upsampled_channels
        self.upsampling = nn.Sequential(*steps)
        self.heatmaps = nn.Conv2d(channels, joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.heatmaps(self.upsampling(self.backbone(x)["coarsest"]))


def describe_keypoint_network(
    genotype: Genotype,
    init_channels: int,
    layers: int,
    joints: int = JOINTS,
    upsampled_channels: int = UPSAMPLED_CHANNELS,
    image_size: Sequence[int] = IMAGE_SIZE,
    bgr: bool = False,
) -> dict:
    """All that `build_keypoint_network` and those who test it need, as data for a checkpoint.

    Args:
        image_size: height and width of the images that it is for.
        bgr: it is for images whose channels are blue, green, red (see `data.Loading`).
    """
    return {
        "task": "keypoints",
        "genotype": genotype._asdict(),
        "init_channels": init_channels,
        "layers": layers,
        "joints": joints,
        "upsampled_channels": upsampled_channels,
        "image_size": list(image_size),
        "bgr": bgr,
    }


def check_keypoint_description(description: Mapping) -> None:
    """Check what `describe_keypoint_network` gave, or a checkpoint says.

    Raises:
        ValueError: a field is not what it should be; names it.
    """
    check_description(description, "keypoints", SIZES)
    sides = description.get("image_size")
    if (
        not isinstance(sides, list | tuple)
        or len(sides) != 2
        or not all(is_whole_number(side, COARSEST_STRIDE, LARGEST_SIDE) for side in sides)
        or any(side % COARSEST_STRIDE for side in sides)
    ):
        raise ValueError(
            f"field 'image_size' must be height and width, multiples of {COARSEST_STRIDE} from "
            f"{COARSEST_STRIDE} to {LARGEST_SIDE}"
        )
    if not isinstance(description.get("bgr"), bool):
        raise ValueError("field 'bgr' must be true or false")


def build_keypoint_network(description: Mapping) -> KeypointNetwork:
    """The network that `describe_keypoint_network` described, its weights new."""
    return KeypointNetwork(
        build_backbone(description), description["joints"], description["upsampled_channels"]
    )


def new_keypoint_network(
    genotype: Genotype | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
    joints: int = JOINTS,
) -> KeypointNetwork:
    """A network with new weights: the published one, as far as nothing else is given.

    Raises:
        UserError: it cannot be built; names what is wrong.
    """
    description = _published_description(joints) | given_fields(genotype, init_channels, layers)
    try:
        check_keypoint_description(description)
    except ValueError as error:
        raise UserError(f"network for keypoints: {error}") from None
    return build_keypoint_network(description)


def load_keypoint_network(
    path: str | Path,
    genotype: Genotype | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
) -> tuple[KeypointNetwork, dict]:
    """The network in a checkpoint, in eval mode, and its description.

    What is given goes before what the checkpoint says of itself. A state dict of the original's
    repository says nothing; the published network's cell and sizes are its defaults, and that its
    images are in BGR.

    Raises:
        UserError: the file cannot be read or holds another network; names what differs.
    """
    checkpoint = load_checkpoint(path)
    state = published_state_dict(checkpoint, path)
    bgr = _is_original(state)
    state = rename_original(state)
    output = state.get("heatmaps.weight")
    if output is None or output.dim() != 4:
        raise UserError(
            f"checkpoint {path}: holds no network for keypoints (no heatmaps.weight in it); give "
            "one of transfer/train_keypoints.py, or of the original's repository"
        )
    published = _published_description(*output.shape[:2], bgr)
    given = given_fields(genotype, init_channels, layers)
    description = described_by(checkpoint, published, given)
    try:
        check_keypoint_description(description)
    except ValueError as error:
        raise UserError(f"checkpoint {path}: does not describe a network ({error})") from None
    return network_with_weights(build_keypoint_network, description, state, path), description


def _published_description(
    joints: int, upsampled_channels: int = UPSAMPLED_CHANNELS, bgr: bool = False
) -> dict:
    published = TARGETS["imagenet"]
    return describe_keypoint_network(
        RelativeNAS, published.channels, published.layers, joints, upsampled_channels, bgr=bgr
    )


def rename_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the original's repository under our names; any other as it is."""
    if not _is_original(state):
        return dict(state)
    return {_own_name(name): tensor for name, tensor in state.items()}


def _is_original(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("deconv_layers.") for name in state)


def _own_name(name: str) -> str:
    for theirs, ours in NAMES_OF_ORIGINAL.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
