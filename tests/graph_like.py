"""A recorder on the CPU that replays as a CUDA graph does.

It keeps every operation with the very tensors of the recording and later repeats them there,
without a line of Python in between. A recording leaves all memory as it was, and the host must not
ask for a number in it.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

WAITS = {
    aten._local_scalar_dense, aten.equal, aten.item, aten.is_nonzero, aten.masked_select,
    aten.nonzero,
}  # fmt: skip
"""Operations whose results the host needs to go on."""


class _Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []
        self.memory = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.overloadpacket in WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        # Inference mode shows some operations whole; what waits inside them must be seen.
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                return func.decompose(*args, **kwargs)
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.memory.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, result))
        return result


class GraphLike:
    """Stands in for `CudaGraphs`; counts its calls."""

    def __init__(self):
        self.calls = []

    def run(self, function):
        self.calls.append("run")
        function()

    def record(self, function):
        self.calls.append("record")
        recording = _Recording()
        random = torch.get_rng_state()
        try:
            with recording:
                function()
        finally:
            for storage, before in reversed(recording.memory.values()):
                storage.copy_(before)
            torch.set_rng_state(random)

        def replay():
            self.calls.append("replay")
            with torch.no_grad():
                for operation in recording.operations:
                    _repeat(*operation)

        return replay


def _repeat(func, args, kwargs, recorded):
    """Run an operation again; what it makes goes where the recorded one put it."""
    made = func(*args, **kwargs)
    if func.is_view or func._schema.is_mutable:
        return
    for old, new in zip(tree_leaves(recorded), tree_leaves(made), strict=True):
        if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
            old.copy_(new)
