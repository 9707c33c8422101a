"""Many tensors copied, moved and sent as one: each copy for itself costs a GPU a launch."""

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor


class FlatTensors(Mapping[str, Tensor]):
    """Copies of tensors by name, in one piece of memory for each dtype.

    The copies have the shapes and the layouts in memory of the given ones. Another process gets
    the pieces by way of the CPU, and has them on its own device of the same kind.

    Args:
        tensors: all on one device.

    Attributes:
        pieces: what the copies are views of, one-dimensional, by dtype.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        parts: dict[torch.dtype, list[Tensor]] = {}
        self._places: dict[str, tuple[torch.dtype, int, torch.Size, tuple[int, ...]]] = {}
        ends: dict[torch.dtype, int] = {}
        for name, tensor in tensors.items():
            tensor, dtype = _dense(tensor.detach()), tensor.dtype
            start = ends.get(dtype, 0)
            self._places[name] = (dtype, start, tensor.shape, tensor.stride())
            ends[dtype] = start + tensor.numel()
            parts.setdefault(dtype, []).append(tensor.as_strided((tensor.numel(),), (1,)))
        self.pieces = {dtype: torch.cat(own) for dtype, own in parts.items()}

    def __getitem__(self, name: str) -> Tensor:
        dtype, start, shape, stride = self._places[name]
        part = self.pieces[dtype][start : start + shape.numel()]
        return part.as_strided(shape, stride)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def to(self, device: torch.device | str) -> "FlatTensors":
        """The same on `device`: one copy for each dtype."""
        moved = FlatTensors({})
        moved._places = self._places
        moved.pieces = {dtype: piece.to(device) for dtype, piece in self.pieces.items()}
        return moved

    def copy_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Give `tensors` the values of these, in place; they have the same names and order."""
        with torch.no_grad():
            copy_all([*tensors.values()], [*self.values()])

    def __getstate__(self) -> dict:
        pieces = {dtype: (piece.device.type, piece.cpu()) for dtype, piece in self.pieces.items()}
        return {"_places": self._places, "pieces": pieces}

    def __setstate__(self, state: dict) -> None:
        self._places = state["_places"]
        self.pieces = {}
        for dtype, (kind, piece) in state["pieces"].items():
            own = torch.cuda.current_device() if kind == "cuda" else None
            self.pieces[dtype] = piece.to(torch.device(kind, own))


def copy_all(tensors: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each of `sources` into its tensor, on a GPU in few launches."""
    by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for tensor, source in zip(tensors, sources, strict=True):
        own = by_dtype.setdefault(source.dtype, ([], []))
        own[0].append(tensor)
        own[1].append(source)
    for own in by_dtype.values():  # of several dtypes each tensor would be a launch
        torch._foreach_copy_(*own)


def on_cpu(content: object) -> object:
    """`content` with its tensors on the CPU: what a GPU holds comes over in a few copies.

    Looks into dictionaries, lists and tuples; without a tensor on a GPU it is returned as it is.
    """
    found = {str(id(tensor)): tensor for tensor in _gpu_tensors(content)}
    return _replaced(content, FlatTensors(found).to("cpu")) if found else content


def _dense(tensor: Tensor) -> Tensor:
    """`tensor`, or a copy of it if its numbers do not fill a piece of memory without gaps."""
    reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor if reach + 1 == tensor.numel() else tensor.contiguous()


def _gpu_tensors(content: object) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        if content.is_cuda:
            yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _gpu_tensors(value)
    elif type(content) in (list, tuple):
        for value in content:
            yield from _gpu_tensors(value)


def _replaced(content: object, moved: FlatTensors) -> object:
    if isinstance(content, Tensor):
        # A tensor of its own: a file has a view's whole piece of memory in it.
        return moved[str(id(content))].clone() if str(id(content)) in moved else content
    if isinstance(content, dict):
        changed = copy.copy(content)  # with the versions that a state dict keeps in an attribute
        changed.update((key, _replaced(value, moved)) for key, value in content.items())
        return changed
    if type(content) in (list, tuple):
        return type(content)(_replaced(value, moved) for value in content)
    return content
