"""Train SSDLite, with a RelativeNAS network as its backbone, to find digits in images.

The images are black canvases with embedded digits (dataset/README.md) of random sizes at random
places, so that their boxes are known. The example shows how the backbone and torchvision's
detection models go together; everything is small, and it takes less than a minute on a CPU.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":  # run as docs/detect_digits.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import box_iou
from tqdm import tqdm

from dataset.image_set import ImageSet, load_image_set
from genotypes import resolve_genotype
from model import Backbone, NetworkImageNet
from runtime.arguments import (
    ArgumentParser,
    expanded_path,
    non_negative_float,
    positive_int,
    seed_number,
)
from runtime.errors import run_script
from runtime.progress_bar import progress_bar
from utils import derive_seed

CANVAS = 112
"""Height and width of the images, in pixels."""

SMALLEST, LARGEST = 32, 56
"""Height and width that digits get, in pixels."""

DIGITS = 3
"""Digits on a canvas."""

MATCH = 0.5
"""A digit is found if a detection has at least this IoU with its box."""

SCORE = 0.5
"""Detections with a lower score are not counted."""

Target = dict[str, Tensor]


def digit_canvas(digits: ImageSet, generator: Generator) -> tuple[Tensor, Target]:
    """An image with a digit somewhere in each of some of its quarters, and where they are.

    Returns:
        The image, float32 (3, CANVAS, CANVAS) in [0, 1], and torchvision's target: `boxes`,
        float32 (n, 4) as x1, y1, x2, y2, and `labels`, int64 (n,), all 1, for 0 is the background.
    """
    canvas = torch.zeros(3, CANVAS, CANVAS)
    boxes: list[list[int]] = []
    for quarter in torch.randperm(4, generator=generator)[:DIGITS].tolist():
        index = _random_number(0, len(digits) - 1, generator)
        size = _random_number(SMALLEST, LARGEST, generator)
        left, top = (
            place * CANVAS // 2 + _random_number(0, CANVAS // 2 - size, generator)
            for place in divmod(quarter, 2)
        )
        digit = digits.images[index : index + 1] / 255
        scaled = F.interpolate(digit, size=(size, size), mode="bilinear")
        canvas[:, top : top + size, left : left + size] = scaled[0]
        boxes.append([left, top, left + size, top + size])
    labels = torch.ones(DIGITS, dtype=torch.int64)
    return canvas, {"boxes": torch.tensor(boxes).float(), "labels": labels}


def _random_number(smallest: int, largest: int, generator: Generator) -> int:
    return int(torch.randint(smallest, largest + 1, (), generator=generator))


def build_detector(arch: str, init_channels: int, layers: int) -> SSD:
    """SSDLite on the feature maps at strides 8 and 16, for digits and the background."""
    network = NetworkImageNet(init_channels, 10, layers, False, resolve_genotype(arch))
    backbone = Backbone(network, {8: "0", 16: "1"})
    # Squares of two sizes at each place, those of the smaller digits on the finer map.
    scales = [size / CANVAS for size in (SMALLEST, (SMALLEST + LARGEST) / 2, LARGEST)]
    anchors = DefaultBoxGenerator([[], []], scales=scales)
    classes = 2
    head = SSDLiteHead(
        backbone.out_channels, anchors.num_anchors_per_location(), classes, nn.BatchNorm2d
    )
    return SSD(
        backbone,
        anchors,
        (CANVAS, CANVAS),
        classes,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        head=head,
    )


def training_batches(
    digits: ImageSet, steps: int, batch_size: int, seed: int
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    """New canvases for each step, as torchvision's detectors take them."""
    for step in range(steps):
        generator = Generator().manual_seed(derive_seed(seed, step))
        canvases = [digit_canvas(digits, generator) for _ in range(batch_size)]
        images, targets = zip(*canvases, strict=True)
        yield list(images), list(targets)


def train(detector: SSD, digits: ImageSet, args: Namespace) -> None:
    """Train with Adam, its learning rate falling to 0, and print the losses now and then."""
    optimizer = torch.optim.Adam(detector.parameters(), args.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    report_steps = {round(args.steps * part / 10) for part in range(1, 11)} | {1}
    batches = training_batches(digits, args.steps, args.batch_size, args.seed)
    detector.train()
    for step, (images, targets) in enumerate(
        progress_bar(batches, "training", "step", args.steps), start=1
    ):
        losses = detector(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
        if step in report_steps:
            classes, boxes = losses["classification"].item(), losses["bbox_regression"].item()
            tqdm.write(f"step {step}/{args.steps}: losses {classes:.3f} (class), {boxes:.3f} (box)")


@torch.inference_mode()
def evaluate(detector: SSD, digits: ImageSet, count: int, seed: int) -> dict[str, float]:
    """Find digits on `count` canvases.

    Returns:
        `recall`: the part of the digits that a detection matches; `precision`: the part of the
        detections that match a digit; `iou`: the mean IoU of a digit's box with the best detection.
    """
    generator = Generator().manual_seed(derive_seed(seed))
    detector.eval()
    best_ious: list[Tensor] = []
    matching: list[Tensor] = []
    for _ in progress_bar(range(count), "testing", "image"):
        image, target = digit_canvas(digits, generator)
        (detected,) = detector([image])
        sure = detected["scores"] >= SCORE
        ious = box_iou(target["boxes"], detected["boxes"][sure])
        best_ious.append(F.pad(ious, (0, 1)).amax(dim=1))
        matching.append((ious >= MATCH).any(dim=0))
    best, match = torch.cat(best_ious), torch.cat(matching)
    return {
        "recall": (best >= MATCH).float().mean().item(),
        "precision": match.float().mean().item() if len(match) else 0.0,
        "iou": best.mean().item(),
    }


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--arch",
        type=expanded_path,
        default="RelativeNAS",
        help="name of a genotype, or a genotype file",
    )
    add("--init_channels", type=positive_int, default=16, help="channels of the first cells")
    add("--layers", type=positive_int, default=6, help="number of cells")
    add("--steps", type=positive_int, default=120, help="training steps")
    add("--batch_size", type=positive_int, default=8, help="images of a step")
    add("--learning_rate", type=non_negative_float, default=0.004, help="at the start")
    add("--test_images", type=positive_int, default=100, help="images to find digits on at the end")
    add("--seed", type=seed_number, default=0, help="of all random numbers")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    detector = build_detector(args.arch, args.init_channels, args.layers)
    train(detector, load_image_set("digits", "", "train"), args)
    result = evaluate(detector, load_image_set("digits", "", "test"), args.test_images, args.seed)
    print(f"test images     {args.test_images} with {DIGITS} digits each")
    print(f"recall          {100 * result['recall']:.1f} % of the digits found")
    print(f"precision       {100 * result['precision']:.1f} % of the detections right")
    print(f"mean IoU        {result['iou']:.2f}")


if __name__ == "__main__":
    run_script(main)
