"""Checkpoints of others: code, sizes that are not so, networks that cannot be."""

import builtins
import io
import zipfile

import pytest
import torch
from fuzzing import records_of, saved, tiny_checkpoint, zipped
from helpers import assert_one_line, call_script

from runtime import checkpoint_header
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("script", ["test", "test_imagenet"])
def test_code_in_a_checkpoint_is_refused_and_not_run(legacy, script, tmp_path, monkeypatch, capsys):
    path = tmp_path / "evil.pt"
    path.write_bytes(saved({"state_dict": Evil(tmp_path / "owned")}, legacy))
    data = ["--data_path", tmp_path] if script == "test_imagenet" else []
    status = call_script(script, ["--model_path", path, *data], monkeypatch)
    assert_one_line(status, capsys, str(path), "never loaded", "open")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_what_pytorch_saves_is_loaded(legacy, tmp_path):
    content = {
        "state_dict": {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.zeros(0)},
        "parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
        "plain": [1, 2.5, None, True, "x" * 300, (1, (2,)), {"k": 1 << 100}],
        "shared": torch.zeros(8)[2:6],
    }
    path = tmp_path / "good.pt"
    path.write_bytes(saved(content, legacy))
    loaded = load_checkpoint(path)
    assert loaded["plain"] == content["plain"]
    assert torch.equal(loaded["state_dict"]["a"], content["state_dict"]["a"])
    assert torch.equal(loaded["parameter"], content["parameter"])
    assert torch.equal(loaded["shared"], content["shared"])


def with_pickle(change):
    """A checkpoint whose pickle `change` has changed."""
    records = records_of(saved({"state_dict": {"weight": torch.zeros(4)}}, legacy=False))
    return zipped(records | {"data.pkl": change(records["data.pkl"])})


def pickle_of(content):
    return lambda _: b"\x80\x02" + content + b"."


HUGE = {
    "compressed": lambda: zipped({"data.pkl": b"\x80\x02N.", "data/0": bytes(1 << 20)}, True),
    "records that overlap": lambda: overlapping(),
    "a shape of stride 0": lambda: saved({"a": torch.zeros(1).expand(1 << 40)}, False),
    "a shape of stride 0, legacy": lambda: saved({"a": torch.zeros(1).expand(1 << 40)}, True),
    "more numbers than bytes": lambda: with_pickle(
        lambda content: content.replace(b"K\x04tq", b"J\x00\x00\x00\x7ftq", 1)
    ),
    "more numbers than bytes, legacy": lambda: saved({"a": torch.zeros(4)}, True).replace(
        b"K\x04Nt", b"J\x00\x00\x00\x7fNt", 1
    ),
    "a large bytearray": lambda: with_pickle(
        pickle_of(b"cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R")
    ),
    "a tuple nested many times as a key": lambda: with_pickle(
        pickle_of(b"})" + b"\x85" * 200_000 + b"Ns")
    ),
    "a large pickle": lambda: with_pickle(pickle_of(b"]" * (9 << 20))),
}


def overlapping():
    """A zip file of which two records are the same bytes."""
    content = zipped({"data.pkl": b"\x80\x02N.", "data/0": bytes(5000)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.getinfo("archive/data/0").file_size
    central = content.index(b"PK\x01\x02", 100)
    entry = content[content.index(b"PK\x01\x02", central + 4) :].split(b"PK\x05\x06")[0]
    more = b"".join(entry.replace(b"data/0", b"data/%d" % n) for n in range(1, 8))
    end = content.index(b"PK\x05\x06")
    count = (2 + 7).to_bytes(2, "little") * 2
    length = (end - central + len(more)).to_bytes(4, "little")
    tail = content[end : end + 8] + count + length + content[end + 16 :]
    assert size == 5000
    return content[:end] + more + tail


@pytest.mark.parametrize("kind", HUGE)
def test_a_small_file_that_claims_much_is_refused(kind, tmp_path):
    path = tmp_path / "bomb.pt"
    content = HUGE[kind]()
    assert len(content) < 16 << 20
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bomb\.pt: .*never loaded") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_tensors_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_header, "MAX_TENSORS", 5)
    torch.save({"a": [torch.zeros(1)] * 5}, tmp_path / "few.pt")
    load_checkpoint(tmp_path / "few.pt")
    torch.save({"a": [torch.zeros(1) for _ in range(6)]}, tmp_path / "many.pt")
    with pytest.raises(UserError, match="more than 5 tensors"):
        load_checkpoint(tmp_path / "many.pt")


DESCRIPTIONS = {
    "init_channels": [10**9, 0, -1, 1.5, True, None, "8", [8]],
    "layers": [10**9, 0],
    "num_classes": [10**9, torch.zeros(2)],
    "image_size": [10**9, "16"],
    "auxiliary": [1, None],
    "network": ["other", torch.zeros(2), ["cifar"]],
    "set": ["cifar11", 3],
    "genotype": [None, {"normal": []}, "RelativeNAS"],
    "epoch": [-1, "9"],
    "top1": ["99", float("nan")],
    "mean": [None, (0.5, 0.5), (0.5, 0.5, float("nan")), "abc", (10**400, 1, 1)],
    "std": [(0.0, 1.0, 1.0), (1.0, 1.0, float("inf"))],
}


@pytest.mark.parametrize("field", DESCRIPTIONS)
def test_a_description_that_cannot_be_is_refused_by_field(field, tmp_path, monkeypatch, capsys):
    path = tmp_path / "odd.pt"
    for value in DESCRIPTIONS[field]:
        torch.save({**tiny_checkpoint(), field: value}, path)
        status = call_script("test", ["--model_path", path], monkeypatch)
        expected = ["does not describe a network", field if field != "genotype" else ""]
        assert_one_line(status, capsys, str(path), *expected)


@pytest.mark.parametrize("field", ["init_channels", "layers", "num_classes"])
def test_a_network_larger_than_its_weights_takes_no_memory(field, tmp_path, monkeypatch, capsys):
    path = tmp_path / "large.pt"
    largest = 300 if field == "layers" else 1 << 16
    torch.save({**tiny_checkpoint(), field: largest}, path)
    status = call_script("test", ["--model_path", path], monkeypatch)
    assert_one_line(status, capsys, str(path), "another architecture")


def test_a_shape_that_is_not_the_networks_is_named(tmp_path, monkeypatch, capsys):
    content = tiny_checkpoint()
    content["state_dict"]["classifier.bias"] = torch.zeros(7)
    torch.save(content, tmp_path / "odd.pt")
    status = call_script("test", ["--model_path", tmp_path / "odd.pt"], monkeypatch)
    assert_one_line(status, capsys, "odd.pt", "classifier.bias is [7], not [2]")
