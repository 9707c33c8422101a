"""Write a trained network in a form that runs elsewhere: ONNX, torch.export, a lean checkpoint.

The exported network takes float32 RGB images (N, 3, H, W) with pixels in [0, 1] and gives logits
(N, classes), or what the networks of transfer/ give: the normalisation of the images is inside, the
auxiliary head is not. A lean checkpoint is one of our own without what only resuming needs. What
was written is read again and compared with the network in PyTorch before it gets its name.
"""

import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

if __name__ == "__main__" and sys.flags.safe_path:  # python -I or -P: the root is not on the path
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import torch
from torch import Tensor, nn

from dataset.pixel_statistics import PUBLISHED_STATISTICS, statistics_from_dict
from runtime.arguments import ArgumentParser, expanded_path, positive_int
from runtime.checkpoint import save_checkpoint
from runtime.errors import UserError, run_script
from runtime.out_of_memory import memory_advice
from training.exported import ExportedNetwork
from training.trained_network import add_network_arguments, load_trained_network
from transfer.exported import load_exported

PUBLISHED_IMAGE_SIZES = {"cifar": 32, "imagenet": 224}

BATCH_SIZES = (1, 5)
"""What was written is tried with batches of these sizes."""

TOLERANCE = 1e-4
"""The largest difference of two numbers that is rounding, as a part of their output's largest."""


class Classifier(ExportedNetwork):
    """Gives `logits`, (N, num_classes).

    Args:
        network: as it was trained.
        description: of the network, with its `image_size` and the `mean` and `std` of its images.
    """

    outputs = ("logits",)

    def __init__(self, network: nn.Module, description: dict) -> None:
        size = description["image_size"]
        super().__init__(network, description, (size, size), statistics_from_dict(description))

    def forward(self, images: Tensor) -> Tensor:
        logits, _ = self.network(self.normalized(images))
        return logits


Outputs = Tensor | Sequence[Tensor]
"""What a network gives: a tensor, or several."""

Inference = Callable[[Tensor], Outputs]


@dataclass(frozen=True)
class Format:
    """How a network is written to a file and read again, and the packages that it takes.

    Attributes:
        write: takes the network, example images and the file.
        read: takes the file; returns what maps images to the network's outputs.
    """

    write: Callable[[ExportedNetwork, Tensor, Path], None]
    read: Callable[[Path], Inference]
    packages: tuple[str, ...] = ()


def write_onnx(network: ExportedNetwork, images: Tensor, path: Path) -> None:
    """Write an ONNX file that takes batches of any size, its weights inside."""
    program = torch.onnx.export(
        network,
        (images,),
        dynamo=True,
        input_names=["images"],
        output_names=list(network.outputs),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    for node in program.model.graph:
        node.metadata_props.clear()  # of where in this machine's files the node comes from
    program.save(path, external_data=False)


def read_onnx(path: Path) -> Inference:
    """An ONNX file in ONNX Runtime, on the CPU."""
    import onnxruntime  # only this format takes it

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: [*map(torch.from_numpy, session.run(None, {"images": images.numpy()}))]


def write_torch_export(network: ExportedNetwork, images: Tensor, path: Path) -> None:
    """Write what `torch.export.load` reads; it takes batches of any size."""
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)
    with open(path, "wb") as file:  # given a path, it complains of any suffix but .pt2
        torch.export.save(program, file)


def read_torch_export(path: Path) -> Inference:
    """A program of torch.export as a module."""
    with open(path, "rb") as file:
        return torch.export.load(file).module()


def write_checkpoint(network: ExportedNetwork, images: Tensor, path: Path) -> None:
    """Write a checkpoint that describes itself, with the auxiliary head if there is one."""
    weights = {"state_dict": network.network.state_dict()}
    save_checkpoint(network.description | weights, path)


def read_checkpoint(path: Path) -> Inference:
    """A checkpoint that describes itself."""
    names = ("arch", "init_channels", "layers", "auxiliary", "set", "image_size")
    return load_network(Namespace(model_path=path, **dict.fromkeys(names)))


