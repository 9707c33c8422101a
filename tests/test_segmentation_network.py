"""BiSeNet against the state dict, the sizes and the outputs of the original's network."""

import copy
import gzip
import json

import numpy as np
import pytest
import torch
from helpers import FIXTURES, assert_same_tensors, formula_weights
from torch.utils.flop_counter import FlopCounterMode

from genotypes import DARTS_V2, RelativeNAS
from model import NetworkImageNet
from transfer.segmentation.checkpoints import converted_state_dict, our_name
from transfer.segmentation.network import BiSeNet, ConvNorm, share_batch_norms
from utils import parameter_count

with gzip.open(FIXTURES / "transfer" / "segmentation_network.json.gz", "rt") as file:
    REFERENCE = json.load(file)


@pytest.fixture(scope="module")
def published():
    """The published network without memory."""
    with torch.device("meta"):
        return BiSeNet(NetworkImageNet(46, 1000, 14, False, RelativeNAS))


@pytest.fixture(scope="module")
def in_memory(published):
    """The published network; its weights are none yet."""
    return copy.deepcopy(published).to_empty(device="cpu")


def tiny(**options):
    torch.manual_seed(0)
    # RelativeNAS would leave an input of its reduction cells unused.
    return BiSeNet(NetworkImageNet(4, 10, 3, False, DARTS_V2), **options)


def formula_state_dict(case):
    """The original's state dict by the formula in the reference, `weights_and_input`."""
    factor = case.get("weight_factor", 1)
    state = formula_weights(REFERENCE["state_dict"], case["seed"], factor)
    if "signed" in case:
        for name in REFERENCE["in_place_abn"]["names"]:
            state[f"{name}.weight"][1::2] *= -1
    return state


def assert_values(found, expected, tolerance):
    """Sums and values of a tensor, as far off as `tolerance` of its mean absolute value."""
    assert list(found.shape) == expected["shape"]
    found = found.double()
    total = expected["sum_of_absolute_values"]
    scale = total / found.numel()
    assert found.abs().sum().item() == pytest.approx(total, rel=tolerance)
    assert abs(found.sum().item() - expected["sum"]) <= tolerance * total
    values = torch.tensor(expected["values"], dtype=torch.float64)
    # Written with 6 digits.
    torch.testing.assert_close(
        found.flatten()[expected["positions"]], values, rtol=tolerance, atol=tolerance * scale
    )


def test_names_and_shapes_are_the_originals_under_our_names(published):
    original = {
        name: torch.empty(shape, device="meta") for name, shape in REFERENCE["state_dict"].items()
    }
    converted = converted_state_dict(original)
    own = published.state_dict()
    counts = {name for name in own if name.endswith("num_batches_tracked")} & set(converted)
    assert len(converted) == len(original) + len(REFERENCE["in_place_abn"]["names"])
    assert {name: tensor.shape for name, tensor in converted.items()} == {
        name: tensor.shape for name, tensor in own.items()
    }
    assert len(counts) == len([name for name in own if name.endswith("running_mean")])


def test_parameters_and_multiply_adds_are_the_originals(published):
    assert parameter_count(published) == REFERENCE["parameters"] == 6_944_645
    counts = {}
    for training in (True, False):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            published.train(training)(torch.zeros(2, 3, 1024, 1024, device="meta"))
        counts[training] = counter.get_total_flops() // 2 // 2
    # The original runs the auxiliary outputs when it tests, too.
    assert counts[True] == REFERENCE["multiply_adds"]["convolutions"] == 35_346_673_664
    assert counts[True] - counts[False] == 64 * (128 * 9 + 19) * (128**2 + 64**2)


def load(network, case):
    """Give the published network a case's weights, all outputs on; returns the case's images."""
    network.load_state_dict(converted_state_dict(formula_state_dict(case)))
    network.train()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.train(case["mode"] == "train")
    shape = (case.get("batch", 1), 3, *case["input_hw"])
    return torch.from_numpy(np.random.RandomState(case["seed"]).randn(*shape)).float()


