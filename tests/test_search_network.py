"""The supernet by hand: which operations a genotype means, strides, sizes, and drop path."""

import pytest
import torch
from helpers import operations_of

from genotypes import PRIMITIVES, Genotype, RelativeNAS
from model_search import SearchCell, Supernet, operation_index
from operations import drop_path_scales
from speed.batch_counts import counted_together

PROBABILITY = 0.25


def test_the_published_cells_operations_have_these_numbers():
    # Seven to an edge, the edges of a node in their inputs' order, node after node.
    normal = [3, 13, 24, 24, 45, 46, 65, 66]
    reduction = [8, 7, 27, 21, 57, 44, 90, 73]
    arch_info = Supernet(2, 10, 8).arch_info(RelativeNAS)
    assert arch_info == [reduction if cell in (2, 5) else normal for cell in range(8)]


@pytest.mark.parametrize("layers", [3, 5, 8])
def test_reduction_cells_halve_the_size_and_double_the_channels(layers):
    network = Supernet(2, 10, layers).eval()
    shapes = []
    for cell in network.cells:
        cell.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    network(torch.randn(1, 3, 16, 16), network.arch_info(RelativeNAS))
    expected, channels, size = [], 8, 16
    for index in range(layers):
        if index in (layers // 3, 2 * layers // 3):
            channels, size = 2 * channels, size // 2
        expected.append((channels, size, size))
    assert shapes == expected
    assert network.stem[0].out_channels == 6


def test_in_reduction_cells_only_operations_on_the_cells_inputs_have_a_stride():
    cell = SearchCell(2, 2, 2, reduction=True, reduction_prev=False)
    operations = operations_of(cell)
    image = torch.randn(1, 2, 8, 8)
    for node in range(4):
        for source in range(node + 2):
            for name in PRIMITIVES:
                operation = operations[operation_index(node, source, name)]
                assert operation(image).shape[2:] == ((4, 4) if source < 2 else (8, 8))


def make_cell(primitive, reduction=False):
    """A cell and its inputs; every node takes `primitive` from both of the cell's inputs."""
    torch.manual_seed(0)
    cell = SearchCell(4, 4, 4, reduction, reduction_prev=False)
    active = [operation_index(node, source, primitive) for node in range(4) for source in (0, 1)]
    return cell, torch.randn(64, 4, 6, 6), torch.randn(64, 4, 6, 6), active


def scales_of(features, probability):
    """Drop path's factors for a cell of eight operations."""
    (scales,) = drop_path_scales([8], probability, features)
    return scales


def test_drop_path_zeroes_an_operations_output_for_whole_samples_and_scales_the_others():
    cell, s0, s1, active = make_cell("avg_pool_3x3")
    with torch.no_grad():
        output = cell(s0, s1, active, scales_of(s0, PROBABILITY), False)
        pool = torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        terms = pool(cell.preprocess0(s0)), pool(cell.preprocess1(s1))
    kept = {True: 1 / (1 - PROBABILITY), False: 0.0}
    counts = {}
    for node in range(4):
        for sample in range(64):
            actual = output[sample, 4 * node : 4 * (node + 1)]
            matches = [
                (a, b)
                for a in (True, False)
                for b in (True, False)
                if torch.allclose(
                    actual, kept[a] * terms[0][sample] + kept[b] * terms[1][sample], atol=1e-5
                )
            ]
            assert len(matches) == 1
            counts[matches[0]] = counts.get(matches[0], 0) + 1
    # Of 256: 144 keep both, 48 the first, 48 the second and 16 neither, on average.
    assert 120 < counts[True, True] < 170
    assert 25 < counts[True, False] < 75 and 25 < counts[False, True] < 75
    assert 4 < counts[False, False] < 32


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("reduction", [False, True])
def test_drop_path_spares_skip_connections_that_change_nothing(primitive, reduction):
    cell, s0, s1, active = make_cell(primitive, reduction)
    with torch.no_grad():
        plain = cell(s0, s1, active, None, False)
        dropped = cell(s0, s1, active, scales_of(s0, 0.5), False)
    is_spared = primitive == "skip_connect" and not reduction
    assert torch.equal(plain, dropped) == is_spared


def test_every_cells_drop_path_has_the_networks_probability_in_training_only():
    torch.manual_seed(0)
    network = Supernet(2, 10, 3)
    seen = []
    for cell in network.cells:
        cell.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[3]))
    images, arch_info = torch.randn(500, 3, 4, 4), network.arch_info(RelativeNAS)
    network(images, arch_info)
    network.eval()
    network.drop_path_prob = 0.3
    network(images, arch_info)
    assert seen == [None] * 6
    network.train()(images, arch_info)
    scales = torch.stack(seen[6:])
    assert scales.shape == (3, 8, 500, 1, 1, 1)
    assert set(scales.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    # Each operation's samples are dropped by themselves: of 500, 150 on average.
    dropped = (scales == 0).flatten(2).sum(dim=2).flatten()
    assert ((dropped > 100) & (dropped < 200)).all() and len(dropped.unique()) > 8


def test_batch_norms_are_counted_as_often_as_a_candidate_runs_them():
    network = Supernet(2, 10, 3)
    twice = Genotype([("dil_conv_3x3", 0)] * 8, [2, 3, 4, 5], RelativeNAS.reduce, [2, 3, 4, 5])
    arch_info = network.arch_info(twice)
    network(torch.randn(2, 3, 8, 8), arch_info)
    seen = {
        norm: norm.num_batches_tracked.item()
        for norm in network.modules()
        if isinstance(norm, torch.nn.BatchNorm2d) and norm.num_batches_tracked
    }
    assert network.batch_norms(arch_info) == seen and set(seen.values()) == {1, 2}
    with counted_together(network.batch_norms(arch_info)) as count_batches:
        for _ in range(3):
            network(torch.randn(2, 3, 8, 8), arch_info)
        count_batches(3)
    assert {norm: norm.num_batches_tracked.item() for norm in seen} == {
        norm: 4 * count for norm, count in seen.items()
    }
