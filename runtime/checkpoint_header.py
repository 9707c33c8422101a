"""What a checkpoint says it holds, checked before any of it is loaded.

A checkpoint is a pickle, which says what tensors there are, and their bytes: records of an
uncompressed zip file, or all in one file as PyTorch wrote them before version 1.6. The pickle is
read here without making anything of it but plain data: a dozen names may occur in it, and each
tensor has to fit into bytes that the file really has. So a small file cannot make PyTorch take a
lot of memory, nor read what is beyond its records.
"""

import io
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAX_READ = 8 << 20
"""Bytes of a file's pickles or directory; those of a supernet of 80 cells are less."""

MAX_TENSORS = 100_000

MAX_DIMENSIONS = 8

ZIP_MAGIC = b"PK\x03\x04"

LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)

ITEM_BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
"""Bytes of a number in each of PyTorch's storages."""

OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.MARK,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT, pickle.BINUNICODE,
    pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1,
    pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS,
    pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS,
    pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET,
    pickle.GLOBAL, pickle.REDUCE, pickle.BUILD, pickle.BINPERSID,
)  # fmt: skip
"""What `torch.save` makes of tensors and plain data."""


class NotLoadableError(ValueError):
    """The file is no checkpoint, or one that must not be loaded; the text says why."""


@dataclass(frozen=True)
class _StorageType:
    item_bytes: int


@dataclass(frozen=True)
class _Storage:
    numbers: int


class _Function:
    """Stands for a function that a pickle calls; new for each pickle, which may write to it."""

    def __init__(self, call: Callable) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)


class _Tensor:
    """Stands for a tensor of the pickle."""


