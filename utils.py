"""Small things that all share: devices, precision, meters, sizes, seeds."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from runtime.errors import UserError
from runtime.processes import launched, local_rank


def choose_device(device: str, gpu: int = 0) -> torch.device:
    """The device that `--device auto|cpu|cuda` and a GPU's number stand for.

    Of several processes started together each has the GPU of its number on its machine.

    Raises:
        UserError: CUDA is asked for and there is none, or no GPU of that number.
    """
    available = torch.cuda.is_available()
    if device == "cpu" or (device == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise UserError("--device cuda: PyTorch sees no CUDA GPU here; use --device cpu or auto")
    if launched():
        gpu = local_rank()
        if gpu >= torch.cuda.device_count():
            raise UserError(
                f"process {gpu} of this machine (from 0) has no GPU, for there are "
                f"{torch.cuda.device_count()}; start as many processes, or use --device cpu"
            )
    if not 0 <= gpu < torch.cuda.device_count():
        raise UserError(f"--gpu {gpu}: there are {torch.cuda.device_count()} GPUs, numbered from 0")
    return torch.device("cuda", gpu)


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype that `--precision fp32|bf16|auto` stands for: auto is bf16 on GPUs that have it."""
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        with torch.cuda.device(device):
            has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """A context that computes in `dtype`; with float32 it changes nothing."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`. The host does not wait for a GPU, which copies from pinned memory."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def clip_gradients(parameters: Iterable[nn.Parameter], largest_norm: float) -> None:
    """Scale the gradients down to `largest_norm` (Euclidean, over all of them); 0: not at all."""
    if largest_norm > 0:
        nn.utils.clip_grad_norm_(parameters, largest_norm)


class Meter:
    """Loss and correct predictions over batches, summed on the device without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Count a batch: its mean `loss` (scalar), `logits` (N, classes), `labels` int64 (N,).

        Returns:
            The predicted labels, int64 (N,).
        """
        predicted = logits.topk(min(5, logits.shape[1]), dim=1).indices
        top5 = predicted == labels.view(-1, 1)
        count = torch.full_like(loss, len(labels))
        batch = torch.stack([loss * len(labels), top5[:, 0].sum(), top5.sum(), count])
        self.sums += batch.detach()
        return predicted[:, 0]

    def result(self) -> dict[str, float]:
        """Mean `loss`, `top1` and `top5` accuracy in percent, `count`. Waits for the device."""
        loss, top1, top5, count = self.sums.tolist()
        return {
            "loss": loss / count,
            "top1": 100 * top1 / count,
            "top5": 100 * top5 / count,
            "count": round(count),
        }


def parameter_count(network: nn.Module) -> int:
    """Number of parameters, the auxiliary head left out."""
    return sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if not name.startswith("auxiliary_head.")
    )


def multiply_adds(network: nn.Module, image_size: int | tuple[int, int], channels: int = 3) -> int:
    """Multiply-adds of the convolutions and the classifier for one image in eval mode.

    Args:
        image_size: in pixels; height and width where they differ.
        channels: of the image, or of the feature map that a part of a network reads.
    """
    device = next((parameter.device for parameter in network.parameters()), None)
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    image = torch.zeros(1, channels, height, width, device=device)
    training = network.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(image)
    network.train(training)
    return counter.get_total_flops() // 2


def derive_seed(*place: int) -> int:
    """A 63-bit seed that is a fixed function of `place`, non-negative integers.

    Every piece of work that draws random numbers gets a seed made from the run's seed and its
    place in the run. So a resumed run repeats exactly what the interrupted one would have done,
    and nothing about random generators has to be saved.
    """
    # The length, because SeedSequence takes (1,) and (1, 0) for the same.
    high, low = np.random.SeedSequence((len(place), *place)).generate_state(2).tolist()
    return (high << 32 | low) >> 1


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number in `tensors`, all on one device, is NaN or infinite. Waits for it."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
