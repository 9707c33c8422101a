"""Evaluation: counts against counting by hand, the best checkpoint, what test scripts print."""

from argparse import Namespace
from unittest.mock import Mock

import pytest
import torch
from helpers import call_script, only_folder, write_image_folder, write_small_set
from recording import images_of, recorded
from torch import nn

from dataset.image_set import load_image_set
from genotypes import RelativeNAS
from model import NetworkCIFAR, NetworkImageNet
from report import run
from runtime.processes import Processes
from training import classification
from training.classification import evaluate
from training.trained_network import describe_network, load_trained_network
from utils import Meter, parameter_count

CPU = torch.device("cpu")


class ImagesAsLogits(nn.Module):
    """Answers with its images (N, classes), so that a test knows what it predicts."""

    def forward(self, images):
        assert not self.training
        return images, None


def evaluated(batches, confusion=None):
    return evaluate(ImagesAsLogits(), batches, Processes(CPU), torch.float32, confusion)


def counted_by_hand(batches):
    """Loss, top-1, top-5 and the confusion matrix, image by image, in Python's own numbers."""
    losses, top1, top5 = [], 0, 0
    classes = batches[0][0].shape[1]
    confusion = [[0] * classes for _ in range(classes)]
    for images, labels in batches:
        for logits, label in zip(images.tolist(), labels.tolist(), strict=True):
            ranking = sorted(range(classes), key=lambda i: -logits[i])
            top1 += ranking[0] == label
            top5 += label in ranking[:5]
            confusion[label][ranking[0]] += 1
            losses.append(torch.tensor(logits).logsumexp(0).item() - logits[label])
    count = len(losses)
    result = {
        "loss": sum(losses) / count, "top1": 100 * top1 / count, "top5": 100 * top5 / count,
        "count": count,
    }  # fmt: skip
    return result, confusion


def uneven_batches(classes):
    torch.manual_seed(0)
    return [
        (3 * scale * torch.randn(size, classes), torch.randint(classes, (size,)))
        for scale, size in ((1, 16), (2, 5), (9, 1))
    ]


@pytest.mark.parametrize("classes", [3, 5, 6, 12])
def test_an_evaluation_is_a_count_by_hand(classes):
    batches = uneven_batches(classes)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    result = evaluated(batches, confusion)
    expected, expected_confusion = counted_by_hand(batches)
    assert result == pytest.approx(expected)
    assert confusion.tolist() == expected_confusion
    assert (result["top5"] == 100) == (classes <= 5)


def test_a_confusion_matrix_starts_anew_with_each_evaluation():
    batches = uneven_batches(6)
    confusion = torch.full((6, 6), 7)
    for _ in range(2):
        evaluated(batches, confusion)
    assert confusion.tolist() == counted_by_hand(batches)[1]


def test_equal_logits_are_no_more_than_five_guesses():
    result = evaluated([(torch.zeros(10, 10), torch.arange(10))])
    assert (result["top1"], result["top5"]) == (10, 50)


def test_a_meter_weighs_batches_by_their_images():
    meter = Meter(CPU)
    logits = torch.eye(4)
    meter.update(torch.tensor(1.0), logits, torch.arange(4))
    predicted = meter.update(torch.tensor(6.0), logits[:1], torch.tensor([3]))
    assert predicted.tolist() == [0]
    assert meter.result() == {"loss": 2.0, "top1": 80.0, "top5": 100.0, "count": 5}


def test_an_evaluation_changes_nothing_in_the_network():
    network = NetworkCIFAR(2, 3, 3, True, RelativeNAS).train()
    network.drop_path_prob = 0.5
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))]
    first, second = (
        evaluate(network, batches, Processes(CPU), torch.float32)["loss"] for _ in range(2)
    )
    assert first == second
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


# The best checkpoint.


def test_best_is_the_first_epoch_with_the_highest_validation_top1(tmp_path, monkeypatch):
    flags = write_small_set(tmp_path / "data")
    validations = iter([(9.0, 50.0), (9.0, 70.0), (1.0, 70.0), (0.5, 60.0)])
    weights = []

    def validation(network, *_):
        weights.append(network.classifier.weight.detach().clone())
        loss, top1 = next(validations)
        return {"loss": loss, "top1": top1, "top5": 100.0, "count": 24}

    monkeypatch.setattr(classification, "evaluate", validation)
    monkeypatch.setattr(run, "LiveReport", Mock())  # drawing takes longer than all the rest
    arguments = [*flags, "--epochs", "4", "--save", tmp_path / "runs" / "EXP"]
    assert call_script("train", arguments, monkeypatch) == 0
    folder = only_folder(tmp_path / "runs")
    best, last = torch.load(folder / "best.pt"), torch.load(folder / "last.pt")
    assert (best["epoch"], best["top1"]) == (2, 70.0)
    assert (last["epoch"], last["top1"], last["best_top1"]) == (4, 60.0, 70.0)
    assert torch.equal(best["state_dict"]["classifier.weight"], weights[1])
    assert torch.equal(last["state_dict"]["classifier.weight"], weights[3])


