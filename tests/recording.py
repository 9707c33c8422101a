"""What a script does to its network, seen from PyTorch's side by hooks on all modules."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from model import NetworkCIFAR, NetworkImageNet


@dataclass
class Forward:
    """A forward pass of a network.

    Attributes:
        training: the mode of all its modules; a set, for they should not differ.
        dtypes: of what its convolutions gave out.
        seed: what PyTorch's generator was last seeded with.
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
    """A step of the optimizer, as it was about to be taken."""

    group: dict
    gradient_norm: float


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


@contextmanager
def recorded() -> Iterator[Record]:
    """Record all networks and optimizers within the block."""
    record = Record()
    dtypes: set[torch.dtype] = set()

    def after_forward(module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(module, nn.Conv2d):
            dtypes.add(output.dtype)
        if isinstance(module, NetworkCIFAR | NetworkImageNet):
            modes = {part.training for part in module.modules()}
            logits, logits_aux = output
            forward = Forward(
                module, modes, set(dtypes), module.drop_path_prob, torch.initial_seed(),
                inputs[0], logits.detach(), logits_aux,
            )  # fmt: skip
            record.forwards.append(forward)
            dtypes.clear()

    def before_step(optimizer: Optimizer, *_: object) -> None:
        (group,) = optimizer.param_groups
        gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        record.steps.append(Step(dict(group), norm.item()))

    handles = [
        register_module_forward_hook(after_forward),
        register_optimizer_step_pre_hook(before_step),
    ]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()
