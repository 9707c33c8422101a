"""How long a candidate's turn takes in the search, next to the plain way of doing it.

The plain way builds a new supernet for each candidate and loads the weight set into it, feeds it
by a DataLoader with torchvision's transforms and two workers, computes in float32 and the default
layout, waits for the metrics in every step, and keeps the autograd graph while validating. The
other rows are this project's search, whole and with one of its measures changed. All rows train
and validate the same genotypes on the same images, in turns; each turn has a process of its own,
because what an allocator has handed out before shows in the memory of all that comes after.
"""

import gc
import multiprocessing
import os
import platform
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

if __name__ == "__main__":  # run as benchmarks/search_speed.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from dataset.batching import Batching
from dataset.image_arguments import add_device_arguments, add_set_arguments
from dataset.image_batches import ImageBatches
from dataset.image_set import ImageSet, image_statistics, load_image_set, set_augmentation
from genotypes import Genotype
from model_search import Supernet
from runtime.arguments import ArgumentParser, positive_int, seed_number
from runtime.errors import UserError, run_script
from search.candidate import CandidateTrainer, TrainingRecipe
from slow_fast_learning import SlowFastLearning, decode, search_bounds, update_weight_set
from speed.batch_counts import counted_together
from speed.cuda_graphs import CudaGraphs
from speed.depthwise import DepthwiseConv2d
from speed.memory import (
    M_MMAP_MAX,
    M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD,
    keep_freed_memory,
    set_allocator,
)
from utils import autocast, choose_device, choose_precision

PHASES = ("build", "train", "validate", "update")

LOADER_WORKERS = 2

MATRIX_SIZE = {"cpu": 2048, "cuda": 4096}
"""Of the matrix product that the arithmetic is compared with: each keeps its device busy."""

SEARCH_TURNS = 20 * 50
"""Candidates in a search: population times generations."""

RECIPE = TrainingRecipe(
    learning_rate=0.1, momentum=0.9, weight_decay=3e-4, grad_clip=5.0, drop_path_prob=0.15
)


@dataclass(frozen=True)
class Measures:
    """What our search does differently, each of which can be turned off (or on)."""

    shared_supernet: bool = True
    tensor_data: bool = True
    channels_last: bool = True
    depthwise: bool = True
    inference_mode: bool = True
    keep_freed_memory: bool = True
    recompute: bool = False
    bf16: bool = False
    cuda_graphs: bool = False
    cudnn_benchmark: bool = False


@dataclass
class Turn:
    """Seconds of each phase of a candidate's turn, and the largest memory use in bytes."""

    seconds: dict[str, float]
    peak_memory: int

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class Stopwatch:
    """Adds up the seconds of phases; waits for the GPU at both ends of each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._synchronize()
        started = time.perf_counter()
        yield
        self._synchronize()
        self.seconds[name] += time.perf_counter() - started

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class PeakMemory:
    """The largest resident memory of the process (CPU) or allocated memory (CUDA), from now on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


# The plain way.


class Cutout:
    """Sets one square of a normalised image (3, H, W) to zero."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        y, x = torch.randint(height, ()).item(), torch.randint(width, ()).item()
        half = self.length // 2
        image[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0.0
        return image


class PILImages(Dataset):
    """An image set as torchvision's CIFAR-10 hands it out: each image by way of PIL."""

    def __init__(self, image_set: ImageSet, transform: Callable) -> None:
        self.pixels = image_set.images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = image_set.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


