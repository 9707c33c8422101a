"""Training from scratch as the papers tell it, with nothing of the project: a reference."""

import torch
from torch import Tensor, nn


def smoothed_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with a part `smoothing` of each label spread over all classes."""
    classes = logits.shape[1]
    targets = torch.full_like(logits, smoothing / classes)
    targets[torch.arange(len(labels)), labels] += 1 - smoothing
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


def gradients_of(
    network: nn.Module, images: Tensor, labels: Tensor, weight: float, smoothing: float
) -> list[Tensor | None]:
    """Of the main loss and `weight` times the auxiliary head's; None where there is no part."""
    logits, logits_aux = network(images)
    loss = smoothed_loss(logits, labels, smoothing)
    if logits_aux is not None:
        loss = loss + weight * smoothed_loss(logits_aux, labels, smoothing)
    return torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)


class PlainSGD:
    """Gradient clipping, then SGD with momentum and weight decay."""

    def __init__(self, network: nn.Module, clip: float, momentum: float, decay: float) -> None:
        self.parameters = list(network.parameters())
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.clip, self.momentum, self.decay = clip, momentum, decay

    @torch.no_grad()
    def step(self, gradients: list[Tensor | None], learning_rate: float) -> None:
        used = [gradient for gradient in gradients if gradient is not None]
        norm = torch.cat([gradient.flatten() for gradient in used]).norm()
        scale = min(1.0, self.clip / norm.item())
        for parameter, velocity, gradient in zip(
            self.parameters, self.velocities, gradients, strict=True
        ):
            if gradient is not None:
                velocity.mul_(self.momentum).add_(scale * gradient + self.decay * parameter)
                parameter -= learning_rate * velocity
