"""Checkpoints: written so that a whole one is always there, checked and read as data only."""

import hashlib
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from runtime.atomic_file import write_whole_file
from runtime.checkpoint_header import NotLoadableError, check_header
from runtime.errors import UserError
from runtime.flat_tensors import on_cpu
from runtime.out_of_memory import is_out_of_memory

SEAL = b"sha256:"
"""What a checkpoint's checksum begins with."""

SEAL_BYTES = len(SEAL) + 32

STATE_DICT_NAMES = ("state_dict", "model")
"""What a checkpoint may keep its state dict under, in the order in which they are looked for."""

WRAPPERS = ("module", "_orig_mod")
"""Parts of a parameter's name that stand for a wrapper around the network."""


class DamagedCheckpointError(UserError):
    """A file that could be read, and is no whole checkpoint."""


def save_checkpoint(content: dict, path: Path, keep_previous: bool = False) -> None:
    """Write `content` so that a kill at any moment leaves the old or the new file whole.

    Args:
        keep_previous: keep the file before it, for `load_newest_checkpoint`.

    Raises:
        OSError: it cannot be written; the files of before are whole.
    """
    # In memory first: PyTorch's writer turns a full disk into an error that does not say so.
    sealed = _sealed(content)
    _, previous, _ = checkpoint_files(path)
    write_whole_file(path, sealed, previous if keep_previous else None)


def checkpoint_files(path: Path) -> tuple[Path, Path, Path]:
    """The files of last.pt, say: itself, last.previous.pt, and last.damaged.pt."""
    return path, *(path.with_stem(f"{path.stem}.{which}") for which in ("previous", "damaged"))


def load_newest_checkpoint(path: Path) -> dict | None:
    """The checkpoint in `path`, or with a warning the one before it; None if there is neither.

    A damaged file is moved out of the way, but kept.

    Raises:
        UserError: both are damaged, or the system does not let one be read.
    """
    _, previous, damaged = checkpoint_files(path)
    if not path.exists() and not previous.exists():
        return None
    problem = UserError(f"checkpoint {path}: is missing")
    if path.exists():
        try:
            return load_checkpoint(path)
        except DamagedCheckpointError as error:
            problem = error
    try:
        content = load_checkpoint(previous)
    except UserError as error:
        raise UserError(f"{problem}; before it, {error}; begin anew without --resume") from None
    if path.exists():
        # Else the next save would keep it in place of the whole one.
        os.replace(path, damaged)
    log = logging.getLogger("relativenas")
    log.warning("warning: %s; going on from the one before it, %s", problem, previous)
    return content


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict:
    """Read a checkpoint; code in it is never run.

    Raises:
        UserError: the file cannot be read.
        DamagedCheckpointError: it is damaged, holds something else than data, or claims
            more of it than the file has bytes (see `checkpoint_header`).
    """
    try:
        is_sealed = _check_seal(path)
        check_header(path, is_sealed)
        content = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise UserError(f"checkpoint {path}: {error.strerror or error}") from None
    except NotLoadableError as error:
        raise DamagedCheckpointError(
            f"checkpoint {path}: no checkpoint, or a damaged or hostile one, which is never loaded "
            f"({error})"
        ) from None
    except Exception as error:  # a damaged file can make PyTorch fail in any way
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedCheckpointError(f"checkpoint {path}: damaged ({reason})") from None
    if not isinstance(content, dict):
        raise DamagedCheckpointError(
            f"checkpoint {path}: holds a {type(content).__name__}, not a dictionary"
        )
    return content


def _sealed(content: dict) -> memoryview:
    """`content` as `torch.save` writes it, with a checksum of all the bytes at the end.

    The file is a zip archive, whose comment is the checksum: `torch.load` reads it as ever. It has
    sums of its own, but only of its records, so that a flipped bit can lead astray.
    """
    buffer = io.BytesIO()
    torch.save(on_cpu(content), buffer)
    with buffer.getbuffer() as archive:
        # An archive without a comment ends with the length of its comment.
        archive[-2:] = SEAL_BYTES.to_bytes(2, "little")
        seal = SEAL + hashlib.sha256(archive).digest()
    buffer.seek(0, os.SEEK_END)
    buffer.write(seal)
    return buffer.getbuffer()


def _check_seal(path: str | Path) -> bool:
    """Compare a file's bytes with the checksum at its end; returns whether it has one.

    Raises:
        ValueError: they differ.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        left = max(0, os.fstat(file.fileno()).st_size - SEAL_BYTES)
        file.seek(left)
        seal = file.read(SEAL_BYTES)
        if not seal.startswith(SEAL):
            return False
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(min(left, 1 << 20)):
            digest.update(chunk)
            left -= len(chunk)
    if seal != SEAL + digest.digest():
        raise ValueError("its checksum is wrong")
    return True


def published_state_dict(content: Mapping, path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, under the names that the network has without its wrappers.

    It is the content itself, or its `state_dict` or `model`. `DistributedDataParallel` and
    `torch.compile` put `module.` and `_orig_mod.` into the names. PyTorch before 0.4 did not count
    batch norm's batches, and its files get a count of 0, as from `load_state_dict`.

    Raises:
        UserError: it is not a dictionary of tensors, or two of them get the same name; names the
            file.
    """
    state = next((content[name] for name in STATE_DICT_NAMES if name in content), content)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise UserError(f"checkpoint {path}: holds no state dict (names and their tensors)")
    unwrapped = {_without_wrappers(name): tensor for name, tensor in state.items()}
    if len(unwrapped) < len(state):
        raise UserError(
            f"checkpoint {path}: holds the same names with and without {' and '.join(WRAPPERS)}; "
            "save one network's state dict"
        )
    if not any(name.endswith(".num_batches_tracked") for name in unwrapped):
        means = [name for name in unwrapped if name.endswith(".running_mean")]
        unwrapped |= {_count_beside(name): torch.tensor(0) for name in means}
    return unwrapped


def _count_beside(running_mean: str) -> str:
    return running_mean.removesuffix("running_mean") + "num_batches_tracked"


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def check_weights(
    expected_state: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | Path
) -> None:
    """Check that `state` has the names and shapes of `expected_state`.

    Raises:
        UserError: they differ; names the file and the first few of the names.
    """
    expected = {name: tensor.shape for name, tensor in expected_state.items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    differing = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    if differing:
        described = ", ".join(_difference(name, expected, found) for name in differing[:3])
        flags = "--arch, --init_channels and --layers"
        if any(name.startswith("auxiliary_head.") for name in differing):
            flags = "--arch, --init_channels, --layers and --auxiliary"
        raise UserError(
            f"checkpoint {path} is of another architecture: {len(differing)} names differ, first "
            f"{described}; check {flags}"
        )


def _difference(name: str, expected: Mapping, found: Mapping) -> str:
    if name not in found:
        return f"{name} is missing"
    if name not in expected:
        return f"{name[:80]!r} is not part of the network"
    return f"{name} is {list(found[name])}, not {list(expected[name])}"