FORMATS = {
    "onnx": Format(write_onnx, read_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torch_export": Format(write_torch_export, read_torch_export),
    "checkpoint": Format(write_checkpoint, read_checkpoint),
}


def load_network(args: Namespace) -> ExportedNetwork:
    """The network in `--model_path`, fully described, in eval mode.

    Raises:
        UserError: the checkpoint cannot be used, or nobody says how its images are normalised.
    """
    if exported := load_exported(args):
        return exported.eval()
    network, description = load_trained_network(args)
    kind, classes = description["network"], description["num_classes"]
    if args.set or "mean" not in description:
        published = "imagenet" if kind == "imagenet" else f"cifar{classes}"
        name = args.set or published
        if name not in PUBLISHED_STATISTICS:
            raise UserError(
                f"checkpoint {args.model_path}: does not say by which mean and standard deviation "
                f"its images are normalised, and no published network has {classes} classes; give "
                "--set"
            )
        description |= asdict(PUBLISHED_STATISTICS[name])
        if name == published:  # else only its statistics are meant
            description.setdefault("set", name)
    if args.image_size:
        description["image_size"] = args.image_size
    description.setdefault("image_size", PUBLISHED_IMAGE_SIZES[kind])
    return Classifier(network, description).eval()


def export(args: Namespace) -> None:
    """Write the network into a new file, and say how far its outputs are from PyTorch's.

    Raises:
        UserError: the file is there already or cannot be written, a package is missing, or what
            was written gives other outputs; then there is no file.
    """
    path = Path(args.output)
    if os.path.lexists(path):
        raise UserError(f"-o {path}: is there already; choose another name or remove it")
    form = FORMATS[args.format]
    check_packages(args.format, form)
    network = load_network(args)
    print(f"checkpoint      {args.model_path}", flush=True)  # the rest can take a minute
    height, width = network.image_size
    random = torch.Generator().manual_seed(0)
    batches = [torch.rand(count, 3, height, width, generator=random) for count in BATCH_SIZES]
    try:
        with (
            TemporaryDirectory(prefix=".export-", dir=path.parent) as folder,
            torch.no_grad(),  # without gradients, depthwise convolutions are plain ones
        ):
            written = Path(folder) / path.name
            form.write(network, batches[-1], written)
            difference = check_outputs(network, form.read(written), batches)
            shapes = [output.shape[1:] for output in as_list(network(batches[0]))]
            os.replace(written, path)
    except OSError as error:
        raise UserError(f"-o {path}: cannot be written ({error.strerror or error})") from None
    print(f"written         {path}, {path.stat().st_size / 1e6:.2f} MB")
    print(f"images          float32 (N, 3, {height}, {width}), RGB in [0, 1]")
    for name, shape in zip(network.outputs, shapes, strict=True):
        print(f"{name:15} float32 ({', '.join(map(str, ('N', *shape)))})")
    print(f"difference      {difference:.1e} at most from PyTorch")


def check_packages(name: str, form: Format) -> None:
    """Make sure that the packages of a format are there.

    Raises:
        UserError: one cannot be imported.
    """
    for package in form.packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"--format {name}: needs the package {package} ({error}); "
                f"python -m pip install {' '.join(form.packages)}"
            ) from None


def as_list(outputs: Outputs) -> list[Tensor]:
    """The tensors among outputs."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def check_outputs(network: ExportedNetwork, exported: Inference, batches: list[Tensor]) -> float:
    """The largest difference between two numbers, one by each, over all batches.

    Raises:
        UserError: it is more than rounding.
    """
    largest = 0.0
    for images in batches:
        expected_outputs, found_outputs = as_list(network(images)), as_list(exported(images))
        for name, expected, found in zip(
            network.outputs, expected_outputs, found_outputs, strict=True
        ):
            difference = (found - expected).abs().max().item()
            allowed = TOLERANCE * max(1.0, expected.abs().max().item())
            if not difference <= allowed:  # NaN is not either
                raise UserError(
                    f"the exported network's {name} differ by {difference:.1e} from PyTorch's, "
                    f"more than the {allowed:.1e} that rounding explains; nothing was written; try "
                    "other versions of PyTorch and of the format's packages"
                )
            largest = max(largest, difference)
    return largest


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line. What our own checkpoints say of themselves need not be given."""
    parser = ArgumentParser(__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--model_path",
        type=expanded_path,
        required=True,
        help="checkpoint: our own, or a published state dict",
    )
    add("--format", required=True, choices=FORMATS, help="what to write")
    add(
        "--image_size",
        type=positive_int,
        help="height and width of the images (default: those trained on, as published 32 or 224)",
    )
    add(
        "-o",
        "--output",
        type=expanded_path,
        required=True,
        metavar="FILE",
        help="where; a file that is not there yet",
    )
    add_network_arguments(parser)
    add(
        "--set",
        choices=PUBLISHED_STATISTICS,
        help="normalise images by its mean and standard deviation (default: the checkpoint's own; "
        "of a published state dict, those of the set with its classes)",
    )
    return parser.parse_args(argv)


def main() -> None:
    with memory_advice("lower --image_size"):
        export(parse_arguments())


if __name__ == "__main__":
    run_script(main)
