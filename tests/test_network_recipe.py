"""The networks' parts against plain ones: drop path, pools, reductions, the auxiliary head."""

import pytest
import torch
import torch.nn.functional as F
from helpers import operations_of
from recording import recorded
from torch import nn

from genotypes import Genotype, RelativeNAS
from model import AuxiliaryHead, Cell, NetworkCIFAR, NetworkImageNet
from operations import OPERATIONS, FactorizedReduce, drop_path_scales


def test_drop_path_drops_whole_samples_and_keeps_the_expectation():
    torch.manual_seed(0)
    features = torch.ones(4000, 2, 3, 3, dtype=torch.bfloat16)
    first, second = drop_path_scales([3, 1], 0.25, features)
    assert first.shape == (3, 4000, 1, 1, 1) and second.shape == (1, 4000, 1, 1, 1)
    assert first.dtype == torch.bfloat16
    for values in (*first.float(), *second.float()):
        assert set(values.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).bfloat16().item()}
        assert values.mean().item() == pytest.approx(1, abs=0.03)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], second[0])


def one_node_cell(first, second, reduction):
    """A cell whose output is one node: the sum of two operations on its last input."""
    pairs = [(first, 1), (second, 1)]
    return Cell(Genotype(pairs, [2], pairs, [2]), 2, 2, 2, reduction, False)


def terms_and_output(cell, probability, count=64):
    """What the two operations gave out, and the cell."""
    terms = []
    handles = [
        operation.register_forward_hook(lambda *call: terms.append(call[2].detach()))
        for operation in operations_of(cell)
    ]
    torch.manual_seed(0)
    s0, s1 = torch.randn(2, count, 2, 4, 4)
    scales = drop_path_scales([2], probability, s0)[0] if probability else None
    with torch.no_grad():
        output = cell(s0, s1, scales)
    for handle in handles:
        handle.remove()
    return *terms, output


def times_seen(terms, output, factors):
    """In how many samples the output is the sum of the terms by these factors."""
    expected = sum(factor * term for factor, term in zip(factors, terms, strict=True))
    return torch.isclose(output, expected, atol=1e-5).flatten(1).all(dim=1).sum().item()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("reduction", [False, True])
def test_drop_path_drops_every_operation_but_an_unchanged_input(name, reduction):
    cell = one_node_cell("sep_conv_3x3", name, reduction)
    *terms, output = terms_and_output(cell, 0.5)
    skipped = name == "skip_connect" and not reduction
    factors = [(a, b) for a in (0, 2) for b in ((1,) if skipped else (0, 2))]
    seen = [times_seen(terms, output, pair) for pair in factors]
    assert sum(seen) == 64 and min(seen) > 5  # each combination, for they are drawn by themselves


def test_without_drop_path_a_node_is_the_sum_of_its_operations():
    cell = one_node_cell("sep_conv_3x3", "avg_pool_3x3", reduction=False)
    *terms, output = terms_and_output(cell, 0.0)
    torch.testing.assert_close(output, terms[0] + terms[1])


