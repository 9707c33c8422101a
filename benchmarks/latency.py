"""How long do the networks of some genotypes take for an image, or for a batch, on this device?

The networks are built as their training would build them, with new weights, and timed in turn,
round by round, so that what else the machine does meets all of them alike. Time is that of a
forward pass in eval mode, from the images on the device to the logits.
"""

import platform
import sys
import time
from argparse import Namespace
from pathlib import Path

if __name__ == "__main__":  # run as benchmarks/latency.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import numpy as np
import torch
from torch import Tensor, nn

from dataset.image_arguments import add_device_arguments
from genotypes import Genotype, resolve_genotype
from report.sizes import Target
from runtime.arguments import ArgumentParser, positive_int
from runtime.errors import run_script
from runtime.out_of_memory import memory_advice
from runtime.progress_bar import progress_bar
from search.budget import add_target_arguments, chosen_target
from utils import autocast, choose_device, choose_precision


def measure(
    networks: list[nn.Module], images: Tensor, precision: torch.dtype, rounds: int
) -> np.ndarray:
    """Seconds of a forward pass, float64 (networks, rounds).

    Args:
        images: float32 (N, 3, H, W), on the networks' device.
    """
    seconds = np.empty((len(networks), rounds))
    with torch.inference_mode(), autocast(images.device, precision):
        for network in networks:  # the first passes choose kernels and take memory
            for _ in range(3):
                timed(network, images)
        description = f"batches of {len(images)}"
        for number in progress_bar(range(rounds), description, "round"):
            for place, network in enumerate(networks):
                seconds[place, number] = timed(network, images)
    return seconds


def timed(network: nn.Module, images: Tensor) -> float:
    """Seconds that `network` takes for `images`."""
    if images.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    network(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def build(target: Target, genotype: Genotype, device: torch.device) -> nn.Module:
    """The target's network with `genotype`, in eval mode."""
    network = target.network(target.channels, target.num_classes, target.layers, False, genotype)
    return network.eval().to(device, memory_format=torch.channels_last)


def report(genotypes: dict[str, Genotype], target: Target, seconds: dict[int, np.ndarray]) -> list:
    """The measurements as lines of text.

    Args:
        genotypes: by what they were asked for.
        seconds: of `measure`, by images in a batch.
    """
    width = max(len("genotype"), *map(len, genotypes))
    lines = [
        f"{'genotype':{width}} {'params':>8} {'mult-adds':>10} {'batch':>6} {'median':>10} "
        f"{'middle half':>19} {'images/s':>9}"
    ]
    for batch_size, measured in seconds.items():
        for name, own in zip(genotypes, 1000 * measured, strict=True):
            size = target.size(genotypes[name])
            lower, median, upper = np.percentile(own, [25, 50, 75])
            lines.append(
                f"{name:{width}} {size.parameters / 1e6:6.2f} M {size.multiply_adds / 1e6:8.1f} M "
                f"{batch_size:6d} {median:7.2f} ms {lower:8.2f}–{upper:7.2f} ms "
                f"{1000 * batch_size / median:9.1f}"
            )
    return lines


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("genotypes", metavar="GENOTYPE", nargs="+", help="names of genotypes, or genotype files")
    add_target_arguments(parser)
    add(
        "--batch_sizes",
        type=positive_int,
        nargs="+",
        default=[1, 64],
        metavar="IMAGES",
        help="images of a pass",
    )
    add("--rounds", type=positive_int, default=30, help="how often each network is timed")
    add("--threads", type=positive_int, help="of the CPU (default: PyTorch's choice)")
    add_device_arguments(parser)
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="what to compute in")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    device = choose_device(args.device, args.gpu)
    target = chosen_target(args)
    genotypes = {name: resolve_genotype(name, "GENOTYPE") for name in args.genotypes}
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with memory_advice("lower --batch_sizes or --target_image_size"):
        networks = [build(target, genotype, device) for genotype in genotypes.values()]
        seconds = {}
        for batch_size in dict.fromkeys(args.batch_sizes):
            images = torch.randn(batch_size, 3, target.image_size, target.image_size, device=device)
            images = images.contiguous(memory_format=torch.channels_last)
            precision = choose_precision(args.precision, device)
            seconds[batch_size] = measure(networks, images, precision, args.rounds)
    on_gpu = device.type == "cuda"
    machine = platform.processor() or platform.machine()
    name = torch.cuda.get_device_name(device) if on_gpu else machine
    print(
        f"{target}; {name}, {torch.get_num_threads()} CPU threads, {args.precision}, "
        f"{args.rounds} rounds; torch {torch.__version__}"
    )
    print(*report(genotypes, target, seconds), sep="\n")


if __name__ == "__main__":
    run_script(main)