@torch.no_grad()
@pytest.mark.parametrize("case", REFERENCE["outputs"], ids=lambda case: str(case["seed"]))
def test_outputs_are_the_originals(in_memory, case):
    network, images = in_memory, load(in_memory, case)
    outputs = dict(zip(("logits", "logits16", "logits32"), network(images), strict=True))
    maps = {}
    if case["mode"] == "eval":
        features = network.backbone.network.forward_features(images)
        maps = {f"cp.net[{index}]": features[8 << index] for index in range(3)}
        contexts = network.context(features[16], features[32], features[8].shape[2:])
        maps |= dict(zip(("cp stride 8", "cp stride 16"), contexts, strict=True))
        maps["sp"] = network.spatial(images)
        torch.testing.assert_close(network.eval()(images), outputs["logits"])
    assert [tensor["name"] for tensor in case["tensors"]] == [*maps, *outputs]
    for tensor in case["tensors"]:
        # The reference's values have 6 digits.
        tolerance = 1e-5 + 10 * case["float32_against_float64"].get(tensor["name"], 2e-6)
        assert_values((maps | outputs)[tensor["name"]], tensor, tolerance)
    state = network.state_dict()
    for tensor in case.get("buffers_after", []):
        assert_values(state[our_name(tensor["name"])], tensor, 1e-4)


def test_in_place_activated_norms_become_batch_norms():
    norm = json.loads((FIXTURES / "transfer" / "segmentation_parts.json").read_text())[
        "in_place_abn"
    ]
    names = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    state = {f"cp.conv_avg.bn.{ours}": torch.tensor(norm[key]) for key, ours in names.items()}
    layers = ConvNorm(3, 4, 1).eval()
    weights = {"0.weight": layers[0].weight}
    for name, tensor in converted_state_dict(state).items():
        weights[name.removeprefix("context.whole_image.1.")] = tensor
    layers.load_state_dict(weights)
    images = torch.from_numpy(np.random.RandomState(3).randn(2, 4, 2, 3)).float()
    expected = torch.tensor(norm["output"]).view(2, 4, 2, 3)
    # 1e-5 more or less at the weight 0.25 would be 4e-5 of the output.
    torch.testing.assert_close(layers[2](layers[1](images)), expected, rtol=1e-5, atol=1e-7)


def test_a_state_dict_of_ours_and_unknown_names_are_left_as_they_are():
    state = tiny().state_dict()
    assert_same_tensors(converted_state_dict(state), state)
    odd = {"cp.conv_avg.bn.weight": torch.tensor([-2.0]), "more.bn.weight": torch.tensor([-2.0])}
    # Without its statistics nothing says that it is a norm.
    assert converted_state_dict(odd) == {
        "context.whole_image.1.1.weight": odd["cp.conv_avg.bn.weight"],
        "more.bn.weight": odd["more.bn.weight"],
    }


@pytest.mark.parametrize("size", [(75, 97), (33, 16)])
def test_images_of_any_size_train_all_parameters(size):
    network = tiny(num_classes=3)
    outputs = network(torch.randn(2, 3, *size))
    assert [tuple(output.shape) for output in outputs] == [(2, 3, *size)] * 3
    sum(output.square().mean() for output in outputs).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(torch.randn(1, 3, *size)).shape == (1, 3, *size)


def test_a_network_with_too_few_cells_is_refused():
    with pytest.raises(ValueError, match="strides"):
        BiSeNet(NetworkImageNet(4, 10, 1, False, RelativeNAS))


@pytest.mark.parametrize("as_published", [False, True])
def test_batch_norms_are_shared_in_place(as_published):
    network = tiny()
    state, parameters = network.state_dict(), list(network.parameters())
    share_batch_norms(network, as_published)
    assert_same_tensors(network.state_dict(), state)
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    for name, part in network.named_modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            shared = isinstance(part, torch.nn.SyncBatchNorm)
            assert shared != (as_published and name.startswith("backbone.")), name