@pytest.mark.parametrize("layers", [3, 4, 8, 14])
@pytest.mark.parametrize(("network_class", "size"), [(NetworkCIFAR, 8), (NetworkImageNet, 64)])
def test_cells_that_reduce_and_the_one_that_the_auxiliary_head_sees(network_class, size, layers):
    with torch.device("meta"):
        network = network_class(2, 3, layers, True, RelativeNAS)
        sizes, seen = [], []
        for cell in network.cells:
            cell.register_forward_hook(lambda *call: sizes.append(call[2].shape))
        network.auxiliary_head.register_forward_hook(lambda *call: seen.append(len(sizes)))
        network(torch.empty(2, 3, size, size))
    first, second = layers // 3, 2 * layers // 3
    assert seen == [second + 1]
    for index, shape in enumerate(sizes):
        reductions = (index >= first) + (index >= second)
        assert shape == (2, 4 * 2 * 2**reductions, *[8 // 2**reductions] * 2)


@pytest.mark.parametrize(
    ("network_class", "size", "stride"), [(NetworkCIFAR, 32, 3), (NetworkImageNet, 224, 2)]
)
def test_the_auxiliary_head_is_the_published_one(network_class, size, stride):
    torch.manual_seed(0)
    network = network_class(2, 3, 3, True, RelativeNAS)
    head = network.auxiliary_head
    height = size // (4 if network_class is NetworkCIFAR else 32)
    features = torch.randn(4, 32, height, height)
    convolutions = [part for part in head.modules() if isinstance(part, nn.Conv2d)]
    norms = [part for part in head.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == (2 if network_class is NetworkCIFAR else 1)
    x = F.avg_pool2d(F.relu(features), 5, stride, count_include_pad=False)
    x = F.conv2d(x, convolutions[0].weight)
    x = F.relu(F.batch_norm(x, None, None, training=True))
    x = F.conv2d(x, convolutions[1].weight)
    if network_class is NetworkCIFAR:
        x = F.batch_norm(x, None, None, training=True)
    expected = F.linear(F.relu(x).flatten(1), head.classifier.weight, head.classifier.bias)
    torch.testing.assert_close(head(features), expected, rtol=1e-4, atol=1e-5)


def test_the_auxiliary_head_takes_maps_of_any_size():
    head = AuxiliaryHead(4, 3, pool_stride=3, last_batch_norm=True)
    for size in (1, 4, 8, 13):
        assert head(torch.randn(2, 4, size, size)).shape == (2, 3)


@pytest.mark.parametrize("stride", [1, 2])
def test_pools_are_plain_ones_without_padding_in_the_mean(stride):
    x = torch.randn(2, 3, 6, 6)
    ones = torch.ones(1, 3, 6, 6)
    average = OPERATIONS["avg_pool_3x3"](3, stride)
    torch.testing.assert_close(average(ones), torch.ones_like(average(ones)))
    sums = 9 * F.avg_pool2d(F.pad(x, [1] * 4), 3, stride)
    counts = 9 * F.avg_pool2d(F.pad(ones, [1] * 4), 3, stride)
    torch.testing.assert_close(average(x), sums / counts)
    largest = F.max_pool2d(F.pad(x, [1] * 4, value=-torch.inf), 3, stride)
    assert torch.equal(OPERATIONS["max_pool_3x3"](3, stride)(x), largest)


def test_a_factorized_reduce_takes_every_other_pixel_and_those_a_pixel_further():
    torch.manual_seed(0)
    reduce = FactorizedReduce(3, 5)
    x = torch.randn(4, 3, 6, 6)
    first = F.conv2d(F.relu(x), reduce.conv_1.weight, stride=2)
    second = F.conv2d(F.relu(x)[:, :, 1:, 1:], reduce.conv_2.weight, stride=2)
    assert (first.shape[1], second.shape[1]) == (2, 3)
    expected = F.batch_norm(torch.cat([first, second], dim=1), None, None, training=True)
    torch.testing.assert_close(reduce(x), expected, rtol=1e-4, atol=1e-5)


SEPARABLE = [
    ("sep_conv_3x3", 3, 1, 2), ("sep_conv_5x5", 5, 1, 2), ("sep_conv_7x7", 7, 1, 2),
    ("dil_conv_3x3", 3, 2, 1), ("dil_conv_5x5", 5, 2, 1),
]  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("name", "kernel_size", "dilation", "times"), SEPARABLE)
def test_separable_convolutions_are_plain_ones(name, kernel_size, dilation, times, stride):
    torch.manual_seed(0)
    operation = OPERATIONS[name](4, stride)
    x = torch.randn(3, 4, 8, 8)
    weights = iter([part.weight for part in operation.modules() if isinstance(part, nn.Conv2d)])
    expected = x
    for number in range(times):
        depthwise, pointwise = next(weights), next(weights)
        assert depthwise.shape == (4, 1, kernel_size, kernel_size)
        padding = dilation * (kernel_size // 2)
        step = stride if number == 0 else 1
        expected = F.conv2d(F.relu(expected), depthwise, None, step, padding, dilation, groups=4)
        expected = F.batch_norm(F.conv2d(expected, pointwise), None, None, training=True)
    assert not list(weights)
    torch.testing.assert_close(operation(x), expected, rtol=1e-4, atol=1e-4)


def test_drop_path_of_a_network_reaches_its_cells_in_training_only():
    torch.manual_seed(0)
    network = NetworkImageNet(2, 3, 3, True, RelativeNAS)
    images = torch.randn(64, 3, 32, 32)
    seen = []
    for cell in network.cells:
        cell.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    network.drop_path_prob = 0.4
    with recorded() as record:
        network(images)
        network.eval()(images)
        network.drop_path_prob = 0.0
        network(images)
    scales = torch.stack(seen[:3])
    assert set(scales.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    assert (scales[:, 1:] != scales[:, :1]).any() and (scales[1:] != scales[:1]).any()
    assert seen[3:] == [None] * 6
    assert torch.equal(record.forwards[1].logits, record.forwards[2].logits)
