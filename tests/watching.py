"""What a network and the optimizer saw of a search, and images that can be told apart."""

from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook


def numbered_images(count, size=8):
    """Random images; the third channel of each is its number and one all over."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, size, size), generator=generator)
    images[:, 2] = torch.arange(1, count + 1).view(-1, 1, 1)
    return images.to(torch.uint8)


def numbers_in(images, mean, std):
    """Which of `numbered_images` a batch has; `mean` and `std` are those of the third channel."""
    return ((images[:, 2].amax(dim=(1, 2)) * std + mean) * 255 - 1).round().int().tolist()


@contextmanager
def watched(network):
    """What the network saw in each forward pass, and what the optimizer was in each step."""
    log = SimpleNamespace(forwards=[], steps=[], dtypes=set())

    def on_forward(module, inputs):
        drop_path_prob = module.drop_path_prob if module.training else None
        log.forwards.append((module.training, drop_path_prob, inputs[0].clone()))

    def on_step(optimizer, *_):
        (group,) = optimizer.param_groups
        gradients = [p.grad for p in group["params"] if p.grad is not None]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        is_fresh = not optimizer.state
        log.steps.append(SimpleNamespace(**group, norm=norm, is_fresh=is_fresh))

    handles = [
        network.register_forward_pre_hook(on_forward),
        register_optimizer_step_pre_hook(on_step),
    ]
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hook = module.register_forward_hook(lambda _, __, x: log.dtypes.add(x.dtype))
            handles.append(hook)
    yield log
    for handle in handles:
        handle.remove()
