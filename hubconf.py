"""Entry points for `torch.hub.load(REPO, NAME, ...)`."""

import argparse
import collections.abc
import contextlib
import hashlib
import os
import pathlib
import sys

from torch import nn

dependencies = ["torch"]

_ROOT = pathlib.Path(__file__).resolve().parent

_PREFIX = f"relativenas_{hashlib.sha256(str(_ROOT).encode()).hexdigest()[:8]}_"


def relativenas_cifar10(pretrained: bool | str = False, **options: object) -> nn.Module:
    """The network for CIFAR-10 with the published cell, from images (N, 3, 32, 32).

    `forward` gives `(logits, logits_aux)`, as in model.py. The network's attributes `mean` and
    `std` are what images with pixels in [0, 1] are normalised by, channel by channel.

    Args:
        pretrained: the file of a checkpoint: one of train.py, or a published state dict. False:
            new weights. True is an error, for this repository has no such weights.
        options: what differs from the published network or, if it is not given, from what the
            checkpoint says of itself: `arch` (name of a genotype, or a genotype file),
            `init_channels`, `layers`, `auxiliary` (whether there is an auxiliary head),
            `num_classes`.

    Raises:
        UserError: the checkpoint or the genotype cannot be used; says why in one line.
    """
    return _network("cifar", "cifar10", pretrained, **{"num_classes": 10} | options)


def relativenas_cifar100(pretrained: bool | str = False, **options: object) -> nn.Module:
    """The network for CIFAR-100; everything else is as in `relativenas_cifar10`."""
    return _network("cifar", "cifar100", pretrained, **{"num_classes": 100} | options)


def relativenas_imagenet(pretrained: bool | str = False, **options: object) -> nn.Module:
    """The network for ImageNet, from images (N, 3, 224, 224) or others.

    Everything else is as in `relativenas_cifar10`, but that the checkpoint is one of
    train_imagenet.py. `forward_features` gives the feature maps at strides 4, 8, 16 and 32.
    """
    return _network("imagenet", "imagenet", pretrained, **{"num_classes": 1000} | options)


def relativenas_keypoints(pretrained: bool | str = False, **options: object) -> nn.Module:
    """The network for the joints of people, from images (N, 3, 256, 192) of one person each.

    `forward` gives heatmaps (N, 17, H/4, W/4), as in transfer/keypoints/network.py. The network's
    attributes `mean` and `std` are what images with pixels in [0, 1] are normalised by, channel by
    channel; where its attribute `bgr` is true, the channels must be blue, green, red, and the
    numbers stay in their order. So were the weights of the original's repository trained.

    Args:
        pretrained: as in `relativenas_cifar10`: a checkpoint of transfer/train_keypoints.py, or a
            state dict of the original's repository.
        options: as in `relativenas_cifar10`: `arch`, `init_channels`, `layers`; and `joints`, the
            number of heatmaps.

    Raises:
        UserError: the checkpoint or the genotype cannot be used; says why in one line.
    """
    return _keypoint_network(pretrained, **options)


def relativenas_segmentation(pretrained: bool | str = False, **options: object) -> nn.Module:
    """The network for the classes of pixels, from images (N, 3, H, W) of any size.

    `forward` gives logits (N, 19, H, W), in training three such, as in
    transfer/segmentation/network.py. The network's attributes `mean` and `std` are what images with
    pixels in [0, 1] are normalised by, channel by channel.

    Args:
        pretrained: as in `relativenas_cifar10`: a checkpoint of transfer/train_segmentation.py, or
            a state dict of the original's repository.
        options: as in `relativenas_cifar10`: `arch`, `init_channels`, `layers`, `num_classes`.

    Raises:
        UserError: the checkpoint or the genotype cannot be used; says why in one line.
    """
    return _segmentation_network(pretrained, **options)


