"""What a network saw and what its optimizer did, by hooks on all modules; images to tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from model import NetworkCIFAR, NetworkImageNet
from model_search import Supernet


@dataclass
class Forward:
    """A forward pass of a network.

    Attributes:
        training: the mode of all its modules; a set, for they should not differ.
        dtypes: of what its convolutions gave out.
        seed: what PyTorch's generator was last seeded with.
        logits_aux: None also of a supernet, which has no auxiliary head.
    """

    network: nn.Module
    training: set[bool]
    dtypes: set[torch.dtype]
    drop_path_prob: float
    seed: int
    images: Tensor
    logits: Tensor
    logits_aux: Tensor | None


@dataclass
class Step:
    """A step of the optimizer, as it was about to be taken.

    Attributes:
        group: of parameters, with the numbers that the optimizer has for them.
        gradient_norm: over all of them.
        is_first: whether the optimizer has not taken one before.
    """

    group: dict
    gradient_norm: float
    is_first: bool


@dataclass
class Record:
    """Forward passes and steps of the optimizer, in order."""

    forwards: list[Forward] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def training(self) -> list[Forward]:
        return [forward for forward in self.forwards if True in forward.training]

    @property
    def evaluation(self) -> list[Forward]:
        return [forward for forward in self.forwards if False in forward.training]

    @property
    def dtypes(self) -> set[torch.dtype]:
        return {dtype for forward in self.forwards for dtype in forward.dtypes}


@contextmanager
def recorded() -> Iterator[Record]:
    """Record all networks and optimizers within the block."""
    record = Record()
    dtypes: set[torch.dtype] = set()

    def after_forward(module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(module, nn.Conv2d):
            dtypes.add(output.dtype)
        if isinstance(module, NetworkCIFAR | NetworkImageNet | Supernet):
            modes = {part.training for part in module.modules()}
            logits, logits_aux = (output, None) if isinstance(module, Supernet) else output
            forward = Forward(
                module, modes, set(dtypes), module.drop_path_prob, torch.initial_seed(),
                inputs[0].clone(), logits.detach(), logits_aux,
            )  # fmt: skip
            record.forwards.append(forward)
            dtypes.clear()

    def before_step(optimizer: Optimizer, *_: object) -> None:
        (group,) = optimizer.param_groups
        gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        record.steps.append(Step(dict(group), norm.item(), not optimizer.state))

    handles = [
        register_module_forward_hook(after_forward),
        register_optimizer_step_pre_hook(before_step),
    ]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def numbered_images(count: int, size: int = 8) -> Tensor:
    """Random images; the third channel of each is its number and one all over."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, size, size), generator=generator)
    images[:, 2] = torch.arange(1, count + 1).view(-1, 1, 1)
    return images.to(torch.uint8)


def numbers_in(images: Tensor, mean: float, std: float) -> list[int]:
    """Which of `numbered_images` a batch has; `mean` and `std` are those of the third channel."""
    return ((images[:, 2].amax(dim=(1, 2)) * std + mean) * 255 - 1).round().int().tolist()


def images_of(forwards: list[Forward]) -> Tensor:
    """The images of several forward passes, one after the other."""
    return torch.cat([forward.images for forward in forwards])
