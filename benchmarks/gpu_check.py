"""Does everything work on this GPU, and how fast? One page of Markdown tells.

Every check ends in ok, failed (and how) or not possible here (and why); one that fails does not end
the others. On the CPU the same checks run in small, where they can.
"""

import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import time
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

if __name__ == "__main__":  # run as benchmarks/gpu_check.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from dataset.augmentation import Augmentation
from dataset.batching import Batching
from dataset.image_arguments import add_device_arguments
from dataset.image_batches import ImageBatches
from dataset.image_set import ImageSet, Statistics
from genotypes import DARTS_V2, Genotype, RelativeNAS
from model_search import Supernet
from runtime.arguments import ArgumentParser, expanded_path
from runtime.errors import UserError, run_script
from search.candidate import GIVEN_UP, CandidateTrainer, TrainingRecipe
from speed.cuda_graphs import CudaGraphs
from utils import choose_device

ROOT = Path(__file__).resolve().parent.parent

RECIPE = TrainingRecipe(
    learning_rate=0.01, momentum=0.9, weight_decay=3e-4, grad_clip=5.0, drop_path_prob=0.0
)

GENOTYPES = {"RelativeNAS": RelativeNAS, "DARTS_V2": DARTS_V2}

TIME_LIMIT = 300
"""Seconds that a script may take."""


class Failed(Exception):
    """A check has failed; the text says how."""


class NotPossible(Exception):
    """A check cannot be made here; the text says why."""


@dataclass
class Setting:
    """What all checks are made with.

    Attributes:
        small: networks and images so small that a CPU is done in seconds.
        folder: takes all that the checks leave behind.
        failed: names of the checks that have failed so far.
    """

    device: torch.device
    small: bool
    folder: Path
    failed: list[str] = field(default_factory=list)

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def device_flags(self) -> list[str]:
        """Of train_search.py, test.py and benchmarks."""
        flags = ["--device", self.device.type]
        return [*flags, "--gpu", str(self.device.index)] if self.is_gpu else flags

    def make_supernet(self) -> Supernet:
        """On the CPU, the same whenever it is made."""
        torch.manual_seed(0)
        return Supernet(2, 10, 3) if self.small else Supernet(16, 10, 8)

    def make_batches(self, batch_size: int, steps: int) -> ImageBatches:
        """`steps` batches to train on and as many to validate on, of random images."""
        size, count = 8 if self.small else 32, batch_size * steps
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (2 * count, 3, size, size), generator=generator)
        labels = torch.randint(10, (2 * count,), generator=generator)
        images = ImageSet(pixels.to(torch.uint8), labels, 10).to(self.device)
        return ImageBatches(
            images.subset(torch.arange(count)),
            images.subset(torch.arange(count, 2 * count)),
            Augmentation(size // 8, True, size // 2),
            Statistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            Batching(batch_size, self.device),
        )

    def command(self, script: str, *arguments: object) -> list[str]:
        return [sys.executable, script, *map(str, arguments)]

    def environment(self, **more: str) -> dict[str, str]:
        """Without a GPU to see if the CPU is meant."""
        hidden = {} if self.is_gpu else {"CUDA_VISIBLE_DEVICES": ""}
        return {**os.environ, **hidden, **more}

    def run(self, script: str, *arguments: object, **environment: str) -> str:
        """What a script of this project prints.

        Raises:
            Failed: it did not end well.
        """
        command = self.command(script, *arguments)
        try:
            finished = subprocess.run(
                command, cwd=ROOT, env=self.environment(**environment), capture_output=True,
                text=True, timeout=TIME_LIMIT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failed(f"{shlex.join(command)}: not done in {TIME_LIMIT} s") from None
        if finished.returncode:
            lines = (finished.stderr.strip() or finished.stdout.strip()).splitlines()
            reason = lines[-1] if lines else "and no word"
            raise Failed(f"{shlex.join(command)}: status {finished.returncode}, {reason}")
        return finished.stdout


# The checks. Each returns what the page says of it, in Markdown.


def hardware(setting: Setting) -> str:
    """The hardware, and the versions of what runs on it."""
    facts = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "torchvision": torchvision.__version__,
        "NumPy": np.__version__,
    }
    if setting.is_gpu:
        properties = torch.cuda.get_device_properties(setting.device)
        facts |= {
            "GPU": properties.name,
            "memory": f"{properties.total_memory / 2**30:.1f} GiB",
            "compute capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "CUDA": torch.version.cuda or torch.version.hip,
            "cuDNN": torch.backends.cudnn.version(),
            "GPUs": torch.cuda.device_count(),
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        }
    return table(("what", "which"), facts.items())


def cpu_and_gpu(setting: Setting) -> str:
    """A candidate trained from the same weights on the same batches, by the CPU and by the GPU."""
    rows, problems = [], []
    # Differences of float32 grow from step to step; those of float64 stay small.
    for dtype, allowed in ((torch.float64, 1e-6), (torch.float32, 1e-2)):
        for name, genotype in GENOTYPES.items():
            batches = FixedBatches(setting.make_batches(16, 3), dtype)
            before, own = trained(setting, genotype, batches.to(torch.device("cpu")))
            _, other = trained(setting, genotype, batches.to(setting.device))
            differences = {
                tensor: relative_difference(before[tensor], own[tensor], other[tensor])
                for tensor in before
            }
            worst = sorted(differences, key=differences.get, reverse=True)
            median = statistics.median(differences.values())
            rows.append(
                (name, str(dtype)[6:], len(differences), f"{median:.1e}",
                 f"{differences[worst[0]]:.1e} ({worst[0]})", f"{allowed:.0e}")
            )  # fmt: skip
            if not differences[worst[0]] <= allowed:
                problems.append(f"{name} in {str(dtype)[6:]}: {worst[:5]}")
    head = ("cell", "dtype", "tensors", "median difference", "largest", "allowed")
    page = table(head, rows) + "\n\nDifferences are parts of what a tensor has learned."
    if problems:
        raise Failed(f"{'; '.join(problems)} differ\n\n{page}")
    return page


class FixedBatches:
    """Batches that are the same on every device (see `Batches`)."""

    def __init__(self, batches: ImageBatches, dtype: torch.dtype) -> None:
        self.training = [(x.to(dtype), y) for x, y in batches.training_batches(seed=0)]
        self.validation = [(x.to(dtype), y) for x, y in batches.validation_batches()]
        self.dtype = dtype
        self.steps = len(self.training)

    def to(self, device: torch.device) -> "FixedBatches":
        """Move all batches."""
        self.training = [(x.to(device), y.to(device)) for x, y in self.training]
        self.validation = [(x.to(device), y.to(device)) for x, y in self.validation]
        return self

    def training_batches(self, seed: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.training[first_step:])

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.validation)


