"""CUDA graphs: a step's hundreds of kernels, recorded once and launched together from then on."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Step = Callable[..., None]

WARM_UP_CALLS = 3
"""Calls that run as they are before one is recorded, as PyTorch advises: libraries choose their
kernels, and the optimizer makes its buffers, on the stream that records."""


class Recorder(Protocol):
    """What records a function's work on a device; `CudaGraphs`, or a stand-in in tests."""

    def run(self, function: Callable[[], None]) -> None:
        """Call `function` on the stream that records."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """What `function` would launch, without running it; calling the result runs it."""


class CudaGraphs:
    """Records on a GPU. All graphs share a pool of memory, so one at a time may be in use."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, function: Callable[[], None]) -> None:
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            function()
        current.wait_stream(self.stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            function()
        return graph.replay


class ReplayedStep:
    """A step over batches of which all but the first calls are replays of one recording.

    Every call counts: the first ones run the step as it is. So does a batch of another shape than
    the first one's, such as a smaller last one.

    Args:
        step: works on the tensors it is called with and on others that stay where they are;
            returns nothing, waits for nothing, and does the same in every call.
    """

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self.step = step
        self.recorder = recorder
        self._inputs: tuple[Tensor, ...] = ()
        self._calls = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self, *batch: Tensor) -> None:
        if not self._inputs:
            self._inputs = tuple(torch.empty_like(tensor) for tensor in batch)
        if any(a.shape != b.shape for a, b in zip(self._inputs, batch, strict=True)):
            self.recorder.run(lambda: self.step(*batch))
            return
        # The recording reads its inputs where they were when it was made.
        for own, given in zip(self._inputs, batch, strict=True):
            own.copy_(given)
        self._calls += 1
        if self._calls <= WARM_UP_CALLS:
            self.recorder.run(lambda: self.step(*self._inputs))
            return
        if self._replay is None:
            self._replay = self.recorder.record(lambda: self.step(*self._inputs))
        self._replay()
