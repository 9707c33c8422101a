"""Exported networks against the networks in PyTorch, and every mistake on the way."""

import sys
from dataclasses import replace

import onnx
import onnxruntime
import pytest
import torch
from helpers import ROOT, assert_one_line, assert_same_tensors, call_script
from torch import nn

import export
from dataset.pixel_statistics import PUBLISHED_STATISTICS
from genotypes import RelativeNAS
from model import NetworkCIFAR, NetworkImageNet
from training.trained_network import NETWORKS, describe_network
from transfer.detection.network import (
    CANDIDATES,
    NMS_IOU,
    SCORE_THRESHOLD,
    build_detector,
    describe_detector,
)
from transfer.detection.targets import select_detections
from transfer.keypoints.network import build_keypoint_network, describe_keypoint_network
from transfer.segmentation.checkpoints import (
    build_segmentation_network,
    describe_segmentation_network,
)

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)

SMALL = ["--init_channels", "4", "--layers", "3"]


def trained(network):
    """A network whose batch norms have seen images, as a trained one's have."""
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 3, 32, 32))
    return network.eval()


def save_own_checkpoint(path, kind="cifar"):
    """A checkpoint as train.py writes it, and its network."""
    torch.manual_seed(0)
    network = trained(NETWORKS[kind](4, 10, 3, True, RelativeNAS))
    content = describe_network(kind, RelativeNAS, 4, 3, True, 10) | {
        "set": "digits", "image_size": 24, "mean": MEAN, "std": STD,
        "state_dict": network.state_dict(), "epoch": 5, "top1": 90.0,
        "optimizer": {"momentum": torch.zeros(1000)}, "best_top1": 91.0,
    }  # fmt: skip
    torch.save(content, path)
    return network


def expected_logits(network, images, mean=MEAN, std=STD):
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (mean, std))
    with torch.no_grad():
        return network((images - mean) / std)[0]


