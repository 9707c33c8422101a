"""Hostile inputs for a parser, in a process that may take a gigabyte of memory and no more.

`python tests/fuzzing.py PARSER COUNT` prints what came of at least COUNT inputs as a line of JSON.
An error that the parser's documentation does not name ends it with a traceback.
"""

import io
import json
import multiprocessing
import pickletools
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # run as tests/fuzzing.py: the root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dataset.lmdb_set import decode_value, encode_value
from genotypes import PRIMITIVES, Genotype, NASNet, RelativeNAS, load_genotype
from model import NetworkCIFAR
from runtime.checkpoint_header import NotLoadableError, check_header
from runtime.errors import UserError
from training.trained_network import describe_network, load_trained_network

GIGABYTE = 1 << 30

INPUTS_IN_A_ROUND = 2000
"""Hypothesis remembers what it has tried, so that a long run is many short ones."""

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)


def apply_edits(content: bytes, edits: list[tuple]) -> bytes:
    """`content` after a list of edits: bytes set, cut, repeated, put in, and numbers written."""
    for kind, where, value in edits:
        at = where % (len(content) + 1)
        if kind == "set":
            content = content[:at] + bytes([value % 256]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at] + content[at + value % 64 :]
        elif kind == "end":
            content = content[:at]
        elif kind == "repeat":
            content = content[:at] + content[at : at + value % 64] + content[at:]
        elif kind == "insert":
            content = content[:at] + value.to_bytes(8, "big").lstrip(b"\0") + content[at:]
        else:
            size = struct.calcsize(kind)
            number = NUMBERS[value % len(NUMBERS)] % (1 << 8 * size)
            content = content[:at] + struct.pack(kind, number) + content[at + size :]
    return content


EDIT = st.tuples(
    st.sampled_from(["set", "set", "cut", "end", "repeat", "insert", "<H", "<I", "<Q", ">I"]),
    st.integers(0, 1 << 16),
    st.integers(0, (1 << 64) - 1),
)


def edited(*valid: bytes) -> st.SearchStrategy[bytes]:
    """Valid inputs with a few edits."""
    edits = st.lists(EDIT, min_size=1, max_size=4)
    return st.builds(apply_edits, st.sampled_from(valid), edits)


def nearly_genotypes() -> st.SearchStrategy[bytes]:
    """Genotype files of two nodes, or such that are nearly so."""
    pair = st.tuples(st.sampled_from([*PRIMITIVES, "none"]), st.integers(0, 2))
    cell = st.lists(pair, min_size=4, max_size=4) | st.lists(pair, max_size=3)
    nodes = st.just([2, 3]) | st.lists(st.integers(1, 4), max_size=3)
    genotypes = st.builds(
        Genotype, normal=cell, normal_concat=nodes, reduce=cell, reduce_concat=nodes
    )
    return genotypes.map(lambda genotype: json.dumps(genotype._asdict()).encode())


def json_like() -> st.SearchStrategy[bytes]:
    """JSON of any kind, also with a genotype's fields, as text."""
    leaves = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
        | st.sampled_from(["sep_conv_3x3", "skip_connect", "none"]) | st.integers(0, 6)
    )  # fmt: skip
    anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=8), max_leaves=20)
    fields = st.fixed_dictionaries(dict.fromkeys(RelativeNAS._fields, anything))
    return (anything | fields).map(lambda content: json.dumps(content).encode())


def genotype_inputs() -> st.SearchStrategy[bytes]:
    files = [json.dumps(cell._asdict()).encode() for cell in (RelativeNAS, NASNet)]
    return edited(*files) | nearly_genotypes() | json_like() | st.binary(max_size=200)


def parse_genotype(content: bytes, path: Path) -> bool:
    path.write_bytes(content)
    try:
        load_genotype(path)
    except UserError as error:
        assert str(path) in str(error)
        return False
    return True


def value_inputs() -> st.SearchStrategy[bytes]:
    values = [encode_value(bytes(size), 7) for size in (1, 200, 300, 70_000)]
    header = st.sampled_from([0xA1, 0xC4, 0xC5, 0xC6, 0xC7, 0xC9, 0xD9, 0xDA, 0xDB, 0xDD, 0xDF])
    lying = st.builds(lambda code, rest: bytes([code]) + rest, header, st.binary(max_size=40))
    return edited(*values) | lying | st.binary(max_size=200)


