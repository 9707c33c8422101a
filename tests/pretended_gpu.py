"""A GPU pretended on the CPU: what a real one refuses fails here, and its waits are listed.

Tensors say that they are on cuda:0 and hold their numbers on the CPU. It knows neither kernels nor
streams, no bf16, no DistributedDataParallel and no speed.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import ClassVar

import pytest
import torch
import torch._dynamo  # a dispatch mode does; not while names of torch are patched
from helpers import ROOT
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

import dataset.encoded_batches
import dataset.image_batches

aten = torch.ops.aten

GPU = torch.device("cuda", 0)

WAITING = {
    aten._local_scalar_dense.default, aten.item.default, aten.equal.default,
    aten.is_nonzero.default, aten.nonzero.default, aten.masked_select.default,
}  # fmt: skip
"""Operations whose result the host needs before it goes on."""

waits: Counter[str] = Counter()
"""How often the host waited for the device, by the project's function that made it."""


class OnGPU(Tensor):
    """A tensor on the pretended GPU; its numbers are in `held`, on the CPU."""

    device = property(lambda _: GPU)
    is_cuda = property(lambda _: True)
    is_cpu = is_meta = property(lambda _: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGPU":
        with torch.inference_mode(False):
            shape = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
            tensor = torch.Tensor._make_subclass(cls, shape)
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})

    def tolist(self) -> list:
        _wait()
        return self.held.tolist()

    def numpy(self) -> None:
        raise AssertionError("a GPU's tensor given to NumPy")

    def __reduce_ex__(self, protocol: int) -> None:
        raise AssertionError("a GPU's tensor pickled: for a file, or for another process")


class _Mode(TorchDispatchMode):
    """Brings operations that only name the device here, too."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


class _Generator(torch.Generator):
    """A generator of the CPU that says it is the pretended GPU's."""

    known: ClassVar[dict[int, torch.device]] = {}

    def __new__(cls, device="cpu"):
        generator = super().__new__(cls)
        cls.known[generator._cdata] = torch.device(device)
        return generator


class _Event:
    def record(self) -> None: ...

    def synchronize(self) -> None:
        _wait()


@contextmanager
def pretended_gpu() -> Iterator[Counter[str]]:
    """Within the block there is one GPU, cuda:0; yields the places where the host waits for it."""
    waits.clear()
    _Generator.known.clear()
    real_tensor = torch.tensor

    def tensor(data, device=None, **options):
        made = real_tensor(data, **options)
        return made if device is None else made.to(device)

    def nothing(*_):
        pass

    patches = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.set_device": nothing,
        "torch.cuda._lazy_init": nothing,
        "torch.cuda.device": lambda _: nullcontext(),
        "torch.cuda.Event": _Event,
        "torch.accelerator.is_available": lambda: True,
        "torch.tensor": tensor,
        "torch.backends.cudnn.benchmark": False,
        "torch.backends.cudnn.allow_tf32": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, stand_in in patches.items():
            patch.setattr(name, stand_in)
        for module in (dataset.encoded_batches, dataset.image_batches):
            patch.setattr(module, "Generator", _Generator)
        patch.setattr(Tensor, "pin_memory", _pinned)
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            with _Mode(), torch.autograd.set_multithreading_enabled(False):
                yield waits
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)


def _run(operation, args, kwargs):
    if operation is torch.ops.prim.device.default:
        return GPU
    if torch._C._dispatch_has_kernel_for_dispatch_key(
        operation.name(), "CompositeImplicitAutograd"
    ):
        # Inference mode hands over whole what is made of others, which may wait.
        with _Mode():
            return operation.decompose(*args, **kwargs)
    values, _ = tree_flatten((args, kwargs))
    tensors = [value for value in values if isinstance(value, Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, OnGPU)]
    device = kwargs.get("device")
    # PyTorch's own code takes an `OnGPU` for a tensor on the device meta.
    goes_to_gpu = device is not None and torch.device(device).type in ("cuda", "meta")
    if not here and not goes_to_gpu:
        return operation(*args, **kwargs)
    if operation is aten._to_copy.default and device is not None:
        return _copy(args[0], goes_to_gpu, kwargs)
    if operation is aten.copy_.default and len(here) < len(tensors):
        _wait()  # of the CPU, and not by `to`
    elif here:
        strangers = [t for t in tensors if not isinstance(t, OnGPU) and t.dim()]
        assert not strangers, f"{operation} mixes devices at {_place()}"
    indices = args[1] if operation in (aten.index.Tensor, aten.index_put_.default) else ()
    selects = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
    if operation in WAITING or selects:
        _wait()
    for value in values:
        if isinstance(value, torch._C.Generator):
            own = _Generator.known.get(value._cdata)
            assert own is not None and own.type == "cuda", f"a CPU's generator at {_place()}"
    options = {**kwargs, "device": torch.device("cpu")} if goes_to_gpu else kwargs
    held_args, held_options = tree_map(_held, (args, options))
    result = operation(*held_args, **held_options)
    given = {id(tensor.held): tensor for tensor in here}  # in place: the same tensor comes back

    def on_gpu(value):
        if not isinstance(value, Tensor):
            return value
        return given[id(value)] if id(value) in given else OnGPU(value)

    return tree_map(on_gpu, result)


def _copy(tensor, goes_to_gpu, options):
    """From one device to another; without a wait only from or into pinned memory."""
    # What comes from the GPU asynchronously comes into pinned memory, which PyTorch makes.
    is_pinned = not goes_to_gpu or hasattr(tensor, "is_pretended_pinned")
    travels = goes_to_gpu != isinstance(tensor, OnGPU)
    if travels and not (is_pinned and options.get("non_blocking")):
        _wait()
    kept = {name: options[name] for name in ("dtype", "memory_format") if name in options}
    held = aten._to_copy.default(_held(tensor), **kept)
    return OnGPU(held) if goes_to_gpu else held


def _pinned(tensor: Tensor, *_: object) -> Tensor:
    assert not isinstance(tensor, OnGPU)
    pinned = tensor.clone()
    pinned.is_pretended_pinned = True
    return pinned


def _held(value):
    return value.held if isinstance(value, OnGPU) else value


def _wait() -> None:
    waits[_place()] += 1


def _place() -> str:
    """The innermost function of the project that runs, with its file."""
    frame = sys._getframe(1)
    while frame:
        file = frame.f_code.co_filename
        # The virtual environment may lie in the project's folder.
        if file.startswith(f"{ROOT}/") and not file.startswith((f"{ROOT}/tests/", sys.prefix)):
            function = frame.f_code.co_qualname.partition(".<locals>")[0]
            return f"{file.removeprefix(f'{ROOT}/')} {function}"
        frame = frame.f_back
    return "PyTorch"