def trained(
    setting: Setting, genotype: Genotype, batches: FixedBatches
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A candidate's tensors before and after its training, on the CPU, and the loss among them."""
    device = batches.training[0][0].device
    supernet = setting.make_supernet().to(batches.dtype)
    supernet.to(device, memory_format=torch.channels_last)
    trainer = CandidateTrainer(supernet, batches, torch.float32, sys.maxsize)
    tensors = supernet.active_tensors(supernet.arch_info(genotype))

    def now() -> dict[str, Tensor]:
        loss = torch.tensor(trainer.validate(genotype)[0])
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        return copies | {"validation loss": loss}

    with full_float32():
        before = now()
        trainer.train(genotype, RECIPE, seed=0)
        return before, now()


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in convolutions, so that the CPU and the GPU round alike."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def relative_difference(before: Tensor, first: Tensor, second: Tensor) -> float:
    """How far two results are apart, as a part of what the first has learned."""
    before, first, second = before.double(), first.double(), second.double()
    return ((second - first).norm() / (first - before).norm().clamp(min=1e-12)).item()


def graphs_and_eager(setting: Setting) -> str:
    """Steps replayed as CUDA graphs next to the same steps launched one by one."""
    if not setting.is_gpu:
        raise NotPossible("CUDA graphs need a GPU")
    rows = []
    for precision in (torch.float32, torch.bfloat16):
        supernet = setting.make_supernet()
        supernet.to(setting.device, memory_format=torch.channels_last)
        data = setting.make_batches(16 if setting.small else 256, 8)
        plain, graphed = (
            CandidateTrainer(supernet, data, precision, sys.maxsize, recorder)
            for recorder in (None, CudaGraphs(setting.device))
        )
        for name, genotype in {**GENOTYPES, "RelativeNAS again": RelativeNAS}.items():
            graphed.graphs_checked = False
            graphed.check_graphs(genotype, RECIPE, seed=0)
            outcomes = [t.take_turn(genotype, RECIPE, seed=0) for t in (plain, graphed)]
            if graphed.recorder is None:
                raise Failed(f"{name} in {precision}: given up in a turn; the log says why")
            rows.append(
                (name, str(precision)[6:], *(f"{o.loss:.6f}" for o in outcomes),
                 *(f"{1000 * o.seconds:.0f}" for o in outcomes), f"{reserved(setting):.0f}")
            )  # fmt: skip
    head = (
        "cell", "dtype", "loss", "with graphs", "ms a turn of 8 steps", "with graphs", "MiB kept"
    )  # fmt: skip
    return table(head, rows)


def reserved(setting: Setting) -> float:
    """MiB that PyTorch's allocator keeps of the GPU."""
    return torch.cuda.memory_reserved(setting.device) / 2**20


def search_to_export(setting: Setting) -> str:
    """A search on the digits, killed and resumed; its cell trained, tested and exported."""
    flags = ["--set", "digits", "--no-cutout", *sizes(setting)]
    expected = 2 if setting.small else 4
    search = [*flags, *setting.device_flags, "--pop_size", expected, "--epochs", 2]
    runs = setting.folder / "digits"
    folder = killed_search(setting, [*search, "--save", runs / "search"], runs)
    begun = len((folder / "history.jsonl").read_text().splitlines())
    setting.run("train_search.py", "--resume", folder, *setting.device_flags)
    pairs = len((folder / "history.jsonl").read_text().splitlines())
    if pairs != expected:
        raise Failed(f"the resumed search's history has {pairs} pairs, not {expected}")
    check_graphs_kept(folder)
    if setting.is_gpu:
        segments = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
        again = setting.folder / "segments"
        setting.run("train_search.py", *search, "--save", again / "search", **segments)
        check_graphs_kept(*again.iterdir())
    trained_folder = train(setting, folder / "genotype.json", runs / "train")
    model = trained_folder / "best.pt"
    tested = setting.run("test.py", "--model_path", model, *setting.device_flags)
    exported = setting.folder / "digits.pt2"
    wrote = setting.run(
        "export.py", "--model_path", model, "--format", "torch_export", "--output", exported
    )
    return (
        f"Killed after {begun} of {pairs} pairs, resumed, trained from scratch for one epoch.\n\n"
        + text_block(*tested.strip().splitlines(), *wrote.strip().splitlines())
    )


def sizes(setting: Setting) -> list[object]:
    """Flags of networks for the digits."""
    layers, channels, batch = (3, 2, 128) if setting.small else (5, 8, 64)
    return ["--layers", layers, "--init_channels", channels, "--batch_size", batch]


def killed_search(setting: Setting, arguments: list[object], runs: Path) -> Path:
    """The run folder of a search that was killed after its first pair."""
    process = subprocess.Popen(
        setting.command("train_search.py", *arguments), cwd=ROOT, env=setting.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + TIME_LIMIT
    try:
        while not any(path.stat().st_size for path in runs.glob("*/history.jsonl")):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise Failed(f"a search did not get to its first pair: {process.communicate()[0]}")
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (folder,) = runs.iterdir()
    return folder


def check_graphs_kept(folder: Path) -> None:
    """See to it that the search in a run folder has not given up CUDA graphs."""
    for line in (folder / "log.txt").read_text().splitlines():
        if GIVEN_UP % "" in line:
            raise Failed(line)


def train(setting: Setting, arch: object, save: Path, gpus: str | None = None) -> Path:
    """Train on the digits for an epoch; returns the run folder."""
    setting.run(
        "train.py", "--set", "digits", "--no-cutout", "--arch", arch, *sizes(setting), "--epochs",
        1, "--save", save, *gpu_flags(setting, gpus),
    )  # fmt: skip
    (folder,) = save.parent.glob(f"train-{save.name}-*")
    return folder


def gpu_flags(setting: Setting, gpus: str | None = None) -> list[str]:
    """Of train.py and train_imagenet.py."""
    return ["--gpus", gpus or str(setting.device.index)] if setting.is_gpu else []


def one_process(setting: Setting) -> str:
    """train.py and train_imagenet.py for an epoch, in one process."""
    return training_scripts(setting, None)


def two_gpus(setting: Setting) -> str:
    """train.py and train_imagenet.py for an epoch, on two GPUs."""
    if not setting.is_gpu or torch.cuda.device_count() < 2:
        raise NotPossible("there are no two GPUs")
    return training_scripts(setting, "0,1")


def training_scripts(setting: Setting, gpus: str | None) -> str:
    """How long an epoch of both scripts takes, with all that is around it."""
    name = "two" if gpus else "one"
    images = setting.folder / "images"
    if not images.exists():
        write_images(images, 4 if setting.small else 64)
    seconds = {}
    started = time.monotonic()
    train(setting, "RelativeNAS", setting.folder / name / "digits", gpus)
    seconds["train.py"] = time.monotonic() - started
    started = time.monotonic()
    shape = [32, 3, 2, 4] if setting.small else [224, 14, 46, 64]
    names = ("--image_size", "--layers", "--init_channels", "--batch_size")
    flags = [word for pair in zip(names, shape, strict=True) for word in pair]
    setting.run(
        "train_imagenet.py", "--data_path", images, *flags, "--epochs", 1, "--final_epochs", 0,
        "--warmup_epochs", 0, "--save", setting.folder / name / "imagenet",
        *gpu_flags(setting, gpus), *(["--workers", 0] if setting.small else []),
    )  # fmt: skip
    seconds["train_imagenet.py"] = time.monotonic() - started
    rows = [(script, f"{s:.1f}") for script, s in seconds.items()]
    return table(("script", "seconds, start and end included"), rows)


def write_images(folder: Path, count: int) -> None:
    """JPEGs of two classes, `count` of each in each split."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (64, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.JPEG")


def speed(setting: Setting) -> str:
    """A candidate's turn at the published setting: the plain way, ours, without each measure."""
    if setting.small:
        flags = ["--images", 16, "--batch_size", 8, "--layers", 3, "--init_channels", 2]
    else:
        flags = ["--images", 25000]
    rows = ["ours"]
    if setting.is_gpu:
        rows += [
            "- shared supernet", "- images as a tensor", "- channels last", "- inference mode",
            "with --save_memory", "+ bf16", "+ cuDNN's benchmark mode",
        ]  # fmt: skip
        if "graphs" not in setting.failed:
            rows += ["+ CUDA graphs", "+ bf16, CUDA graphs"]
    output = setting.run(
        "benchmarks/search_speed.py", "--made_images", *flags, "--genotypes", 1, "--rows", *rows,
        *setting.device_flags,
    )  # fmt: skip
    return text_block(output.strip())


CHECKS: dict[str, Callable[[Setting], str]] = {
    "hardware": hardware,
    "devices": cpu_and_gpu,
    "graphs": graphs_and_eager,
    "search": search_to_export,
    "training": one_process,
    "two_gpus": two_gpus,
    "speed": speed,
}


# The page.


def table(head: tuple[str, ...], rows: object) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def text_block(*lines: str) -> str:
    """Lines as they are, in Markdown."""
    return "\n".join(("```text", *lines, "```"))


def check(setting: Setting, name: str) -> tuple[str, str]:
    """Whether a check is ok, and the page's section about it."""
    started = time.monotonic()
    result, text = "ok", ""
    try:
        text = CHECKS[name](setting)
    except NotPossible as reason:
        result = f"not possible here: {reason}"
    except Failed as reason:
        how, _, text = str(reason).partition("\n")
        result = f"failed: {how}"
    except Exception as error:  # whatever it is, the other checks are to be made
        reason = (str(error).strip().splitlines() or [""])[0]
        result = f"failed: {type(error).__name__}: {reason}"
    if result.startswith("failed"):
        setting.failed.append(name)
    title = " ".join(CHECKS[name].__doc__.split()).removesuffix(".")
    seconds = time.monotonic() - started
    return result, f"## {title}\n\n**{result}** ({seconds:.0f} s)\n\n{text.strip()}\n"


def make_page(setting: Setting, names: list[str]) -> Iterator[str]:
    """The page so far, after each check."""
    results, sections = [], []
    for name in names:
        result, section = check(setting, name)
        results.append((name, result))
        sections.append(section)
        size = "in small" if setting.small else "in full"
        yield "\n".join(
            (
                f"# Checks on {setting.device}, {size}, {datetime.now():%Y-%m-%d %H:%M}\n",
                table(("check", "result"), results) + "\n",
                *sections,
            )
        )


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add_device_arguments(parser)
    add("--small", action=BooleanOptionalAction, help="tiny networks (default: on the CPU)")
    add("--only", nargs="+", choices=CHECKS, help="these checks (default: all)")
    add(
        "--save",
        type=expanded_path,
        default="runs/gpu_check",
        help="PATH/NAME: the folder is PATH/NAME-DATE-TIME",
    )
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    device = choose_device(args.device, args.gpu)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    folder = Path(f"{args.save}-{datetime.now():%Y%m%d-%H%M%S}").absolute()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--save {args.save}: {error.strerror} ({folder})") from None
    small = device.type == "cpu" if args.small is None else args.small
    setting = Setting(device, small, folder)
    path = folder / "page.md"
    for page in make_page(setting, args.only or list(CHECKS)):
        path.write_text(page, encoding="utf-8")  # what is known, should the next check crash
    print(page)
    print(f"written to {path}", file=sys.stderr)
    if setting.failed:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
