"""In which order the nodes and the passing edges of a layer stand, so that few edges cross.

Sugiyama et al., 1981: sort by the neighbours' places, then move single items as long as it helps.
"""

from collections.abc import Iterable, Sequence

import numpy as np

Item = tuple[str, int]
"""What a layer has in some order: ("node", number), or ("lane", index of the passing edge)."""

SEARCHED_PLACES = 200
"""Where items could be moved to in all; of a larger cell not every move is tried."""

RESTARTS = 25
"""Random orders that the search for the fewest crossings starts from, beside the plain one."""


class Layers:
    """Which items the layers have, and which items the edges join in the gaps between layers.

    Args:
        edges: (source, target) of each.
        layers: the layer of each node; the last node's is the last.
    """

    def __init__(self, edges: Sequence[tuple[int, int]], layers: Sequence[int]) -> None:
        last = layers[-1]
        self.items: list[list[Item]] = [[] for _ in range(last + 1)]
        for node, layer in enumerate(layers):
            self.items[layer].append(("node", node))
        self.joined: list[list[tuple[Item, Item]]] = [[] for _ in range(last)]
        for index, (source, target) in enumerate(edges):
            first, end = layers[source], layers[target]
            way: list[Item] = [("node", source)]
            for layer in range(first + 1, end):
                way.append(("lane", index))
                self.items[layer].append(way[-1])
            way.append(("node", target))
            for step, layer in enumerate(range(first, end)):
                self.joined[layer].append((way[step], way[step + 1]))

    def cost(self, order: list[list[Item]], layers: Iterable[int]) -> float:
        """Crossings in the gaps left and right of `layers`, and a little for long climbs."""
        gaps = {gap for layer in layers for gap in (layer - 1, layer)}
        return sum(self._gap_cost(order, gap) for gap in gaps if 0 <= gap < len(self.joined))

    def _gap_cost(self, order: list[list[Item]], gap: int) -> float:
        left, right = (_places(order[layer]) for layer in (gap, gap + 1))
        ends = [(left[first], right[second]) for first, second in self.joined[gap]]
        crossings = sum(
            (a - c) * (b - d) < 0 for i, (a, b) in enumerate(ends) for c, d in ends[i + 1 :]
        )
        return crossings + 0.01 * sum(abs(a - b) for a, b in ends)


def _places(items: list[Item]) -> dict[Item, float]:
    """Each item's place in its layer, 0 in the middle."""
    return {item: place - (len(items) - 1) / 2 for place, item in enumerate(items)}


def fewest_crossings(graph: Layers) -> list[list[Item]]:
    """An order of each layer's items in which edges cross as rarely as we can find."""
    plain = [list(items) for items in graph.items]
    _sort_by_neighbours(graph, plain)
    if sum(len(items) ** 2 for items in plain) > SEARCHED_PLACES:
        return plain
    random = np.random.default_rng(0)
    candidates = [plain]
    for _ in range(RESTARTS):
        # The inputs stay as they are numbered.
        shuffled = [
            list(items) if layer == 0 else [items[i] for i in random.permutation(len(items))]
            for layer, items in enumerate(graph.items)
        ]
        _sort_by_neighbours(graph, shuffled)
        candidates.append(shuffled)
    for order in candidates:
        while _move_items(graph, order):
            pass
    return min(candidates, key=lambda order: graph.cost(order, range(len(order))))


def _sort_by_neighbours(graph: Layers, order: list[list[Item]]) -> None:
    """Sort each layer by the mean place of the items it is joined to, forth and back."""
    last = len(order) - 1
    for layer in [*range(1, last + 1), *range(last - 1, 0, -1), *range(1, last + 1)]:
        neighbours: dict[Item, list[float]] = {item: [] for item in order[layer]}
        if layer > 0:
            places = _places(order[layer - 1])
            for left, right in graph.joined[layer - 1]:
                neighbours[right].append(places[left])
        if layer < last:
            places = _places(order[layer + 1])
            for left, right in graph.joined[layer]:
                neighbours[left].append(places[right])
        order[layer].sort(key=lambda item: float(np.mean(neighbours[item] or [0])))


def _move_items(graph: Layers, order: list[list[Item]]) -> bool:
    """Move items within their layers where that lowers the cost; returns whether one moved."""
    moved = False
    for layer in range(1, len(order)):
        cost = graph.cost(order, [layer])
        for item in list(order[layer]):
            for place in range(len(order[layer])):
                before = order[layer]
                after = [other for other in before if other != item]
                after.insert(place, item)
                order[layer] = after
                changed = graph.cost(order, [layer])
                if changed < cost - 1e-9:
                    cost, moved = changed, True
                else:
                    order[layer] = before
    return moved
