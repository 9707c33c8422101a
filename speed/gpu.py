"""Settings of PyTorch for the GPU that a process computes on."""

import torch


def set_up_gpu(device: torch.device) -> None:
    """Make `device` this process's GPU, with convolutions in full float32 where float32 is asked.

    PyTorch's default there is TF32, of 10 bits of mantissa. GPUs that have it have bf16, which
    `--precision auto` takes: who asks for float32 asks for its digits.

    cuDNN measures its algorithms for each new shape, for a run's shapes are few and come back.
    """
    torch.cuda.set_device(device)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
