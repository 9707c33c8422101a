"""The supernet: one set of weights for every network of the search space.

Every candidate operation on every edge of every cell exists once, for the whole search. A
candidate network is a choice of active operations (`arch_info`); only those are run, trained or
touched.
"""

from collections import Counter
from collections.abc import Iterator

from torch import Tensor, nn

from genotypes import PRIMITIVES, Genotype
from operations import OPERATIONS, FactorizedReduce, ReLUConvBN, drop_path_scales
from slow_fast_learning import NODES
from speed.concatenation import concatenate
from speed.memory import recomputed

ArchInfo = list[list[int]]
"""Cell by cell the indices of the active operations, two for each node, in the nodes' order."""


def operation_index(node: int, source: int, primitive: str) -> int:
    """Where a cell keeps the candidate `primitive` on the edge from input `source` to `node`.

    Nodes are numbered from 0 here; node i has the inputs 0..i+1.
    """
    edges_before = node * (node + 3) // 2
    return (edges_before + source) * len(PRIMITIVES) + PRIMITIVES.index(primitive)


class SearchCell(nn.Module):
    """A cell with all its candidate operations, in `_ops`."""

    def __init__(
        self, C_prev_prev: int, C_prev: int, C: int, reduction: bool, reduction_prev: bool
    ) -> None:
        super().__init__()
        self.reduction = reduction
        if reduction_prev:
            self.preprocess0: nn.Module = FactorizedReduce(C_prev_prev, C)
        else:
            self.preprocess0 = ReLUConvBN(C_prev_prev, C, 1, 1, 0)
        self.preprocess1 = ReLUConvBN(C_prev, C, 1, 1, 0)
        self._ops = nn.ModuleList()
        self._inputs = []  # of each operation: the state it reads
        for node in range(NODES):
            for source in range(node + 2):
                # Only the cell's two inputs still have the size before the reduction.
                stride = 2 if reduction and source < 2 else 1
                self._ops.extend(OPERATIONS[name](C, stride) for name in PRIMITIVES)
                self._inputs.extend([source] * len(PRIMITIVES))

    def forward(
        self, s0: Tensor, s1: Tensor, active: list[int], scales: Tensor | None, recompute: bool
    ) -> Tensor:
        """The nodes' sums, concatenated; `scales` are drop path's for the active operations."""
        run = recomputed if recompute and self.training else _run
        states = [run(self.preprocess0, s0), run(self.preprocess1, s1)]
        for first in range(0, len(active), 2):
            terms = []
            for position in (first, first + 1):
                operation = self._ops[active[position]]
                term = run(operation, states[self._inputs[active[position]]])
                # Skip connections are spared: with them a whole way through the cell stays open.
                if scales is not None and not isinstance(operation, nn.Identity):
                    term = term * scales[position]
                terms.append(term)
            states.append(terms[0] + terms[1])
        return concatenate(states[2:])


def _run(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


class Supernet(nn.Module):
    """The weight set, and the forward pass of any candidate in it.

    Args:
        C: channels of the first cells; the stem has three times as many.
        num_classes: outputs of the classifier.
        layers: number of cells; those at layers//3 and 2·layers//3 are reduction cells.
        recompute: keep only the operations' inputs for the backward pass and compute the rest
            again: the same results in less memory, for more time.

    `drop_path_prob` is the probability of dropping an operation's output in training.
    """

    def __init__(self, C: int, num_classes: int, layers: int, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        C_stem = 3 * C
        self.stem = nn.Sequential(
            nn.Conv2d(3, C_stem, 3, padding=1, bias=False), nn.BatchNorm2d(C_stem)
        )
        self.cells = nn.ModuleList()
        C_prev_prev, C_prev, C_curr = C_stem, C_stem, C
        reduction_prev = False
        for index in range(layers):
            reduction = index in (layers // 3, 2 * layers // 3)
            if reduction:
                C_curr *= 2
            self.cells.append(SearchCell(C_prev_prev, C_prev, C_curr, reduction, reduction_prev))
            reduction_prev = reduction
            C_prev_prev, C_prev = C_prev, NODES * C_curr
        self.classifier = nn.Linear(C_prev, num_classes)
        self.drop_path_prob = 0.0

    def arch_info(self, genotype: Genotype) -> ArchInfo:
        """Which candidate operations of each cell `genotype` makes active."""
        return [
            [
                operation_index(position // 2, source, name)
                for position, (name, source) in enumerate(
                    genotype.reduce if cell.reduction else genotype.normal
                )
            ]
            for cell in self.cells
        ]

    def forward(self, x: Tensor, arch_info: ArchInfo) -> Tensor:
        """Logits (N, num_classes) of the candidate `arch_info` for images (N, 3, H, W)."""
        s0 = s1 = self.stem(x)
        scales = [None] * len(self.cells)
        if self.training and self.drop_path_prob > 0:
            scales = drop_path_scales(list(map(len, arch_info)), self.drop_path_prob, s0)
        for cell, active, cell_scales in zip(self.cells, arch_info, scales, strict=True):
            s0, s1 = s1, cell(s0, s1, active, cell_scales, self.recompute)
        return self.classifier(s1.mean(dim=(2, 3)))

    def active_tensors(self, arch_info: ArchInfo) -> dict[str, Tensor]:
        """The parameters and buffers of a candidate, by their names in the state dict.

        They are its active operations and everything outside the candidate operations, not copied.
        """
        tensors: dict[str, Tensor] = {}
        for name, module in self._active_modules(arch_info):
            # With `keep_vars` parameters stay what the optimizer can train, buffers too are ours.
            tensors |= module.state_dict(prefix=f"{name}.", keep_vars=True)
        return tensors

    def batch_norms(self, arch_info: ArchInfo) -> Counter[nn.BatchNorm2d]:
        """The batch norms of a candidate, and how often each is in its network.

        That is twice where a node takes the same operation from the same input two times.
        """
        return Counter(
            part
            for _, module in self._active_modules(arch_info)
            for part in module.modules()
            if isinstance(part, nn.BatchNorm2d)
        )

    def _active_modules(self, arch_info: ArchInfo) -> Iterator[tuple[str, nn.Module]]:
        yield "stem", self.stem
        yield "classifier", self.classifier
        for number, (cell, active) in enumerate(zip(self.cells, arch_info, strict=True)):
            yield f"cells.{number}.preprocess0", cell.preprocess0
            yield f"cells.{number}.preprocess1", cell.preprocess1
            for index in active:
                yield f"cells.{number}._ops.{index}", cell._ops[index]
