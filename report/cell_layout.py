"""Where everything in the picture of a cell goes: nodes, labels, and the ways of the edges.

A layered layout (Sugiyama et al., 1981). A node's layer is the length of the longest way to it
from an input. Just left of every intermediate node stand the labels of its two edges; an edge that
passes a layer has a lane of its own there, clear of nodes and labels, and edges cross in the gaps
between layers only. So no edge runs through a label or a node, whatever the genotype.

All lengths are inches; y grows downwards.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from report.cell_order import Item, Layers, fewest_crossings

LABEL_WIDTH = 0.58
LABEL_HEIGHT = 0.19
NODE_RADIUS = 0.125
INPUT_WIDTH = 0.44
INPUT_HEIGHT = 0.32
OUTPUT_WIDTH = 0.24
OUTPUT_HEIGHT = 0.6

LABEL_MARGIN = 0.03
"""Left of a label, inside its layer."""

APPROACH = 0.24
"""From the labels to their node."""

ARRIVAL_ANGLE = 0.5
"""Above and below the level at which a node's two edges come in, in radians."""

LABEL_DISTANCE = 0.25
"""Between the centres of a node's two labels."""

BLOCK_GAP = 0.11
"""Between the labels of one node and what is above or below them."""

LANE_DISTANCE = 0.09
"""Between two edges that pass side by side."""

SMALLEST_GAP = 0.34
"""Between two layers; wider where edges climb."""


@dataclass(frozen=True)
class Box:
    """A rectangle by its centre."""

    x: float
    y: float
    width: float
    height: float


@dataclass
class Edge:
    """An edge and its way through the picture.

    Attributes:
        source, target: the nodes it joins, numbered as in genotypes; the output is the last.
        operation: its operation; None for an edge to the output.
        label: where its label is; None for an edge to the output.
        path: its way, float (3n + 1, 2): a start and n cubic Bézier curves of three points each.
    """

    source: int
    target: int
    operation: str | None
    label: Box | None = None
    path: np.ndarray | None = None


@dataclass
class CellLayout:
    """A cell's picture.

    Attributes:
        nodes: the inputs 0 and 1, the intermediate nodes, and the output, by number.
        edges: those of the operations in the genotype's order, then those to the output.
        width, height: of the whole.
    """

    nodes: dict[int, Box]
    edges: list[Edge]
    width: float
    height: float


