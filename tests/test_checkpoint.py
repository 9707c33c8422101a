"""Checkpoints: a whole one is always there, damage is found, and code in them never runs."""

import errno
import os
import zipfile

import numpy as np
import pytest
import torch
from helpers import assert_same_tensors
from kill_harness import same
from torch import nn

from runtime.checkpoint import (
    load_checkpoint,
    load_newest_checkpoint,
    published_state_dict,
    save_checkpoint,
)
from runtime.errors import UserError
from runtime.interruption import Interrupted

CONTENT = {
    "epoch": 3,
    "state_dict": {"a.weight": torch.randn(5, 3), "b": torch.tensor(7)},
    "optimizer": {"state": {0: {"momentum": torch.randn(3)}}, "groups": [1, 2.5, None]},
    "random": {"state": 2**100, "name": "PCG64"},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.pt"


@pytest.fixture
def two_saves(path):
    for epoch in (1, 2):
        save_checkpoint({"epoch": epoch}, path, keep_previous=True)
    return path


def check_damage(path, damaged_contents):
    """Each is refused, or holds the same as the whole file did; returns how many are refused."""
    refused = 0
    for content in damaged_contents:
        path.write_bytes(content)
        try:
            loaded = load_checkpoint(path)
        except UserError as error:
            assert str(path) in str(error) and str(error).isprintable()
            refused += 1
        else:
            assert same(loaded, CONTENT)
    return refused


def flip(content, bit):
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def test_a_flipped_bit_or_a_missing_end_is_found(path):
    save_checkpoint(CONTENT, path)
    whole = path.read_bytes()
    bits = range(0, 8 * len(whole), 13)
    assert check_damage(path, (flip(whole, bit) for bit in bits)) == len(bits)
    lengths = range(0, len(whole), 13)
    # Without its checksum, but with everything else, it would be a file of PyTorch's own.
    assert check_damage(path, (whole[:length] for length in lengths)) >= len(lengths) - 1


@pytest.mark.stress
def test_any_flipped_bit_is_found(path):
    save_checkpoint(CONTENT, path)
    whole = path.read_bytes()
    bits = range(8 * len(whole))
    assert check_damage(path, (flip(whole, bit) for bit in bits)) == len(bits)


def test_a_flipped_bit_in_the_weights_is_found(path):
    """`torch.load` takes it for what it says."""
    save_checkpoint(CONTENT, path)
    weights = CONTENT["state_dict"]["a.weight"].numpy().tobytes()
    whole = path.read_bytes()
    path.write_bytes(flip(whole, 8 * whole.index(weights)))
    assert not torch.equal(
        torch.load(path)["state_dict"]["a.weight"], CONTENT["state_dict"]["a.weight"]
    )
    with pytest.raises(UserError, match=r"last\.pt: damaged \(its checksum is wrong\)"):
        load_checkpoint(path)


def test_other_peoples_files_are_read_without_a_checksum(path):
    for zipped in (True, False):
        torch.save(CONTENT, path, _use_new_zipfile_serialization=zipped)
        assert same(load_checkpoint(path), CONTENT)


def test_a_checkpoint_is_a_plain_pytorch_file(path):
    save_checkpoint(CONTENT, path)
    assert same(torch.load(path, weights_only=True), CONTENT)
    assert same(torch.load(path, weights_only=True, mmap=True), CONTENT)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_the_checkpoint_before_it_takes_the_place_of_a_damaged_one(two_saves, caplog):
    content = two_saves.read_bytes()
    assert load_newest_checkpoint(two_saves) == {"epoch": 2}
    two_saves.write_bytes(content[:-99])
    assert load_newest_checkpoint(two_saves) == {"epoch": 1}
    assert "warning: checkpoint" in caplog.text and "last.previous.pt" in caplog.text
    # It is kept, but not as the one before the next.
    assert two_saves.with_name("last.damaged.pt").read_bytes() == content[:-99]
    assert load_newest_checkpoint(two_saves) == {"epoch": 1}
    save_checkpoint({"epoch": 3}, two_saves, keep_previous=True)
    assert load_newest_checkpoint(two_saves) == {"epoch": 3}
    assert load_checkpoint(two_saves.with_name("last.previous.pt")) == {"epoch": 1}


def test_what_cannot_be_read_just_now_is_not_taken_for_damaged(two_saves, monkeypatch):
    whole = two_saves.read_bytes()

    def fail(path, **_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    def interrupt(*_, **__):
        raise Interrupted(15)

    for read, error in ((fail, UserError), (interrupt, Interrupted)):
        monkeypatch.setattr(torch, "load", read)
        with pytest.raises(error):
            load_newest_checkpoint(two_saves)
        assert two_saves.read_bytes() == whole


def test_two_damaged_checkpoints_are_an_error(two_saves):
    two_saves.write_bytes(b"")
    two_saves.with_name("last.previous.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"/last\.pt: .*/last\.previous\.pt: .*anew"):
        load_newest_checkpoint(two_saves)
    assert two_saves.exists()


def test_no_checkpoint_is_none(path):
    assert load_newest_checkpoint(path) is None


def test_without_hard_links(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for epoch in (1, 2, 3):
        save_checkpoint({"epoch": epoch}, path, keep_previous=True)
    assert load_checkpoint(path) == {"epoch": 3}
    assert load_checkpoint(path.with_name("last.previous.pt")) == {"epoch": 2}
    assert sorted(os.listdir(path.parent)) == ["last.previous.pt", "last.pt"]


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint({"epoch": 1}, path)
    with pytest.raises(AttributeError):
        save_checkpoint({"epoch": lambda: None}, path)  # cannot be pickled
    assert load_checkpoint(path) == {"epoch": 1}


NETWORK = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
@pytest.mark.parametrize("place", [None, "state_dict", "model"])
def test_a_state_dict_is_found_whatever_wrapped_it(prefix, place, path):
    state = {prefix + name: tensor for name, tensor in NETWORK.state_dict().items()}
    torch.save({place: state, "epoch": 7} if place else state, path)
    assert_same_tensors(published_state_dict(load_checkpoint(path), path), NETWORK.state_dict())


def test_parts_that_were_compiled_alone_have_their_own_names():
    network = nn.Sequential(torch.compile(NETWORK, backend="eager"))
    (tensors,) = (module.state_dict() for module in network)
    assert_same_tensors(published_state_dict(tensors, "x.pt"), NETWORK.state_dict())
    expected = {f"0.{name}": tensor for name, tensor in NETWORK.state_dict().items()}
    assert_same_tensors(published_state_dict(network.state_dict(), "x.pt"), expected)


def test_the_same_name_with_and_without_a_wrapper_is_refused():
    state = {"module.weight": torch.zeros(1), "weight": torch.ones(1)}
    with pytest.raises(UserError, match=r"x\.pt: .* same names with and without module"):
        published_state_dict(state, "x.pt")


class OldTensor:
    """Pickled as PyTorch 0.3 did."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        shape, strides = tuple(self.tensor.shape), self.tensor.stride()
        return torch._utils._rebuild_tensor, (self.tensor._typed_storage(), 0, shape, strides)


def test_a_state_dict_of_pytorch_0_3_is_loaded(path):
    """Without counts of batches, which began in 0.4."""
    state = {name: t for name, t in NETWORK.state_dict().items() if "num_batches" not in name}
    old = {name: OldTensor(tensor) for name, tensor in state.items()}
    torch.save({"state_dict": old}, path, _use_new_zipfile_serialization=False)
    loaded = published_state_dict(load_checkpoint(path), path)
    assert loaded.pop("1.num_batches_tracked").item() == 0
    assert_same_tensors(loaded, state)
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    network.load_state_dict(published_state_dict(state, path))


def test_a_count_that_only_one_batch_norm_lacks_is_missing():
    state = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1)).state_dict()
    del state["1.num_batches_tracked"]
    assert "1.num_batches_tracked" not in published_state_dict(state, "x.pt")


def test_a_numpy_archive_is_no_checkpoint(path):
    np.savez(path.with_suffix(".npz"), **{"a.weight": np.zeros(3), "b": np.zeros(2)})
    with pytest.raises(UserError, match=r"last\.npz: .*a NumPy archive.*torch\.save"):
        load_checkpoint(path.with_suffix(".npz"))