# The scripts that test a checkpoint.

STATISTICS = {"mean": (0.3, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}


def write_checkpoint(path, network, kind, **fields):
    """One of our own: what `network` is, and what its images were normalised with."""
    description = describe_network(kind, RelativeNAS, 4, 3, True, network.num_classes)
    torch.save({**description, **STATISTICS, "state_dict": network.state_dict(), **fields}, path)


def normalized_images(data):
    """All test images, normalised with what the checkpoint says of those it was trained on."""
    images = load_image_set("folder", str(data), "test", 16).images
    mean, std = (torch.tensor(STATISTICS[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (images / 255 - mean) / std


def plain_logits(network, record):
    """What `network` in eval mode makes of the images that were evaluated, all at once."""
    images = images_of(record.forwards)
    with torch.no_grad():
        return network.eval()(images)[0]


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_test_py_prints_a_count_by_hand(precision, dtype, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    classes = {name: 3 for name in "abcdefg"}
    write_image_folder(tmp_path / "data", {"train": classes, "test": classes}, size=16)
    network = NetworkCIFAR(4, 7, 3, True, RelativeNAS)
    write_checkpoint(tmp_path / "model.pt", network, "cifar", set="folder", image_size=16)
    arguments = ["--model_path", tmp_path / "model.pt", "--data", tmp_path / "data"]
    arguments += ["--batch_size", "8", "--precision", precision]
    with recorded() as record:
        assert call_script("test", arguments, monkeypatch) == 0
    output = capsys.readouterr().out
    evaluated = record.forwards[:3]  # the last one counts multiply-adds
    assert [len(forward.images) for forward in evaluated] == [8, 8, 5]
    assert [forward.dtypes for forward in evaluated] == [{dtype}] * 3
    record.forwards = evaluated
    if precision == "fp32":
        logits = plain_logits(network, record)
        printed, _ = counted_by_hand([(logits, torch.arange(7).repeat_interleave(3))])
        assert f"error rate      {100 - printed['top1']:.2f} %" in output
        assert f"top-1 accuracy  {printed['top1']:.2f} %" in output
        assert f"top-5 accuracy  {printed['top5']:.2f} %" in output
    torch.testing.assert_close(images_of(evaluated), normalized_images(tmp_path / "data"))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_test_imagenet_py_prints_a_count_by_hand(precision, dtype, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    classes = {name: 3 for name in "abcdefg"}
    write_image_folder(tmp_path / "data", {"train": classes, "val": classes}, size=16)
    network = NetworkImageNet(4, 7, 3, True, RelativeNAS)
    write_checkpoint(
        tmp_path / "model.pt", network, "imagenet", image_size=16, validation_resize=16
    )
    arguments = ["--model_path", tmp_path / "model.pt", "--data_path", tmp_path / "data"]
    arguments += ["--batch_size", "8", "--workers", "0", "--precision", precision]
    with recorded() as record:
        assert call_script("test_imagenet", arguments, monkeypatch) == 0
    output = capsys.readouterr().out
    record.forwards = record.forwards[:3]
    assert [len(forward.images) for forward in record.forwards] == [8, 8, 5]
    assert [forward.dtypes for forward in record.forwards] == [{dtype}] * 3
    assert [forward.training for forward in record.forwards] == [{False}] * 3
    torch.testing.assert_close(images_of(record.forwards), normalized_images(tmp_path / "data"))
    if precision == "fp32":
        logits = plain_logits(network, record)
        printed, _ = counted_by_hand([(logits, torch.arange(7).repeat_interleave(3))])
        assert f"top-1 error     {100 - printed['top1']:.2f} %" in output
        assert f"top-5 error     {100 - printed['top5']:.2f} %" in output


@pytest.mark.parametrize(
    ("network_class", "channels", "layers"), [(NetworkCIFAR, 36, 20), (NetworkImageNet, 46, 14)]
)
def test_a_state_dict_of_the_published_size_needs_no_flags(
    network_class, channels, layers, tmp_path
):
    with torch.device("meta"):
        published = network_class(channels, 10, layers, True, RelativeNAS).state_dict()
    weights = {name: torch.ones_like(tensor, device="cpu") for name, tensor in published.items()}
    torch.save(weights, tmp_path / "published.pt")
    flags = dict.fromkeys(("arch", "init_channels", "layers", "auxiliary"))
    args = Namespace(model_path=str(tmp_path / "published.pt"), **flags)
    loaded, _ = load_trained_network(args)
    assert type(loaded) is network_class and not loaded.training
    assert loaded.classifier.weight.min() == 1


def test_the_auxiliary_head_is_no_part_of_the_size():
    with_head, without = (NetworkCIFAR(2, 3, 3, head, RelativeNAS) for head in (True, False))
    assert parameter_count(with_head) == parameter_count(without)
    assert parameter_count(without) == sum(p.numel() for p in without.parameters())
