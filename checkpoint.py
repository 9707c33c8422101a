"""Checkpoints: written so that a kill leaves the old or the new one whole, read as data only."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from checkpoint_header import NotLoadableError, check_header
from errors import UserError
from out_of_memory import is_out_of_memory


def save_checkpoint(content: dict, path: Path) -> None:
    """Write `content` beside `path`, sync it to disk, and rename it into place."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict:
    """Read a checkpoint; code in it is never run.

    Raises:
        UserError: the file cannot be read, is damaged, holds something else than data, or claims
            more of it than the file has bytes (see `checkpoint_header`).
    """
    try:
        check_header(path)
        content = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise UserError(f"checkpoint {path}: {error.strerror or error}") from None
    except NotLoadableError as error:
        raise UserError(
            f"checkpoint {path}: no checkpoint, or a damaged or hostile one, which is never loaded "
            f"({error})"
        ) from None
    except Exception as error:  # a damaged file can make PyTorch fail in any way
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"checkpoint {path}: damaged ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path}: holds a {type(content).__name__}, not a dictionary")
    return content


def published_state_dict(content: Mapping, path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint: itself or its `state_dict`, without a leading `module.`.

    Raises:
        UserError: it is not a dictionary of tensors; names the file.
    """
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise UserError(f"checkpoint {path}: holds no state dict (names and their tensors)")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Load `state` strictly into `network`.

    Raises:
        UserError: names or shapes differ; names the file and the first few of them.
    """
    check_weights(network.state_dict(), state, path)
    network.load_state_dict(state)


def check_weights(
    expected_state: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | Path
) -> None:
    """Check that `state` has the names and shapes of `expected_state`.

    Raises:
        UserError: as `load_weights`.
    """
    expected = {name: tensor.shape for name, tensor in expected_state.items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    differing = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    if differing:
        described = ", ".join(_difference(name, expected, found) for name in differing[:3])
        raise UserError(
            f"checkpoint {path} is of another architecture: {len(differing)} names differ, first "
            f"{described}; check --arch, --init_channels, --layers and --auxiliary"
        )


def _difference(name: str, expected: Mapping, found: Mapping) -> str:
    if name not in found:
        return f"{name} is missing"
    if name not in expected:
        return f"{name[:80]!r} is not part of the network"
    return f"{name} is {list(found[name])}, not {list(expected[name])}"
