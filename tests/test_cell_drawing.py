"""Pictures of cells: nothing overlaps, no edge runs through another's label, double edges show."""

import functools
import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from genotypes import MAX_NODES, NAMED_GENOTYPES, OPERATION_NAMES, Genotype
from report.cell_drawing import OPERATION_COLOURS, SHORT_LABELS, draw_genotype
from report.cell_layout import lay_out_cell
from report.figure_file import rendered
from slow_fast_learning import decode, search_bounds


def random_genotype(seed):
    return decode(np.random.default_rng(seed).uniform(*search_bounds()))


def chain(nodes):
    """A cell as deep as can be, every node fed by the two before it."""
    return [("sep_conv_3x3", node + place) for node in range(nodes) for place in (0, 1)]


def one_input(nodes):
    """A cell as flat as can be: double edges only, all from one input."""
    return [("skip_connect", 1)] * (2 * nodes)


GENOTYPES = {
    **NAMED_GENOTYPES,
    **{f"random-{seed}": random_genotype(seed) for seed in range(20)},
    "one node": Genotype(one_input(1), [2], chain(1), [2]),
    "extremes": Genotype(chain(8), [2, 9], one_input(8), list(range(2, 10))),
}


class Drawn:
    """The artists of a picture, where they are in pixels."""

    def __init__(self, figure):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        self.boxes, self.edges, self.texts = {}, {}, {}
        for artist in figure.axes[0].get_children():
            gid = artist.get_gid() or ""
            if "-edge-" in gid:
                path = artist.get_path().transformed(artist.get_transform())
                (polyline,) = path.to_polygons(closed_only=False)
                self.edges[gid] = Path(polyline)
            elif gid.endswith("-text"):
                self.texts[gid.removesuffix("-text")] = artist.get_window_extent(renderer)
            elif gid:
                self.boxes[gid] = artist.get_window_extent(renderer)
        self.legend = figure.legends[0].get_window_extent(renderer)
        self.page = figure.bbox


@functools.cache
def drawn_genotype(name):
    return Drawn(draw_genotype(GENOTYPES[name]))


def ends(genotype, gid):
    """The (cell, node) pairs that the edge of that id joins."""
    name, _, index = gid.rsplit("-", 2)
    pairs, concat = (
        (genotype.normal, genotype.normal_concat)
        if name == "normal"
        else (genotype.reduce, genotype.reduce_concat)
    )
    index = int(index)
    if index < len(pairs):
        return {f"{name}-node-{pairs[index][1]}", f"{name}-node-{index // 2 + 2}"}
    output = len(pairs) // 2 + 2
    return {f"{name}-node-{concat[index - len(pairs)]}", f"{name}-node-{output}"}


@pytest.mark.parametrize("name", GENOTYPES)
def test_nothing_overlaps_and_no_edge_runs_through_a_label_or_a_node(name):
    genotype = GENOTYPES[name]
    drawn = drawn_genotype(name)
    labels = [gid for gid in drawn.boxes if "-label-" in gid]
    assert len(labels) == len(genotype.normal) + len(genotype.reduce)
    assert len(drawn.edges) == len(labels) + len(genotype.normal_concat + genotype.reduce_concat)
    for (first, box), (second, other) in itertools.combinations(drawn.boxes.items(), 2):
        assert not box.overlaps(other), (first, second)
    for gid, box in drawn.boxes.items():
        for edge, path in drawn.edges.items():
            if edge == gid.replace("-label-", "-edge-") or gid in ends(genotype, edge):
                continue
            assert not path.intersects_bbox(box.padded(1), filled=False), (edge, gid)
    for gid, text in drawn.texts.items():
        box = drawn.boxes[gid]
        assert Bbox.union([box, text]).bounds == box.bounds, gid
    for gid, box in [*drawn.boxes.items(), ("legend", drawn.legend)]:
        assert Bbox.union([drawn.page, box]).bounds == drawn.page.bounds, gid
        assert gid == "legend" or not box.overlaps(drawn.legend), gid
    for gid, path in drawn.edges.items():
        assert not path.intersects_bbox(drawn.legend, filled=False), gid


@pytest.mark.parametrize("name", GENOTYPES)
def test_inputs_are_left_the_output_is_right_and_edges_end_at_their_nodes(name):
    genotype = GENOTYPES[name]
    drawn = drawn_genotype(name)
    for cell, pairs in (("normal", genotype.normal), ("reduction", genotype.reduce)):
        nodes = [drawn.boxes[f"{cell}-node-{number}"] for number in range(len(pairs) // 2 + 3)]
        for node in nodes[2:-1]:
            assert max(nodes[0].x1, nodes[1].x1) < node.x0
            assert node.x1 < nodes[-1].x0
    for gid, path in drawn.edges.items():
        for node in ends(genotype, gid):
            assert path.intersects_bbox(drawn.boxes[node].padded(1), filled=False), (gid, node)


@pytest.mark.parametrize("name", GENOTYPES)
def test_two_edges_between_the_same_nodes_are_apart(name):
    genotype = GENOTYPES[name]
    drawn = drawn_genotype(name)
    pixels = 100  # an inch of a figure that is not saved
    for first, second in itertools.combinations(drawn.edges, 2):
        if ends(genotype, first) != ends(genotype, second):
            continue
        gaps = drawn.edges[first].vertices[:, None] - drawn.edges[second].vertices
        nearest = np.linalg.norm(gaps, axis=2).min(axis=1)
        assert nearest.max() > 0.2 * pixels, (first, second)


def test_there_is_a_double_edge_among_the_genotypes_tested():
    pairs = NAMED_GENOTYPES["RelativeNAS"].normal
    assert pairs[2] == pairs[3]


def test_the_legend_names_each_operation_once():
    figure = draw_genotype(NAMED_GENOTYPES["AmoebaNet"])
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    genotype = NAMED_GENOTYPES["AmoebaNet"]
    assert sorted(names) == sorted(
        {name for name, _ in genotype.normal + genotype.reduce} | {"concatenated"}
    )


def test_every_operation_has_a_colour_and_a_label_of_its_own():
    for table in (OPERATION_COLOURS, SHORT_LABELS):
        assert set(table) == set(OPERATION_NAMES)
        assert len(set(table.values())) == len(table)


@pytest.mark.parametrize("cell", [chain, one_input])
def test_the_largest_cell_is_drawn(cell):
    concat = list(range(2, MAX_NODES + 2))
    layout = lay_out_cell(cell(MAX_NODES), concat)
    boxes = [*layout.nodes.values(), *(edge.label for edge in layout.edges if edge.label)]
    assert len(boxes) == MAX_NODES + 3 + 2 * MAX_NODES
    for first, second in itertools.combinations(boxes, 2):
        beside = abs(first.x - second.x) >= (first.width + second.width) / 2 - 1e-9
        assert beside or abs(first.y - second.y) >= (first.height + second.height) / 2 - 1e-9


@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_the_same_genotype_gives_the_same_file(file_format):
    genotype = Genotype(one_input(1), [2], chain(1), [2])
    first, second = (rendered(draw_genotype(genotype), file_format) for _ in range(2))
    assert first == second


def test_lines_are_written_under_the_cells():
    plain = draw_genotype(NAMED_GENOTYPES["NASNet"])
    noted = draw_genotype(NAMED_GENOTYPES["NASNet"], ["first line", "second line"])
    assert noted.get_figheight() > plain.get_figheight()
    places = {text.get_text(): text.get_position()[1] for text in noted.axes[0].texts}
    first, second = places.pop("first line"), places.pop("second line")
    assert max(places.values()) < first < second < noted.get_figheight()