class LoadedData:
    """The images of `data` through DataLoaders; in place of `ImageBatches`."""

    def __init__(self, data: ImageBatches) -> None:
        self.batching = data.batching
        self.steps = data.steps
        normalize = [
            transforms.ToTensor(),
            transforms.Normalize(data.statistics.mean, data.statistics.std),
        ]
        augmentation = data.augmentation
        size = data.train_set.images.shape[-1]
        random_transforms = [transforms.RandomCrop(size, padding=augmentation.crop_padding)]
        if augmentation.flip:
            random_transforms.append(transforms.RandomHorizontalFlip())
        cutout = [Cutout(augmentation.cutout_length)] if augmentation.cutout_length else []
        options = {
            "batch_size": data.batching.batch_size,
            "num_workers": LOADER_WORKERS,
            # As in a script of its own (on Linux, before Python 3.14). A spawned process would
            # spawn its workers, too, and each of them import PyTorch at the beginning of each pass.
            "multiprocessing_context": "fork" if LOADER_WORKERS else None,
            "pin_memory": data.batching.device.type == "cuda",
        }
        self.train_loader = DataLoader(
            PILImages(
                data.train_set, transforms.Compose([*random_transforms, *normalize, *cutout])
            ),
            shuffle=True,
            **options,
        )
        self.validation_loader = DataLoader(
            PILImages(data.validation_set, transforms.Compose(normalize)), **options
        )

    def training_batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        torch.manual_seed(seed)
        return self._on_device(self.train_loader)

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._on_device(self.validation_loader)

    def _on_device(self, loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in loader:
            yield (
                images.to(self.batching.device, non_blocking=True),
                labels.to(self.batching.device, non_blocking=True),
            )


def plain_convolutions() -> AbstractContextManager:
    """A context in which depthwise convolutions are PyTorch's own."""
    return mock.patch.object(DepthwiseConv2d, "forward", nn.Conv2d.forward)


def plain_turn(
    genotype: Genotype,
    data: LoadedData,
    weight_set: dict[str, Tensor],
    make_supernet: Callable[[], Supernet],
    watch: Stopwatch,
) -> None:
    """A candidate's turn as a straightforward script does it."""
    with watch.phase("build"):
        supernet = make_supernet()
        supernet.load_state_dict(weight_set)
        supernet.to(data.batching.device)
        supernet.drop_path_prob = RECIPE.drop_path_prob
        arch_info = supernet.arch_info(genotype)
        optimizer = torch.optim.SGD(
            supernet.parameters(),
            RECIPE.learning_rate,
            RECIPE.momentum,
            weight_decay=RECIPE.weight_decay,
        )
    with watch.phase("train"):
        supernet.train()
        total, correct = 0.0, 0
        for images, labels in data.training_batches(seed=0):
            optimizer.zero_grad()
            logits = supernet(images, arch_info)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            nn.utils.clip_grad_norm_(supernet.parameters(), RECIPE.grad_clip)
            optimizer.step()
            total += loss.item() * len(labels)
            correct += (logits.argmax(dim=1) == labels).sum().item()
    with watch.phase("validate"):
        supernet.eval()
        for images, labels in data.validation_batches():
            logits = supernet(images, arch_info)
            loss = F.cross_entropy(logits, labels)
            total += loss.item() * len(labels)
            correct += (logits.argmax(dim=1) == labels).sum().item()
    with watch.phase("update"):
        trained = supernet.state_dict()
        for name in weight_set:
            if (
                "._ops." not in name
                or int(name.split(".")[3]) in arch_info[int(name.split(".")[1])]
            ):
                weight_set[name].copy_(trained[name])


# Our way.


def our_turn(
    genotype: Genotype,
    data: ImageBatches | LoadedData,
    supernet: Supernet,
    make_supernet: Callable[[], Supernet],
    measures: Measures,
    watch: Stopwatch,
) -> None:
    """A candidate's turn as train_search.py takes it, less the measures that are turned off."""
    device = data.batching.device
    with watch.phase("build"):
        if not measures.shared_supernet:
            weight_set = supernet.state_dict()
            supernet = make_supernet()
            supernet.load_state_dict(weight_set)
            supernet.to(device)
        memory_format = torch.channels_last if measures.channels_last else torch.contiguous_format
        supernet.to(memory_format=memory_format)
        supernet.recompute = measures.recompute
        in_layout = supernet.register_forward_pre_hook(
            lambda _, inputs: (inputs[0].contiguous(memory_format=memory_format), *inputs[1:])
        )
    precision = choose_precision("bf16" if measures.bf16 else "fp32", device)
    recorder = CudaGraphs(device) if measures.cuda_graphs else None
    trainer = TimedTrainer(supernet, data, precision, 10**9, recorder, watch)
    torch.backends.cudnn.benchmark = measures.cudnn_benchmark or torch.backends.cudnn.benchmark
    graph = (
        nullcontext()
        if measures.inference_mode
        else mock.patch("torch.inference_mode", nullcontext)
    )
    convolutions = nullcontext() if measures.depthwise else plain_convolutions()
    with graph, convolutions, watch.phase("update"):
        outcome = trainer.take_turn(genotype, RECIPE, seed=0)
        if trainer.recorder is not recorder:  # the log says why
            raise UserError("--rows: CUDA graphs do not work here; leave out the rows with them")
        update_weight_set(supernet.state_dict(), outcome.weights, None)
    # What the turn spent outside training and validation: copies of the weights.
    watch.seconds["update"] -= watch.seconds["train"] + watch.seconds["validate"]
    in_layout.remove()


class TimedTrainer(CandidateTrainer):
    """The search's own trainer, with a stopwatch."""

    def __init__(self, *args: object) -> None:
        *own, self.watch = args
        super().__init__(*own)
        self.graphs_checked = True  # a search checks them once; here all turns are alike

    def train(self, *args: object) -> None:
        with self.watch.phase("train"):
            super().train(*args)

    def validate(self, *args: object) -> tuple[float, float]:
        with self.watch.phase("validate"):
            return super().validate(*args)


def default_allocator() -> None:
    """glibc's defaults, at the values that its adaptive thresholds reach with large tensors."""
    set_allocator({M_MMAP_MAX: 2**16, M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26})


# What is compared.

OURS = Measures()

VARIANTS = {
    "ours": OURS,
    "- shared supernet": replace(OURS, shared_supernet=False),
    "- images as a tensor": replace(OURS, tensor_data=False),
    "- channels last": replace(OURS, channels_last=False),
    "- depthwise gradients": replace(OURS, depthwise=False),
    "- inference mode": replace(OURS, inference_mode=False),
    "- keeping freed memory": replace(OURS, keep_freed_memory=False),
    "with --save_memory": replace(OURS, recompute=True),
    "+ bf16": replace(OURS, bf16=True),
    "+ cuDNN's benchmark mode": replace(OURS, cudnn_benchmark=True),
    "+ CUDA graphs": replace(OURS, cuda_graphs=True),
    "+ bf16, CUDA graphs": replace(OURS, bf16=True, cuda_graphs=True),
}
"""Rows of the table under the plain way: ours, and ours with one measure changed."""


class Comparison:
    """The plain way and ours on the same images, genotypes and first weights."""

    def __init__(self, args: Namespace) -> None:
        self.device = choose_device(args.device, args.gpu)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.data = load_data(args, self.device)
        self.loaded_data = LoadedData(self.data)

        def make_supernet() -> Supernet:
            return Supernet(args.init_channels, self.data.train_set.num_classes, args.layers)

        self.make_supernet = make_supernet
        torch.manual_seed(args.seed)
        self.first_weights = {
            name: tensor.clone()
            for name, tensor in make_supernet().to(self.device).state_dict().items()
        }
        population = SlowFastLearning(*search_bounds(), 2 * args.genotypes, args.seed)
        self.genotypes = [decode(vector) for vector in population.positions[: args.genotypes]]

    def take_turn(self, measures: Measures | None, genotype: Genotype) -> Turn:
        """A turn of our search, or of the plain way if `measures` is None."""
        weight_set = {name: tensor.clone() for name, tensor in self.first_weights.items()}
        watch = Stopwatch(self.device)
        gc.collect()
        if measures is None:
            default_allocator()
            peak = PeakMemory(self.device)
            with plain_convolutions():
                plain_turn(genotype, self.loaded_data, weight_set, self.make_supernet, watch)
        else:
            supernet = self.make_supernet().to(self.device)
            supernet.load_state_dict(weight_set)
            keep_freed_memory() if measures.keep_freed_memory else default_allocator()
            peak = PeakMemory(self.device)
            data = self.data if measures.tensor_data else self.loaded_data
            our_turn(genotype, data, supernet, self.make_supernet, measures, watch)
        return Turn(watch.seconds, peak.bytes())


def measure_turn(args: Namespace, row: str, genotype: int) -> Turn:
    """A turn, after a shorter one that warms up what is built once (kernels, thread pools)."""
    measures = None if row == "plain" else VARIANTS[row]
    short = Comparison(Namespace(**{**vars(args), "images": min(args.batch_size, args.images)}))
    short.take_turn(measures, short.genotypes[genotype])
    comparison = Comparison(args)
    return comparison.take_turn(measures, comparison.genotypes[genotype])


def load_data(args: Namespace, device: torch.device) -> ImageBatches:
    """`--images` images to train and as many others to validate on."""
    images = (
        made_images(2 * args.images, args.seed)
        if args.made_images
        else load_image_set(args.set, args.data, "train", args.image_size)
    )
    if len(images) < 2 * args.images:
        raise UserError(
            f"--images {args.images}: twice as many are needed; there are {len(images)}"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed))
    size = images.images.shape[-1]
    kept = images.to(device)
    return ImageBatches(
        train_set=kept.subset(order[: args.images]),
        validation_set=kept.subset(order[args.images : 2 * args.images]),
        augmentation=set_augmentation(args.set, size, cutout=True),
        statistics=image_statistics(args.set, images),
        batching=Batching(args.batch_size, device),
    )