def relativenas_detection(pretrained: bool | str = False, **options: object) -> nn.Module:
    """The detector: SSDLite on the network for ImageNet, for PASCAL VOC's 20 classes.

    Takes a list of float images (3, H, W) in [0, 1] of any sizes. In eval mode it gives a list of
    dictionaries, as torchvision's detectors do: `boxes`, float32 (n, 4) as x1, y1, x2, y2 in
    pixels, which may reach beyond the image, `labels`, int64 (n,), and `scores`, float32 (n,). In
    training it takes targets too, and gives the losses. `raw_outputs(images)` gives class logits
    (N, priors, 21) and box offsets (N, priors, 4) of normalised images (N, 3, 320, 320).

    Args:
        pretrained: the file of a checkpoint: one of ours, or a state dict of the authors'
            repository for their transfer tasks. False: new weights. True is an error, for this
            repository has no such weights.
        options: as in `relativenas_cifar10`, without `auxiliary`; `num_classes`, 21, counts the
            background, which is class 0; `image_size`, 320, is what images are resized to.

    Raises:
        UserError: the checkpoint or the genotype cannot be used; says why in one line.
    """
    return _detector(pretrained, **options)


def digits() -> nn.Module:
    """A trained network for handwritten digits: trained_model/digits_model.pt.

    For images (N, 3, 16, 16); everything else is as in `relativenas_cifar10`.
    """
    weights = _ROOT / "trained_model" / "digits_model.pt"
    return _network("cifar", "digits", str(weights), num_classes=10)


def cifar10_small() -> nn.Module:
    """A small trained network for CIFAR-10: trained_model/cifar10_small_model.pt.

    Its images were JPEGs, as trained_model/README.md says. For images (N, 3, 32, 32); everything
    else is as in `relativenas_cifar10`.
    """
    weights = _ROOT / "trained_model" / "cifar10_small_model.pt"
    return _network("cifar", "cifar10", str(weights), num_classes=10)


def genotype(path: str) -> tuple:
    """The genotype (normal, normal_concat, reduce, reduce_concat) in a file, or of a known name.

    Raises:
        UserError: it is neither.
    """
    with _own_modules():
        from genotypes import resolve_genotype

        return resolve_genotype(os.path.expanduser(path))


def _network(
    kind: str,
    set_name: str,
    pretrained: bool | str,
    num_classes: int,
    arch: str | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
    auxiliary: bool | None = None,
) -> nn.Module:
    with _own_modules():
        from genotypes import resolve_genotype
        from runtime.errors import UserError
        from training.trained_network import (
            PUBLISHED_SIZES,
            build_network,
            check_description,
            describe_network,
            load_trained_network,
        )

        _refuse_true(pretrained, UserError)
        if not pretrained:
            published = PUBLISHED_SIZES[kind]
            description = describe_network(
                kind,
                resolve_genotype(os.path.expanduser(arch or "RelativeNAS")),
                published[0] if init_channels is None else init_channels,
                published[1] if layers is None else layers,
                bool(auxiliary),
                num_classes,
            )
            try:
                check_description(description)
            except ValueError as error:
                raise UserError(f"{kind} network: {error}") from None
            network = build_network(description)
        else:
            args = argparse.Namespace(
                model_path=os.path.expanduser(pretrained),
                arch=arch and os.path.expanduser(arch),
                init_channels=init_channels,
                layers=layers,
                auxiliary=auxiliary,
            )
            network, description = load_trained_network(args, kind)
            if network.num_classes != num_classes:
                raise UserError(
                    f"checkpoint {pretrained}: has {network.num_classes} classes, not "
                    f"{num_classes}; if that is meant, give num_classes={network.num_classes}"
                )
        return _with_statistics(network, description, set_name)


def _keypoint_network(
    pretrained: bool | str,
    arch: str | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
    joints: int = 17,
) -> nn.Module:
    with _own_modules():
        from genotypes import resolve_genotype
        from runtime.errors import UserError
        from transfer.keypoints.network import load_keypoint_network, new_keypoint_network

        _refuse_true(pretrained, UserError)
        genotype = arch and resolve_genotype(os.path.expanduser(arch))
        description = {}
        if not pretrained:
            network = new_keypoint_network(genotype, init_channels, layers, joints)
        else:
            path = os.path.expanduser(pretrained)
            network, description = load_keypoint_network(path, genotype, init_channels, layers)
            if description["joints"] != joints:
                raise UserError(
                    f"checkpoint {pretrained}: has {description['joints']} joints, not {joints}; "
                    f"if that is meant, give joints={description['joints']}"
                )
        network.bgr = description.get("bgr", False)
        return _with_statistics(network, description, "imagenet")


