"""What the network is trained with: the loss on hard pixels, groups of parameters, their rates."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfer.segmentation.network import BiSeNet

IGNORED = 255
"""In label maps: of no class."""

HARD_PROBABILITY = 0.7
"""Pixels whose class the network gives a smaller probability are hard."""

HARD_PART = 16
"""At least one in so many pixels counts as hard."""

WARM_UP_RATE = 1e-5
"""The learning rate at the first step."""

DECAY_POWER = 0.9

NEW_PARTS = ("fusion.", "output.", "output8.", "output16.")
"""What the names of parameters begin with that learn at `NEW_PARTS_FACTOR` times the rate."""

NEW_PARTS_FACTOR = 10.0


def hard_pixel_loss(
    logits: Tensor, labels: Tensor, probability: float = HARD_PROBABILITY, least: int | None = None
) -> Tensor:
    """Mean cross-entropy of the hard pixels (Shrivastava et al., 2016, arXiv:1604.03540).

    Hard are those whose class has less than `probability`, and in any case the `least` with the
    largest losses. Pixels without a class have a loss of 0, and are hard where others are wanting.

    Args:
        logits: (N, classes, H, W).
        labels: integers (N, H, W), a class or `IGNORED`.
        least: number of pixels; None: one in `HARD_PART`, and at least one.

    Returns:
        A scalar, float32.
    """
    losses = F.cross_entropy(
        logits.float(), labels.long(), ignore_index=IGNORED, reduction="none"
    ).flatten()
    if least is None:
        least = max(1, labels.numel() // HARD_PART)
    # Sorted and masked, for choosing by the number of hard ones would wait for the device.
    losses = losses.sort(descending=True).values
    hard = (losses > -math.log(probability)).sum().clamp(min=min(least, len(losses)))
    taken = torch.arange(len(losses), device=losses.device) < hard
    return (losses * taken).sum() / hard


def segmentation_loss(outputs: Iterable[Tensor], labels: Tensor) -> Tensor:
    """The sum of the outputs' losses, each with weight 1.

    Args:
        outputs: logits (N, classes, H, W), the network's three in training.
        labels: integers (N, H, W), a class or `IGNORED`.
    """
    return torch.stack([hard_pixel_loss(logits, labels) for logits in outputs]).sum()


def parameter_groups(
    network: BiSeNet, weight_decay: float, as_published: bool = False
) -> list[dict[str, object]]:
    """The network's parameters in groups for an optimiser.

    A group has `params`; `weight_decay`, 0 for batch norm's; and `rate`, what its learning
    rate is of that of `learning_rate`.

    Args:
        as_published: leave out the backbone's batch norms, which the original never trains.
    """
    norms = {
        f"{name}.{kind}"
        for name, part in network.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
        for kind in ("weight", "bias")
    }
    groups = {
        (factor, decay): {"params": [], "weight_decay": decay, "rate": factor}
        for factor in (1.0, NEW_PARTS_FACTOR)
        for decay in (weight_decay, 0.0)
    }
    for name, parameter in network.named_parameters():
        if as_published and name in norms and name.startswith("backbone."):
            continue
        factor = NEW_PARTS_FACTOR if name.startswith(NEW_PARTS) else 1.0
        groups[factor, 0.0 if name in norms else weight_decay]["params"].append(parameter)
    return list(groups.values())


def learning_rate(step: int, steps: int, rate: float, warm_up_steps: int) -> float:
    """The learning rate of a step: exponential warm-up from 1e-5, then a polynomial decay.

    Args:
        step: from 0.
        steps: of the whole training.
        rate: the largest one.
        warm_up_steps: those before it; the decay goes over the rest.
    """
    if step < warm_up_steps and rate:
        return WARM_UP_RATE * (rate / WARM_UP_RATE) ** (step / warm_up_steps)
    return rate * (1 - (step - warm_up_steps) / (steps - warm_up_steps)) ** DECAY_POWER