def lay_out_cell(pairs: Sequence[tuple[str, int]], concat: Iterable[int]) -> CellLayout:
    """The layout of a cell of a genotype; always the same for the same cell.

    Args:
        pairs: (operation, input), two for each intermediate node.
        concat: the nodes that are concatenated into the output.
    """
    output = len(pairs) // 2 + 2
    edges = [Edge(source, 2 + index // 2, name) for index, (name, source) in enumerate(pairs)]
    edges += [Edge(source, output, None) for source in concat]
    layers = _layers(edges, output)
    order = fewest_crossings(Layers([(edge.source, edge.target) for edge in edges], layers))
    return _Placement(edges, layers, order).layout()


def _layers(edges: list[Edge], output: int) -> list[int]:
    """The layer of each node, the inputs' being 0 and the output's the last."""
    layers = [0, 0]
    for node in range(2, output):
        layers.append(1 + max(layers[edge.source] for edge in edges if edge.target == node))
    return [*layers, 1 + max(layers)]


class _Placement:
    """Coordinates for the items of an order, and the ways of the edges through them."""

    SWEEPS = 24

    def __init__(self, edges: list[Edge], layers: list[int], order: list[list[Item]]) -> None:
        self.edges = edges
        self.layers = layers
        self.order = order
        self.last = len(order) - 1
        self.output = len(layers) - 1
        self.y: dict[tuple[int, Item], float] = {}
        for layer, items in enumerate(order):
            ends = np.cumsum([0.0, *self._distances(items)])
            for item, y in zip(items, ends - ends.mean(), strict=True):
                self.y[layer, item] = float(y)
        self.label_offset = self._label_offsets()
        for _ in range(self.SWEEPS):
            for layer in [*range(1, self.last), *range(self.last - 1, -1, -1)]:
                self._straighten(layer)

    def layout(self) -> CellLayout:
        """The finished layout, its upper left corner at (0, 0)."""
        ports = self._output_ports()
        self._place_columns(ports)
        nodes = self._node_boxes(ports)
        starts = self._start_points(nodes)
        for index, edge in enumerate(self.edges):
            self._route(index, edge, nodes, starts[index], ports)
        boxes = [*nodes.values(), *(edge.label for edge in self.edges if edge.label)]
        lanes = [y for (_, (kind, _)), y in self.y.items() if kind == "lane"]
        top = min([box.y - box.height / 2 for box in boxes] + lanes)
        bottom = max([box.y + box.height / 2 for box in boxes] + lanes)
        for edge in self.edges:
            edge.path[:, 1] -= top
            edge.label = edge.label and _moved_up(edge.label, top)
        nodes = {number: _moved_up(box, top) for number, box in nodes.items()}
        return CellLayout(nodes, self.edges, self.right[-1], bottom - top)

    def _distances(self, items: list[Item]) -> list[float]:
        """The least distances of neighbouring items' centres."""
        return [
            LANE_DISTANCE
            if first[0] == second[0] == "lane"
            else self._half_height(first) + BLOCK_GAP + self._half_height(second)
            for first, second in pairwise(items)
        ]

    def _half_height(self, item: Item) -> float:
        kind, number = item
        if kind == "lane":
            return 0.0
        return INPUT_HEIGHT / 2 if number < 2 else (LABEL_DISTANCE + LABEL_HEIGHT) / 2

    def _left_end(self, index: int, layer: int) -> Item:
        """The item in `layer` that edge `index` leaves to the right."""
        edge = self.edges[index]
        at_source = self.layers[edge.source] == layer
        return ("node", edge.source) if at_source else ("lane", index)

    def _label_offsets(self) -> list[float]:
        """How far each edge's label is from its node's centre: two do not cross before it."""
        offsets = [0.0] * len(self.edges)
        operations = [i for i, edge in enumerate(self.edges) if edge.operation is not None]
        for pair in zip(operations[::2], operations[1::2], strict=True):
            layer = self.layers[self.edges[pair[0]].target] - 1
            from_above = sorted(
                pair, key=lambda i: self.order[layer].index(self._left_end(i, layer))
            )
            for index, offset in zip(from_above, (-0.5, 0.5), strict=True):
                offsets[index] = offset * LABEL_DISTANCE
        return offsets

    def _right_end(self, index: int, layer: int) -> float:
        """The y at which edge `index` comes into `layer`."""
        target = self.edges[index].target
        if self.layers[target] == layer:
            return self.y[layer, ("node", target)] + self.label_offset[index]
        return self.y[layer, ("lane", index)]

    def _straighten(self, layer: int) -> None:
        """Move a layer's items to where their edges climb least, in order and clear of another."""
        wanted: dict[Item, list[float]] = {item: [] for item in self.order[layer]}
        for index, edge in enumerate(self.edges):
            first, end = self.layers[edge.source], self.layers[edge.target]
            if first <= layer < end and layer < self.last - 1:  # the output takes what comes
                wanted[self._left_end(index, layer)].append(self._right_end(index, layer + 1))
            if first < layer <= end:
                item = ("node", edge.target) if layer == end else ("lane", index)
                left = self.y[layer - 1, self._left_end(index, layer - 1)]
                wanted[item].append(left - (self.label_offset[index] if layer == end else 0.0))
        items = self.order[layer]
        centres = [
            float(np.mean(wanted[item])) if wanted[item] else self.y[layer, item] for item in items
        ]
        weights = [max(1, len(wanted[item])) for item in items]
        for item, y in zip(items, _spread(centres, weights, self._distances(items)), strict=True):
            self.y[layer, item] = y

    def _output_ports(self) -> dict[int, float]:
        """Where the edges to the output come in, straight across if there is room."""
        gap = self.last - 1
        into = [index for index, edge in enumerate(self.edges) if edge.target == self.output]
        into.sort(key=lambda index: self.y[gap, self._left_end(index, gap)])
        wanted = [self.y[gap, self._left_end(index, gap)] for index in into]
        ports = _spread(wanted, [1] * len(into), [LANE_DISTANCE] * (len(into) - 1))
        return dict(zip(into, ports, strict=True))

    def _place_columns(self, ports: dict[int, float]) -> None:
        """The layers' left and right ends; the more the edges climb, the wider the gaps."""
        inner = LABEL_MARGIN + LABEL_WIDTH + APPROACH + 2 * NODE_RADIUS
        widths = [INPUT_WIDTH, *[inner] * (self.last - 1), OUTPUT_WIDTH]
        self.left, self.right = [0.0], [widths[0]]
        for layer in range(1, self.last + 1):
            climbs = [
                abs(self._entry(index, layer, ports) - self.y[layer - 1, left])
                for index, edge in enumerate(self.edges)
                if self.layers[edge.source] < layer <= self.layers[edge.target]
                for left in [self._left_end(index, layer - 1)]
            ]
            self.left.append(self.right[-1] + max(SMALLEST_GAP, 0.3 * max(climbs)))
            self.right.append(self.left[-1] + widths[layer])

    def _entry(self, index: int, layer: int, ports: dict[int, float]) -> float:
        return ports[index] if layer == self.last else self._right_end(index, layer)

    def _node_boxes(self, ports: dict[int, float]) -> dict[int, Box]:
        nodes = {}
        for node in range(self.output):
            layer = self.layers[node]
            y = self.y[layer, ("node", node)]
            if node < 2:
                nodes[node] = Box(INPUT_WIDTH / 2, y, INPUT_WIDTH, INPUT_HEIGHT)
            else:
                diameter = 2 * NODE_RADIUS
                nodes[node] = Box(self.right[layer] - NODE_RADIUS, y, diameter, diameter)
        first, last = min(ports.values()), max(ports.values())
        height = max(OUTPUT_HEIGHT, last - first + 2 * LANE_DISTANCE)
        x = self.left[-1] + OUTPUT_WIDTH / 2
        nodes[self.output] = Box(x, (first + last) / 2, OUTPUT_WIDTH, height)
        return nodes

    def _start_points(self, nodes: dict[int, Box]) -> dict[int, tuple[float, float]]:
        """Where each edge leaves its source: fanned out, in the order of where they go."""
        starts = {}
        for node, box in nodes.items():
            own = [index for index, edge in enumerate(self.edges) if edge.source == node]
            layer = self.layers[node] + 1
            own.sort(key=lambda index: self._first_aim(index, layer))
            for place, index in enumerate(own):
                share = (place + 0.5) / len(own) * 2 - 1  # from −1 at the top to 1
                if node < 2:
                    starts[index] = (box.x + box.width / 2, box.y + 0.42 * share * box.height)
                else:
                    angle = 0.9 * share
                    starts[index] = (
                        box.x + NODE_RADIUS * np.cos(angle), box.y + NODE_RADIUS * np.sin(angle)
                    )  # fmt: skip
        return starts

    def _first_aim(self, index: int, layer: int) -> tuple[float, int]:
        if layer == self.last:
            return self.order[layer - 1].index(self._left_end(index, layer - 1)), index
        return self._right_end(index, layer), index

    def _route(
        self,
        index: int,
        edge: Edge,
        nodes: dict[int, Box],
        start: tuple[float, float],
        ports: dict[int, float],
    ) -> None:
        """Set the edge's path and label."""
        points = [start]
        end = self.layers[edge.target]
        for layer in range(self.layers[edge.source] + 1, end + 1):
            y = self._entry(index, layer, ports)
            points += _level_curve(points[-1], (self.left[layer], y))
            if layer < end:
                points += _level_curve(points[-1], (self.right[layer], y))
        if edge.operation is not None:
            x, y = points[-1]
            edge.label = Box(x + LABEL_MARGIN + LABEL_WIDTH / 2, y, LABEL_WIDTH, LABEL_HEIGHT)
            after_label = (x + LABEL_MARGIN + LABEL_WIDTH, y)
            points += _level_curve(points[-1], after_label)
            node = nodes[edge.target]
            angle = ARRIVAL_ANGLE * np.sign(self.label_offset[index])
            outward = np.array([-np.cos(angle), np.sin(angle)])
            tip = np.array([node.x, node.y]) + NODE_RADIUS * outward
            # Bend where the ray from the node meets the label's level: no hump, straight arrows.
            bend = tip + (y - tip[1]) / outward[1] * outward
            points += [(after_label[0] + APPROACH / 2, y), tuple(bend), tuple(tip)]
        edge.path = np.array(points, dtype=np.float64)


def _spread(wanted: list[float], weights: list[float], distances: list[float]) -> list[float]:
    """The places nearest to those `wanted` (least weighted squares) that keep the `distances`.

    Pools adjacent violators: isotonic regression once the distances are subtracted.
    """
    offsets = np.cumsum([0.0, *distances])
    pools: list[list[float]] = []  # mean, weight, members
    for place, weight, offset in zip(wanted, weights, offsets, strict=True):
        pools.append([place - offset, weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, weight, members = pools.pop()
            before = pools[-1]
            total = before[1] + weight
            before[0] = (before[0] * before[1] + mean * weight) / total
            before[1], before[2] = total, before[2] + members
    means = [mean for mean, _, members in pools for _ in range(int(members))]
    return [float(mean + offset) for mean, offset in zip(means, offsets, strict=True)]


def _level_curve(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """A Bézier curve from `start`, level at both ends: its last three points."""
    middle = (start[0] + end[0]) / 2
    return [(middle, start[1]), (middle, end[1]), end]


def _moved_up(box: Box, distance: float) -> Box:
    return Box(box.x, box.y - distance, box.width, box.height)