def parse_value(content: bytes, path: Path) -> bool:
    try:
        image, label = decode_value(content)
    except ValueError:
        return False
    assert len(image) < len(content) and 0 <= label <= 0xFFFF
    return True


def tiny_checkpoint() -> dict:
    """A checkpoint of ours with a network of one cell."""
    genotype = RelativeNAS._replace(
        normal=[("skip_connect", 0), ("max_pool_3x3", 1)], normal_concat=[2],
        reduce=[("skip_connect", 0), ("max_pool_3x3", 1)], reduce_concat=[2],
    )  # fmt: skip
    network = NetworkCIFAR(1, 2, 1, False, genotype)
    description = describe_network("cifar", genotype, 1, 1, False, 2)
    images = {"set": "digits", "image_size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return {**description, **images, "state_dict": network.state_dict(), "epoch": 1}


def saved(content: dict, legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def zipped(records: dict[str, bytes], compressed: bool = False) -> bytes:
    """A zip file whose sums are right, so that what is in it is looked at."""
    file = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def records_of(checkpoint: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def checkpoint_inputs() -> st.SearchStrategy[bytes]:
    content = tiny_checkpoint()
    records = records_of(saved(content, legacy=False))
    pickled = records.pop("data.pkl")
    legacy = saved(content, legacy=True)
    new = zipped({"data.pkl": pickled, **records})

    def with_pickle(changed: bytes, compressed: bool) -> bytes:
        return zipped({"data.pkl": changed, **records}, compressed)

    opcodes = st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes])
    nonsense = st.lists(opcodes | st.binary(max_size=6), max_size=30).map(b"".join)
    pickles = edited(pickled) | nonsense.map(lambda rest: b"\x80\x02" + rest)
    return (
        st.builds(with_pickle, pickles, st.integers(0, 9).map(lambda number: number == 0))
        | edited(legacy[:6000]) | edited(legacy) | edited(new)
        | st.binary(max_size=200).map(lambda rest: b"PK\x03\x04" + rest)
        | st.binary(max_size=200)
    )  # fmt: skip


def parse_checkpoint(content: bytes, path: Path) -> bool:
    path.write_bytes(content)
    try:
        check_header(path)
        header_is_right = True
    except NotLoadableError:
        header_is_right = False
    # What comes after the header, too: PyTorch, and the description of the network.
    arguments = Namespace(
        model_path=str(path), arch=None, init_channels=None, layers=None, auxiliary=None
    )
    try:
        load_trained_network(arguments, "cifar")
    except UserError as error:
        assert str(path) in str(error)
        return False
    assert header_is_right
    return True


PARSERS: dict[str, tuple[Callable, Callable]] = {
    "genotype": (genotype_inputs, parse_genotype),
    "value": (value_inputs, parse_value),
    "checkpoint": (checkpoint_inputs, parse_checkpoint),
}


def fuzz(parser: str, count: int) -> dict:
    """Give a parser at least `count` inputs; returns what came of them, memory in MiB.

    Each round is a process of its own, so that its memory is the parser's and one round's.
    """
    started = time.monotonic()
    inputs, accepted, growth = 0, 0, 0
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        number = 0
        while inputs < count:
            size = min(INPUTS_IN_A_ROUND, count - inputs)
            done, right, memory = pool.apply(fuzz_round, (parser, size, number))
            inputs, accepted, growth = inputs + done, accepted + right, max(growth, memory)
            number += 1
    return {
        "parser": parser,
        "inputs": inputs,
        "accepted": accepted,
        "seconds": round(time.monotonic() - started, 1),
        "memory_growth": growth,
    }


def fuzz_round(parser: str, count: int, number: int) -> tuple[int, int, int]:
    """Inputs tried and accepted, and how many MiB that took, in round `number`."""
    limit_memory()
    make_inputs, parse = PARSERS[parser]
    inputs, accepted = 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as root:
        path = Path(root) / "input"

        def look_at(content: bytes) -> None:
            nonlocal inputs, accepted
            inputs += 1
            accepted += parse(content, path)

        limits = settings(
            max_examples=count, database=None, deadline=None, phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        seed(number)(limits(given(make_inputs())(look_at)))()
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return inputs, accepted, growth // 1024


def limit_memory() -> None:
    """Let this process have a gigabyte of addresses more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + GIGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for parser in sys.argv[1].split(","):
        print(json.dumps(fuzz(parser, int(sys.argv[2]))), flush=True)


if __name__ == "__main__":
    main()