def made_images(count: int, seed: int) -> ImageSet:
    """Random images of CIFAR-10's form, for speed does not depend on what is in them."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.randint(10, (count,), generator=generator), 10)


# The hardware's limits.


class Traffic(TorchDispatchMode):
    """Counts operations, and adds up the bytes of all tensors that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: tuple[type, ...],
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operations += 1
            for value in torch.utils._pytree.tree_leaves((args, kwargs, result)):
                if isinstance(value, Tensor):
                    self.bytes += value.nbytes
        return result


def print_limits(comparison: Comparison, seconds_training: float, dtype: torch.dtype) -> None:
    """Compare the training of a candidate with what the device could do at best in `dtype`."""
    device = comparison.device
    supernet = comparison.make_supernet().to(device, memory_format=torch.channels_last)
    arch_info = supernet.arch_info(comparison.genotypes[0])
    images, labels = next(iter(comparison.data.training_batches(seed=0)))
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        supernet(images, arch_info)
    supernet.drop_path_prob = RECIPE.drop_path_prob
    with Traffic() as traffic, counted_together(supernet.batch_norms(arch_info)):
        with autocast(device, dtype):
            loss = F.cross_entropy(supernet(images, arch_info), labels)
        loss.backward()
    with Traffic() as validation, torch.inference_mode(), autocast(device, dtype):
        supernet.eval()(images, arch_info)
    steps = len(comparison.data.train_set) / len(images)
    multiply_adds = 3 * steps * flops.get_total_flops() / 2
    size = MATRIX_SIZE[device.type]
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    matrix_rate = 2 * size**3 / median_seconds(lambda: matrix @ matrix, device)
    block = torch.empty(2**28, dtype=torch.uint8, device=device)
    copy = torch.zeros_like(block)
    bandwidth = 2 * block.nbytes / median_seconds(lambda: copy.copy_(block), device)
    compute = 2 * multiply_adds / matrix_rate
    moved = steps * traffic.bytes
    memory = moved / bandwidth
    print(
        f"\nThe hardware's limit for training the first genotype in {str(dtype)[6:]}:\n"
        f"  arithmetic: {multiply_adds / 1e9:.1f} G multiply-adds at the "
        f"{matrix_rate / 1e9:.0f} GFLOP/s of a matrix product: {compute:.2f} s\n"
        f"  memory: {moved / 2**30:.1f} GiB read and written by the operations at the "
        f"{bandwidth / 2**30:.1f} GiB/s of a copy: {memory:.2f} s\n"
        f"  launches: {traffic.operations} operations a training step before the optimizer's, "
        f"{validation.operations} a validation step\n"
        f"  ours: {seconds_training:.2f} s, {seconds_training / max(compute, memory):.1f} times "
        "the larger of the two times (less than once: what is read again is still in a cache)"
    )


