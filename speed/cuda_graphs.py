"""CUDA graphs: a step's hundreds of kernels, recorded once and launched together from then on."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Step = Callable[..., None]

WARM_UP_CALLS = 3
"""Calls that run as they are before one is recorded, as PyTorch advises: libraries choose their
kernels, and the optimizer makes its buffers, on the stream that records."""


class GraphsFailed(RuntimeError):
    """CUDA graphs cannot be used here; the text says why."""


class Recorder(Protocol):
    """What records a function's work on a device; `CudaGraphs`, or a stand-in in tests."""

    def run(self, function: Callable[[], None]) -> None:
        """Call `function` on the stream that records."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """What `function` would launch, without running it; calling the result runs it."""


class CudaGraphs:
    """Records on a GPU. All graphs share a pool of memory, so one at a time may be in use."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self._keeper: torch.cuda.CUDAGraph | None = None

    def run(self, function: Callable[[], None]) -> None:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            function()
        current.wait_stream(self.stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        if self._keeper is None:
            # A pool goes with the last of its graphs, and must not be used again after that.
            self._keeper = self._capture(torch.zeros(1, device=self.device).zero_)
        try:
            return self._capture(function).replay
        except torch.OutOfMemoryError:
            pass
        # What steps outside graphs have freed is kept for more of them; a capture cannot ask for
        # it, so it is given back, now that what the failed capture held is free as well.
        torch.cuda.empty_cache()
        return self._capture(function).replay

    def _capture(self, function: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """As `torch.cuda.graph` does, but without waiting for the GPU and emptying caches."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.stream):
            # Threads of NCCL and of pinned memory ask about events of their own meanwhile.
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                function()
            except BaseException as error:
                self._end_failed(graph, error)
                raise
            graph.capture_end()
        return graph

    def _end_failed(self, graph: torch.cuda.CUDAGraph, reason: BaseException) -> None:
        try:
            graph.capture_end()
        except RuntimeError:
            # CUDA had ended the capture itself, for instance because the host was to wait. Until
            # PyTorch 2.12 the generator does not learn of it and refuses to draw; it gets a new
            # state, to be seeded anew.
            fresh = torch.Generator(self.device)
            torch.cuda.default_generators[fresh.device.index].graphsafe_set_state(fresh)
            raise GraphsFailed(first_line(reason)) from reason


class ReplayedStep:
    """A step over batches of which all but the first calls are replays of one recording.

    Every call counts: the first ones run the step as it is. So does a batch of another shape than
    the first one's, such as a smaller last one.

    Args:
        step: works on the tensors it is called with and on others that stay where they are;
            returns nothing, waits for nothing, and does the same in every call.

    Raises:
        GraphsFailed: the step cannot be recorded.
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
            try:
                self._replay = self.recorder.record(lambda: self.step(*self._inputs))
            except RuntimeError as error:
                raise GraphsFailed(f"a step cannot be recorded: {first_line(error)}") from error
        self._replay()


def first_line(error: BaseException) -> str:
    """What an error says in its first line; its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