def check_header(path: str | Path, has_comment: bool = False) -> None:
    """Check a checkpoint's directory and pickle, and the sizes that they claim.

    Args:
        has_comment: whether it is a zip file with a comment, which has been checked.

    Raises:
        NotLoadableError: it is not a checkpoint, or holds other things than tensors in their
            storages and plain data, or more than the file has bytes.
        OSError: the file cannot be opened.
    """
    with _LimitedFile(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
            file.seek(0)
            if is_zip:
                _check_zip(file, size, has_comment)
            else:
                _check_legacy(file, size)
        except NotLoadableError:
            raise
        except (zipfile.BadZipFile, OSError) as error:
            raise NotLoadableError(f"damaged zip file: {error}") from None
        except Exception as error:  # a pickle that makes no sense can fail in any way
            raise NotLoadableError(f"damaged pickle: {type(error).__name__}") from None


class _LimitedFile(io.FileIO):
    """A file of which at most `MAX_READ` bytes are read at a time."""

    def read(self, size: int | None = -1) -> bytes:
        is_all = size is None or size < 0
        content = super().read(MAX_READ + 1 if is_all else min(size, MAX_READ + 1))
        if len(content) > MAX_READ:
            raise NotLoadableError(f"its directory or pickle has more than {MAX_READ >> 20} MiB")
        return content


def _check_zip(file: _LimitedFile, size: int, has_comment: bool) -> None:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            raise NotLoadableError("a NumPy archive; its arrays must be saved by torch.save")
        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if len(records) < len(archive.infolist()) or bool(archive.comment) > has_comment:
            raise NotLoadableError("two records have the same name, or there is a comment")
        if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
            raise NotLoadableError("compressed, which checkpoints never are")
        if sum(info.file_size for info in records.values()) > size:
            raise NotLoadableError("its records are larger than the file")
        if "data.pkl" not in records:
            raise NotLoadableError("a zip file without a data.pkl")
        pickled = archive.read(records["data.pkl"])

    def find_storage(item_bytes: int, key: str, location: str, numbers: int) -> _Storage:
        record = records.get(f"data/{key}")
        if record is None or numbers * item_bytes > record.file_size:
            raise NotLoadableError(f"tensor bytes {key[:40]!r} are not all there")
        return _Storage(numbers)

    _HeaderUnpickler(io.BytesIO(pickled), find_storage).load()


def _check_legacy(file: _LimitedFile, size: int) -> None:
    # The pickles come first, and one read of a regular file gives all of them.
    pickles = io.BytesIO(io.FileIO.read(file, MAX_READ))
    storages: dict[str, _Storage] = {}
    claimed = 0

    def find_storage(
        item_bytes: int, key: str, location: str, numbers: int, view: None
    ) -> _Storage:
        nonlocal claimed
        if key not in storages:
            storages[key] = _Storage(numbers)
            claimed += numbers * item_bytes
        if claimed > size or storages[key].numbers != numbers or view is not None:
            raise NotLoadableError("tensors are larger than the file, or views of others")
        return storages[key]

    def load() -> object:
        return _HeaderUnpickler(pickles, find_storage).load()

    if not pickles.getvalue().startswith(LEGACY_MAGIC):
        raise NotLoadableError("not a file that PyTorch wrote")
    _magic, _protocol, _system, _content, keys = (load() for _ in range(5))
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise NotLoadableError("the list of its tensors' bytes is wrong")
    if sorted(keys) != sorted(storages):
        raise NotLoadableError("the list of its tensors' bytes is wrong")


class _HeaderUnpickler(pickle._Unpickler):
    """Reads a pickle of tensors and plain data; raises on anything else.

    Python's own unpickler in Python, of which only the opcodes that checkpoints use are kept.
    """

    dispatch = {opcode[0]: pickle._Unpickler.dispatch[opcode[0]] for opcode in OPCODES}  # noqa: RUF012

    def __init__(self, file: io.BytesIO, find_storage: Callable[..., _Storage]) -> None:
        super().__init__(file)
        self.find_storage = find_storage
        self.tensors = 0
        self.names: dict[str, object] = {
            "collections.OrderedDict": _Function(_new_dictionary),
            "torch._utils._rebuild_tensor": _Function(self._check_old_tensor),
            "torch._utils._rebuild_tensor_v2": _Function(self._check_tensor),
            "torch._utils._rebuild_parameter": _Function(_check_parameter),
        } | {f"torch.{name}": _StorageType(size) for name, size in ITEM_BYTES.items()}

    def find_class(self, module: str, name: str) -> object:
        found = self.names.get(f"{module}.{name}")
        if found is None:
            raise NotLoadableError(
                f"something else than tensors and plain data in it ({module}.{name})"[:200]
            )
        return found

    def persistent_load(self, identity: object) -> _Storage:
        match identity:
            case (
                "storage",
                _StorageType(item_bytes),
                str(key),
                str(location),
                int(numbers),
                *rest,
            ):
                self._count()
                if numbers < 0:
                    raise NotLoadableError("a tensor of negative size")
                return self.find_storage(item_bytes, key, location, numbers, *rest)
        raise NotLoadableError("tensor bytes are not described as PyTorch does")

    def load_setitem(self) -> None:
        self._set_items([self.stack.pop(), self.stack.pop()][::-1])

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def _set_items(self, items: list) -> None:
        # The hash of a tuple nested a million times would end the process.
        if not isinstance(self.stack[-1], dict) or any(
            type(key) not in (str, int) for key in items[::2]
        ):
            raise NotLoadableError("a dictionary with other keys than names and numbers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def load_build(self) -> None:
        state = self.stack.pop()
        # A state dict remembers the versions of its modules.
        if not isinstance(self.stack[-1], OrderedDict) or state.keys() != {"_metadata"}:
            raise NotLoadableError("an object with attributes")

    dispatch[pickle.BUILD[0]] = load_build

    def _check_tensor(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        requires_grad: bool,
        hooks: OrderedDict,
    ) -> _Tensor:
        self._count()
        numbers = (offset, *shape, *strides)
        if (
            not isinstance(storage, _Storage)
            or len(shape) != len(strides)
            or len(shape) > MAX_DIMENSIONS
            or any(type(number) is not int or number < 0 for number in numbers)
            or hooks
        ):
            raise NotLoadableError("a tensor is not described as PyTorch does")
        count = math.prod(shape)
        end = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
        if count > storage.numbers or (count and end > storage.numbers):
            raise NotLoadableError(
                f"a tensor of shape {list(shape)} in {storage.numbers} numbers"[:200]
            )
        return _Tensor()

    def _check_old_tensor(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> _Tensor:
        """As PyTorch before 0.4 described tensors."""
        return self._check_tensor(storage, offset, shape, strides, False, OrderedDict())

    def _count(self) -> None:
        self.tensors += 1
        if self.tensors > 2 * MAX_TENSORS:
            raise NotLoadableError(f"more than {MAX_TENSORS} tensors")


def _new_dictionary() -> OrderedDict:
    return OrderedDict()


def _check_parameter(tensor: _Tensor, requires_grad: bool, hooks: OrderedDict) -> _Tensor:
    if not isinstance(tensor, _Tensor) or hooks:
        raise NotLoadableError("a parameter is not described as PyTorch does")
    return tensor