def print_whole_search(turns: dict[str, list[Turn]]) -> None:
    """How long the published search takes at the speed of each row's turns."""
    print(f"\nThe published search, {SEARCH_TURNS:,} such turns:")
    for name, own in turns.items():
        minutes = SEARCH_TURNS * statistics.median(turn.total for turn in own) / 60
        print(f"  {name:26}{minutes:10.1f} min")


def median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median over five runs, after one that is not counted."""
    seconds = []
    for _ in range(6):
        watch = Stopwatch(device)
        with watch.phase("train"):
            work()
        seconds.append(watch.seconds["train"])
    return statistics.median(seconds[1:])


# The table.


def hardware_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":")[1].strip()
    return f"{os.cpu_count()} cores of {name}"


def print_table(turns: dict[str, list[Turn]], images: int) -> None:
    """A row for each way of doing it: medians over its turns, and how the plain way compares."""
    plain = turns["plain"]
    heads = (*PHASES, "turn", "images/s", "peak MiB", "faster", "smaller")
    print(f"{'seconds':26}" + "".join(f"{head:>10}" for head in heads))
    for name, own in turns.items():
        cells = [
            f"{statistics.median(turn.seconds[phase] for turn in own):.2f}" for phase in PHASES
        ]
        total = statistics.median(turn.total for turn in own)
        cells += [f"{total:.2f}", f"{2 * images / total:.0f}"]
        cells += [f"{max(turn.peak_memory for turn in own) / 2**20:.0f}"]
        cells += [
            f"{statistics.median(p.total / o.total for p, o in zip(plain, own, strict=True)):.2f}x"
        ]
        cells += [f"{max(t.peak_memory for t in plain) / max(t.peak_memory for t in own):.2f}x"]
        print(f"{name:26}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add_set_arguments(parser)
    add("--images", type=positive_int, default=1024, help="to train on, and as many to validate on")
    add("--batch_size", type=positive_int, default=256, help="images of a step")
    add("--init_channels", type=positive_int, default=16, help="channels of the first cells")
    add("--layers", type=positive_int, default=8, help="number of cells")
    add("--made_images", action="store_true", help="random images of 32×32, in place of --set")
    add("--genotypes", type=positive_int, default=3, help="random candidates")
    add(
        "--rows",
        nargs="+",
        choices=VARIANTS,
        help="rows beside the plain way (default: all that the device can)",
    )
    add("--seed", type=seed_number, default=7, help="of all random numbers")
    add_device_arguments(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    comparison = Comparison(args)
    can = [
        name
        for name, measures in VARIANTS.items()
        if comparison.device.type == "cuda"
        or not (measures.cuda_graphs or measures.cudnn_benchmark)
    ]
    rows = ["plain", *(args.rows or can)]
    if impossible := set(rows[1:]).difference(can):
        raise UserError(f"--rows: {impossible.pop()!r} needs a CUDA GPU; leave it out on the CPU")
    kind = "32×32 (made)" if args.made_images else args.set
    print(
        f"{hardware_name(comparison.device)}, PyTorch {torch.__version__}\n"
        f"{args.images} + {args.images} images of {kind}, {args.init_channels} channels, "
        f"{args.layers} cells, batch {args.batch_size}, {args.genotypes} genotypes"
    )
    turns: dict[str, list[Turn]] = {name: [] for name in rows}
    spawn = multiprocessing.get_context("spawn")
    for number in range(args.genotypes):
        # Every genotype begins with another row, so that no row always follows the same one.
        first = number * len(rows) // args.genotypes
        for name in [*rows, *rows][first : first + len(rows)]:
            with ProcessPoolExecutor(1, spawn) as process:
                turns[name].append(process.submit(measure_turn, args, name, number).result())
            print(f"{name}: {turns[name][-1].total:.2f} s", file=sys.stderr, flush=True)
    print_table(turns, args.images)
    print_whole_search(turns)
    fastest = {name: own for name, own in turns.items() if name != "plain"}
    for dtype, bf16 in ((torch.float32, False), (torch.bfloat16, True)):
        seconds = [
            own[0].seconds["train"] for name, own in fastest.items() if VARIANTS[name].bf16 == bf16
        ]
        if seconds:
            print_limits(comparison, min(seconds), dtype)


if __name__ == "__main__":
    run_script(main)