@pytest.fixture(scope="module", params=["cifar", "imagenet"])
def onnx_file(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    network = save_own_checkpoint(folder / "last.pt", request.param)
    arguments = ["--model_path", folder / "last.pt", "--format", "onnx", "-o", folder / "new.onnx"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert call_script("export", arguments, monkeypatch) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["last.pt", "new.onnx"]
    return network, folder / "new.onnx"


def test_onnx_gives_the_logits_of_images_as_they_are(onnx_file):
    network, path = onnx_file
    session = onnxruntime.InferenceSession(path)
    (inputs,), (outputs,) = session.get_inputs(), session.get_outputs()
    assert (inputs.name, inputs.type, inputs.shape[1:]) == ("images", "tensor(float)", [3, 24, 24])
    assert (outputs.name, outputs.type, outputs.shape[1:]) == ("logits", "tensor(float)", [10])
    assert isinstance(inputs.shape[0], str) and outputs.shape[0] == inputs.shape[0]
    for count in (1, 2, 7):
        images = torch.rand(count, 3, 24, 24)
        (logits,) = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(logits), expected_logits(network, images), rtol=1e-4, atol=1e-4
        )


def test_onnx_has_the_networks_convolutions_and_no_auxiliary_head(onnx_file):
    network, path = onnx_file
    graph = onnx.load(path).graph
    # Reduction cells of RelativeNAS (here 1 and 2) make no use of the cell before last.
    unused = ("auxiliary_head.", "cells.1.preprocess0.", "cells.2.preprocess0.")
    convolutions = sum(
        isinstance(module, nn.Conv2d) and not name.startswith(unused)
        for name, module in network.named_modules()
    )
    assert sum(node.op_type == "Conv" for node in graph.node) == convolutions
    assert {node.domain for node in graph.node} == {""}
    assert not any("auxiliary" in weights.name for weights in graph.initializer)
    assert str(ROOT).encode() not in path.read_bytes()


@pytest.mark.parametrize("kind", ["cifar", "imagenet"])
def test_torch_export(kind, tmp_path, monkeypatch, capsys):
    network = save_own_checkpoint(tmp_path / "last.pt", kind)
    path = tmp_path / "new.pt2"
    arguments = ["--model_path", tmp_path / "last.pt", "--format", "torch_export", "-o", path]
    assert call_script("export", [*arguments, "--image_size", "17"], monkeypatch) == 0
    assert "(N, 3, 17, 17)" in capsys.readouterr().out
    program = torch.export.load(path)
    assert "_DepthwiseConv2d" not in str(program.graph)
    for count in (1, 2, 7):
        images = torch.rand(count, 3, 17, 17)
        logits = program.module()(images)
        torch.testing.assert_close(logits, expected_logits(network, images))


def test_a_lean_checkpoint_is_what_testing_needs(tmp_path, monkeypatch, capsys):
    network = save_own_checkpoint(tmp_path / "last.pt")
    path = tmp_path / "lean.pt"
    arguments = ["--model_path", tmp_path / "last.pt", "--format", "checkpoint", "-o", path]
    assert call_script("export", arguments, monkeypatch) == 0
    lean, whole = torch.load(path), torch.load(tmp_path / "last.pt")
    assert_same_tensors(lean.pop("state_dict"), network.state_dict())
    assert lean == {
        name: value
        for name, value in whole.items()
        if name not in ("state_dict", "optimizer", "best_top1")
    }
    printed = []
    for checkpoint in (path, tmp_path / "last.pt"):
        capsys.readouterr()
        assert call_script("test", ["--model_path", checkpoint], monkeypatch) == 0
        printed.append(capsys.readouterr().out.splitlines()[1:])
    assert printed[0] == printed[1]


@pytest.mark.parametrize(
    ("network_class", "classes", "flags", "set_name", "image_size"),
    [
        (NetworkCIFAR, 10, [], "cifar10", 32),
        (NetworkCIFAR, 100, [], "cifar100", 32),
        (NetworkCIFAR, 100, ["--set", "cifar100"], "cifar100", 32),
        (NetworkCIFAR, 7, ["--set", "cifar100", "--image_size", "40"], "cifar100", 40),
        (NetworkImageNet, 1000, [], "imagenet", 224),
        (NetworkImageNet, 9, ["--set", "cifar10", "--arch", "RelativeNAS"], "cifar10", 224),
    ],
)
def test_a_published_state_dict_gets_its_sets_statistics(
    network_class, classes, flags, set_name, image_size, tmp_path, monkeypatch
):
    network = trained(network_class(4, classes, 3, True, RelativeNAS))
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(state, tmp_path / "published.pt")
    arguments = ["--model_path", tmp_path / "published.pt", "--format", "checkpoint"]
    arguments += ["-o", tmp_path / "own.pt", *SMALL, *flags]
    assert call_script("export", arguments, monkeypatch) == 0
    own = torch.load(tmp_path / "own.pt")
    statistics = PUBLISHED_STATISTICS[set_name]
    assert (own["mean"], own["std"]) == (statistics.mean, statistics.std)
    assert (own["image_size"], own["num_classes"]) == (image_size, classes)
    assert own.get("set") == (set_name if classes in (10, 100, 1000) else None)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(
        export.read_checkpoint(tmp_path / "own.pt")(images),
        expected_logits(network, images, statistics.mean, statistics.std),
    )


def test_a_state_dict_of_an_unknown_set(tmp_path, monkeypatch, capsys):
    torch.save(NetworkCIFAR(4, 7, 3, False, RelativeNAS).state_dict(), tmp_path / "mine.pt")
    arguments = ["--model_path", tmp_path / "mine.pt", "--format", "checkpoint"]
    arguments += ["-o", tmp_path / "own.pt", *SMALL]
    status = call_script("export", arguments, monkeypatch)
    assert_one_line(status, capsys, "mine.pt", "7 classes", "--set")


@pytest.fixture
def arguments(tmp_path):
    save_own_checkpoint(tmp_path / "last.pt")
    common = ["--model_path", tmp_path / "last.pt", "--format", "checkpoint"]
    return [*common, "-o", tmp_path / "new.pt"]


def test_nothing_is_overwritten(arguments, tmp_path, monkeypatch, capsys):
    (tmp_path / "new.pt").write_text("mine")
    status = call_script("export", arguments, monkeypatch)
    assert_one_line(status, capsys, "new.pt", "is there already")
    assert (tmp_path / "new.pt").read_text() == "mine"


def test_an_output_that_cannot_be_written(arguments, tmp_path, monkeypatch, capsys):
    for output in (tmp_path / "nowhere" / "new.pt", tmp_path / "last.pt" / "new.pt"):
        status = call_script("export", [*arguments, "-o", output], monkeypatch)
        assert_one_line(status, capsys, f"-o {output}", "cannot be written")


def test_too_large_images_are_one_line(arguments, monkeypatch, capsys):
    status = call_script("export", [*arguments, "--image_size", "2000000"], monkeypatch)
    assert_one_line(status, capsys, "out of memory", "--image_size")


def test_a_missing_package_is_named(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    status = call_script("export", [*arguments, "--format", "onnx"], monkeypatch)
    assert_one_line(status, capsys, "onnxscript", "pip install onnx onnxscript onnxruntime")
    assert not (tmp_path / "new.pt").exists()


@pytest.mark.parametrize("wrong", [lambda logits: logits + 0.01, lambda logits: logits * torch.nan])
def test_other_logits_leave_no_file(wrong, arguments, tmp_path, monkeypatch, capsys):
    def read(path):
        right = export.read_checkpoint(path)
        return lambda images: wrong(right(images))

    form = replace(export.FORMATS["checkpoint"], read=read)
    monkeypatch.setitem(export.FORMATS, "checkpoint", form)
    status = call_script("export", arguments, monkeypatch)
    assert_one_line(status, capsys, "differ", "nothing was written")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def save_transfer_checkpoint(path, task):
    """A tiny checkpoint as a transfer task's training writes it, and its network."""
    torch.manual_seed(0)
    if task == "detection":
        description = describe_detector(RelativeNAS, 2, 2, 3, 64, ["a", "b"])
        network = build_detector(description)
    elif task == "segmentation":
        description = describe_segmentation_network(RelativeNAS, 2, 2, 4, 64)
        network = build_segmentation_network(description)
    else:
        description = describe_keypoint_network(RelativeNAS, 2, 2, 3, 8, (64, 32), bgr=True)
        network = build_keypoint_network(description)
    parts = getattr(network, "raw_outputs", network)
    with torch.no_grad():
        for _ in range(3):
            parts(torch.randn(4, 3, 64, 64))
    content = {"state_dict": network.state_dict(), "optimizer": {}, "epoch": 3}
    torch.save({**description, **content}, path)
    return network.eval()


def normalized(images):
    statistics = PUBLISHED_STATISTICS["imagenet"]
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (statistics.mean, statistics.std))
    return (images - mean) / std


@pytest.fixture(scope="module", params=["detection", "segmentation", "keypoints"])
def transfer_file(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    network = save_transfer_checkpoint(folder / "last.pt", request.param)
    arguments = ["--model_path", folder / "last.pt", "--format", "onnx", "-o", folder / "new.onnx"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert call_script("export", arguments, monkeypatch) == 0
    return request.param, network, onnxruntime.InferenceSession(folder / "new.onnx")


@torch.no_grad()
def test_onnx_of_the_transfer_tasks(transfer_file):
    task, network, session = transfer_file
    names = [output.name for output in session.get_outputs()]
    (inputs,) = session.get_inputs()
    assert inputs.shape[1:] == [3, 64, 32 if task == "keypoints" else 64]
    for count in (1, 3):
        images = torch.rand(count, *inputs.shape[1:])
        found = [torch.from_numpy(array) for array in session.run(None, {"images": images.numpy()})]
        if task == "detection":
            assert names == ["scores", "boxes"]
            expected = network(list(images))
            for scores, boxes, detected in zip(*found, expected, strict=True):
                chosen = select_detections(boxes, scores, SCORE_THRESHOLD, NMS_IOU, CANDIDATES)
                assert len(chosen["labels"]) > 0
                for name, tensor in chosen.items():
                    torch.testing.assert_close(tensor, detected[name], rtol=1e-4, atol=1e-3)
            continue
        assert names == [{"segmentation": "logits", "keypoints": "heatmaps"}[task]]
        if task == "keypoints":  # trained on BGR, whose channels have the statistics of RGB's
            images = images[:, [2, 1, 0]]
        torch.testing.assert_close(found[0], network(normalized(images)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", ["detection", "segmentation", "keypoints"])
def test_a_lean_checkpoint_of_a_transfer_task(task, tmp_path, monkeypatch):
    network = save_transfer_checkpoint(tmp_path / "last.pt", task)
    arguments = ["--model_path", tmp_path / "last.pt", "--format", "checkpoint"]
    assert call_script("export", [*arguments, "-o", tmp_path / "new.pt"], monkeypatch) == 0
    content = torch.load(tmp_path / "new.pt", weights_only=True)
    assert content["task"] == task and "optimizer" not in content
    assert_same_tensors(content["state_dict"], network.state_dict())


def test_flags_for_classification_are_refused_for_other_tasks(tmp_path, monkeypatch, capsys):
    save_transfer_checkpoint(tmp_path / "last.pt", "segmentation")
    arguments = ["--model_path", tmp_path / "last.pt", "--format", "checkpoint"]
    arguments += ["-o", tmp_path / "new.pt"]
    for flags in (["--set", "cifar10"], ["--no-auxiliary"]):
        status = call_script("export", [*arguments, *flags], monkeypatch)
        assert_one_line(status, capsys, flags[0].replace("no-", ""), "networks that classify")


def test_sides_that_a_network_for_keypoints_cannot_have(tmp_path, monkeypatch, capsys):
    save_transfer_checkpoint(tmp_path / "last.pt", "keypoints")
    arguments = ["--model_path", tmp_path / "last.pt", "--format", "checkpoint"]
    arguments += ["-o", tmp_path / "new.pt", "--image_size", "48"]
    status = call_script("export", arguments, monkeypatch)
    assert_one_line(status, capsys, "--image_size 48", "multiple of 32")
