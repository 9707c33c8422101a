"""The images of a search: a part to train candidates on, and a part to validate them on."""

from argparse import Namespace

import torch

from dataset.batching import Batching
from dataset.image_batches import ImageBatches
from dataset.image_set import STATISTICS_FILE, image_statistics, load_image_set, set_augmentation
from dataset.manifest import MANIFEST_FILE, image_set_manifest, keep_manifest
from report.run import Run
from runtime.errors import UserError


def load_search_data(args: Namespace, run: Run) -> ImageBatches:
    """The training images of `args.set`, divided at random into two parts.

    Every process trains on whole batches: what they share out among them are the pairs.

    Raises:
        UserError: the images cannot be read, are not those that a resumed search began with, or
            one of the parts would be empty.
    """
    device = run.processes.device
    images = load_image_set(args.set, args.data, "train", args.image_size)
    keep_manifest(run.path(MANIFEST_FILE), lambda: image_set_manifest({"train": images}))
    statistics = run.read(STATISTICS_FILE, lambda path: image_statistics(args.set, images, path))
    train_count = int(len(images) * args.train_portion)
    if not 2 <= train_count < len(images):
        raise UserError(
            f"--train_portion {args.train_portion}: leaves {train_count} of {len(images)} images "
            "to train on; both parts need images"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed))
    images = images.to(torch.device("cpu") if args.data_device == "cpu" else device)
    return ImageBatches(
        train_set=images.subset(order[:train_count]),
        validation_set=images.subset(order[train_count:]),
        augmentation=set_augmentation(
            args.set, images.images.shape[-1], args.cutout, args.cutout_length
        ),
        statistics=statistics,
        batching=Batching(args.batch_size, device),
    )