def _segmentation_network(
    pretrained: bool | str,
    arch: str | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
    num_classes: int = 19,
) -> nn.Module:
    with _own_modules():
        from genotypes import resolve_genotype
        from runtime.errors import UserError
        from transfer.segmentation.checkpoints import (
            load_segmentation_network,
            new_segmentation_network,
        )

        _refuse_true(pretrained, UserError)
        genotype = arch and resolve_genotype(os.path.expanduser(arch))
        description = {}
        if not pretrained:
            network = new_segmentation_network(genotype, init_channels, layers, num_classes)
        else:
            path = os.path.expanduser(pretrained)
            network, description = load_segmentation_network(path, genotype, init_channels, layers)
            if network.num_classes != num_classes:
                raise UserError(
                    f"checkpoint {pretrained}: has {network.num_classes} classes, not "
                    f"{num_classes}; if that is meant, give num_classes={network.num_classes}"
                )
        return _with_statistics(network, description, "imagenet")


def _detector(
    pretrained: bool | str,
    arch: str | None = None,
    init_channels: int | None = None,
    layers: int | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
) -> nn.Module:
    with _own_modules():
        from genotypes import resolve_genotype
        from runtime.errors import UserError
        from transfer.detection.network import PUBLISHED_SIZES, load_detector, new_detector

        _refuse_true(pretrained, UserError)
        genotype = arch and resolve_genotype(os.path.expanduser(arch))
        if not pretrained:
            return new_detector(genotype, init_channels, layers, num_classes, image_size)
        path = os.path.expanduser(pretrained)
        network, _ = load_detector(path, genotype, init_channels, layers, image_size)
        if network.num_classes != (num_classes or PUBLISHED_SIZES["num_classes"]):
            raise UserError(
                f"checkpoint {pretrained}: has {network.num_classes} classes with the background, "
                f"not {num_classes or PUBLISHED_SIZES['num_classes']}; if that is meant, give "
                f"num_classes={network.num_classes}"
            )
        return network


def _with_statistics(network: nn.Module, description: dict, set_name: str) -> nn.Module:
    """The network with the mean and deviation of its description, or else of the set."""
    from dataset.pixel_statistics import PUBLISHED_STATISTICS, statistics_from_dict

    if "mean" in description:
        statistics = statistics_from_dict(description)
    else:
        statistics = PUBLISHED_STATISTICS[set_name]
    network.mean, network.std = statistics.mean, statistics.std
    return network


def _refuse_true(pretrained: bool | str, error: type[Exception]) -> None:
    if pretrained is True:
        raise error(
            "pretrained=True: this repository has no such weights; give a checkpoint's file, "
            "such as pretrained='runs/train-.../last.pt' or a published state dict"
        )


@contextlib.contextmanager
def _own_modules() -> collections.abc.Iterator[None]:
    """Import this repository's modules under names that nobody else has.

    Their own names (model, utils, test, ...) are common: a module of the caller's must neither be
    taken for ours, nor be replaced by ours after this.
    """
    files = [*_ROOT.glob("*.py"), *_ROOT.glob("*/__init__.py")]
    own = {path.stem if path.parent == _ROOT else path.parent.name for path in files}
    theirs = _take_out(own)
    loaded_before = [name for name in sys.modules if name.startswith(_PREFIX)]
    sys.modules.update({name.removeprefix(_PREFIX): sys.modules[name] for name in loaded_before})
    sys.path.insert(0, str(_ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(_ROOT))
        for name, module in _take_out(own).items():
            # What looks modules up by name later (pickle, torch.compile) finds them by this one.
            module.__name__ = _PREFIX + name
            sys.modules[_PREFIX + name] = module
            for value in vars(module).values():
                if isinstance(value, type) and value.__module__ == name:
                    value.__module__ = _PREFIX + name
        sys.modules.update(theirs)


def _take_out(names: set[str]) -> dict:
    """Remove modules with such names, and what is in them, from those that Python knows."""
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}
