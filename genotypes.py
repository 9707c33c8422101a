"""Genotypes: what a cell is made of, the published cells by name, and genotype files.

A genotype describes two cells. Each cell has two inputs (0: the output of the cell before last,
1: of the last cell) and intermediate nodes numbered from 2. Every node adds up two operations, so
a cell is a list of (operation, input) pairs, two for each node, and the list of the nodes that
are concatenated into its output.
"""

import ast
import io
import os
import re
import tokenize
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from runtime.atomic_file import write_json
from runtime.errors import UserError
from runtime.untrusted import decode_text, parse_json, read_small_file

PRIMITIVES = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The candidate operations of the search, in the order that the search vector numbers them.

A new one goes to the end, for the order also numbers the supernet's weights. It needs a constructor
in operations.py, and a colour and a label in report/cell_drawing.py.
"""

OPERATION_NAMES = (*PRIMITIVES, "sep_conv_7x7", "conv_7x1_1x7")
"""Every operation that a genotype may name; the last two occur in published cells only."""


class Genotype(NamedTuple):
    """A normal and a reduction cell."""

    normal: list[tuple[str, int]]
    normal_concat: list[int]
    reduce: list[tuple[str, int]]
    reduce_concat: list[int]


NASNet = Genotype(
    normal=[
        ("sep_conv_5x5", 1), ("sep_conv_3x3", 0),
        ("sep_conv_5x5", 0), ("sep_conv_3x3", 0),
        ("avg_pool_3x3", 1), ("skip_connect", 0),
        ("avg_pool_3x3", 0), ("avg_pool_3x3", 0),
        ("sep_conv_3x3", 1), ("skip_connect", 1),
    ],
    normal_concat=[2, 3, 4, 5, 6],
    reduce=[
        ("sep_conv_5x5", 1), ("sep_conv_7x7", 0),
        ("max_pool_3x3", 1), ("sep_conv_7x7", 0),
        ("avg_pool_3x3", 1), ("sep_conv_5x5", 0),
        ("skip_connect", 3), ("avg_pool_3x3", 2),
        ("sep_conv_3x3", 2), ("max_pool_3x3", 1),
    ],
    reduce_concat=[4, 5, 6],
)  # fmt: skip
"""Zoph et al., 2018, arXiv:1707.07012 (NASNet-A)."""

AmoebaNet = Genotype(
    normal=[
        ("avg_pool_3x3", 0), ("max_pool_3x3", 1),
        ("sep_conv_3x3", 0), ("sep_conv_5x5", 2),
        ("sep_conv_3x3", 0), ("avg_pool_3x3", 3),
        ("sep_conv_3x3", 1), ("skip_connect", 1),
        ("skip_connect", 0), ("avg_pool_3x3", 1),
    ],
    normal_concat=[4, 5, 6],
    reduce=[
        ("avg_pool_3x3", 0), ("sep_conv_3x3", 1),
        ("max_pool_3x3", 0), ("sep_conv_7x7", 2),
        ("sep_conv_7x7", 0), ("avg_pool_3x3", 1),
        ("max_pool_3x3", 0), ("max_pool_3x3", 1),
        ("conv_7x1_1x7", 0), ("sep_conv_3x3", 5),
    ],
    reduce_concat=[3, 4, 6],
)  # fmt: skip
"""Real et al., 2019, arXiv:1802.01548 (AmoebaNet-A)."""

DARTS_V1 = Genotype(
    normal=[
        ("sep_conv_3x3", 1), ("sep_conv_3x3", 0),
        ("skip_connect", 0), ("sep_conv_3x3", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0), ("skip_connect", 2),
    ],
    normal_concat=[2, 3, 4, 5],
    reduce=[
        ("max_pool_3x3", 0), ("max_pool_3x3", 1),
        ("skip_connect", 2), ("max_pool_3x3", 0),
        ("max_pool_3x3", 0), ("skip_connect", 2),
        ("skip_connect", 2), ("avg_pool_3x3", 0),
    ],
    reduce_concat=[2, 3, 4, 5],
)  # fmt: skip
"""Liu et al., 2019, arXiv:1806.09055, first order."""

DARTS_V2 = Genotype(
    normal=[
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0),
        ("skip_connect", 0), ("dil_conv_3x3", 2),
    ],
    normal_concat=[2, 3, 4, 5],
    reduce=[
        ("max_pool_3x3", 0), ("max_pool_3x3", 1),
        ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2),
        ("skip_connect", 2), ("max_pool_3x3", 1),
    ],
    reduce_concat=[2, 3, 4, 5],
)  # fmt: skip
"""Liu et al., 2019, arXiv:1806.09055, second order."""

RelativeNAS = Genotype(
    normal=[
        ("sep_conv_3x3", 0), ("dil_conv_5x5", 1),
        ("sep_conv_3x3", 1), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("sep_conv_5x5", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 0),
    ],
    normal_concat=[2, 3, 4, 5],
    reduce=[
        ("avg_pool_3x3", 1), ("max_pool_3x3", 1),
        ("dil_conv_5x5", 1), ("max_pool_3x3", 1),
        ("avg_pool_3x3", 3), ("skip_connect", 1),
        ("dil_conv_5x5", 3), ("sep_conv_3x3", 1),
    ],
    reduce_concat=[2, 3, 4, 5],
)  # fmt: skip
"""Tan et al., 2021, arXiv:2009.06193."""

NAMED_GENOTYPES = {
    "NASNet": NASNet,
    "AmoebaNet": AmoebaNet,
    "DARTS_V1": DARTS_V1,
    "DARTS_V2": DARTS_V2,
    "RelativeNAS": RelativeNAS,
}

GENOTYPE_FILE = "genotype.json"
"""Where a run folder has its genotype."""

MAX_NODES = 32
"""More intermediate nodes than any cell in the literature has; a file with more is refused."""

CALL = re.compile(r"\bGenotype\(")
"""How a genotype begins in the form in which DARTS and its descendants print it."""

CALL_NAMES = ("Genotype", "range", "list", *Genotype._fields)
"""The names that may stand in it."""

MAX_CALL = 1 << 14
"""Characters of it; one with `MAX_NODES` has a third of them."""

MAX_DEPTH = 8
"""Brackets within brackets in it; a genotype has four."""


def resolve_genotype(arch: str, place: str = "--arch") -> Genotype:
    """The genotype that `arch` asks for.

    Args:
        arch: a name in `NAMED_GENOTYPES`, a genotype file, a run folder that has one, or the text
            of a genotype itself.
        place: what an error names: the flag or the argument that `arch` was given for.

    Raises:
        UserError: it is none of them, or not a genotype.
    """
    if arch in NAMED_GENOTYPES:
        return NAMED_GENOTYPES[arch]
    if os.path.isdir(arch):
        return _genotype_of_run(Path(arch), place)
    if os.path.exists(arch):
        return load_genotype(arch)
    if CALL.search(arch) or arch.lstrip().startswith("{"):
        try:
            return genotype_from_text(arch)
        except ValueError as error:
            raise UserError(f"{place} {arch[:40]}...: {error}") from None
    raise UserError(
        f"{place} {arch}: neither a file nor a known name; the names are "
        + ", ".join(NAMED_GENOTYPES)
    )


def load_genotype(path: str | Path) -> Genotype:
    """Read a genotype file, in one of the forms of `genotype_from_text`.

    Raises:
        UserError: the file cannot be read or is not a genotype; names the file and the field.
    """
    try:
        return genotype_from_text(decode_text(read_small_file(path)))
    except OSError as error:
        raise UserError(f"genotype file {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"genotype file {path}: {error}") from None


def save_genotype(genotype: Genotype, path: str | Path) -> None:
    """Write `genotype` as a JSON file that `load_genotype` reads."""
    write_json(Path(path), genotype._asdict())


def genotype_from_text(text: str) -> Genotype:
    """The genotype in a text; nothing in it is evaluated.

    It is a JSON object with the fields of `Genotype`, or has `Genotype(normal=[...],
    normal_concat=range(2, 6), ...)` somewhere in it, as Python prints and a log has it.

    Raises:
        ValueError: there is none, or more than one, or a field is missing or wrong; one line.
    """
    calls = list(CALL.finditer(text))
    if text.lstrip().startswith("{") or not calls:
        try:
            content = parse_json(text)
        except ValueError as error:
            remedy = "" if calls else ", and without a Genotype(normal=[...], ...)"
            raise ValueError(f"not a JSON file ({error}){remedy}") from None
        return genotype_from_dict(content)
    found = [genotype_from_dict(_fields_of_call(text[call.start() :][:MAX_CALL])) for call in calls]
    if found.count(found[0]) < len(found):
        raise ValueError(f"{len(found)} genotypes in it, which differ; leave the one that is meant")
    return found[0]


def genotype_from_dict(content: object) -> Genotype:
    """A genotype from its dictionary form, every field checked.

    Raises:
        ValueError: a field is missing or wrong; the text names it.
    """
    if not isinstance(content, dict):
        raise ValueError("not a genotype: a JSON object with " + ", ".join(Genotype._fields))
    for field in Genotype._fields:
        if field not in content:
            raise ValueError(f"field {field!r} is missing")
    normal = _checked_cell(content["normal"], "normal")
    reduce = _checked_cell(content["reduce"], "reduce")
    return Genotype(
        normal=normal,
        normal_concat=_checked_concat(content["normal_concat"], "normal_concat", len(normal) // 2),
        reduce=reduce,
        reduce_concat=_checked_concat(content["reduce_concat"], "reduce_concat", len(reduce) // 2),
    )


def _genotype_of_run(folder: Path, place: str) -> Genotype:
    if not (folder / GENOTYPE_FILE).exists():
        raise UserError(
            f"{place} {folder}: a folder without {GENOTYPE_FILE}, which a search writes at its "
            "end; give a genotype file, or the folder of a run that has it"
        )
    return load_genotype(folder / GENOTYPE_FILE)


def _fields_of_call(text: str) -> dict[str, object]:
    """The fields of the `Genotype(...)` that `text` begins with."""
    try:
        call = ast.parse(_call_alone(text), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"damaged Genotype(...): {error.msg}") from None
    if len(call.args) > len(Genotype._fields):
        raise ValueError(f"Genotype(...) with {len(call.args)} values; it has 4")
    named = list(zip(Genotype._fields, call.args, strict=False))
    named += [(keyword.arg, keyword.value) for keyword in call.keywords]
    fields = {}
    for name, node in named:
        if name in fields:
            raise ValueError(f"field {name!r} is in it twice")
        try:
            fields[name] = _literal(node)
        except (TypeError, ValueError):
            raise ValueError(f"field {name!r} must be written out as a list") from None
    return fields


def _call_alone(text: str) -> str:
    """`text` up to the bracket that ends the call, and without comments.

    Raises:
        ValueError: it does not end, or has in it what a genotype has not.
    """
    words: list[str] = []
    depth = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            word = token.string
            if token.type in (tokenize.COMMENT, tokenize.NL):
                continue
            if token.type == tokenize.NAME:
                is_known = word in CALL_NAMES
            elif token.type == tokenize.OP:
                is_known = word in "()[],="
            elif token.type == tokenize.STRING:
                is_known = word[0] in "'\""  # no prefix, so that nothing is computed in it
            else:
                is_known = token.type == tokenize.NUMBER
            depth += (word in "([") - (word in ")]")
            if not is_known or depth > MAX_DEPTH:
                raise ValueError(f"{word[:40]!r} is not part of a genotype")
            words.append(word)
            if depth == 0 and len(words) > 1:
                return " ".join(words)
    except (SyntaxError, tokenize.TokenError):
        pass
    raise ValueError("Genotype(...) does not end; copy all of it")


def _literal(node: ast.expr) -> object:
    """A value as it is written, with `range(...)` and `list(range(...))` for the list they make."""
    if isinstance(node, ast.Call):
        arguments = [_literal(argument) for argument in node.args]
        if node.keywords or not isinstance(node.func, ast.Name):
            raise ValueError("not a literal")
        if node.func.id == "range":
            return list(islice(range(*arguments), MAX_NODES + 1))
        (value,) = arguments if node.func.id == "list" else ()
    else:
        value = ast.literal_eval(node)
    return list(value) if isinstance(value, tuple) else value


def _checked_cell(pairs: object, field: str) -> list[tuple[str, int]]:
    if not isinstance(pairs, list) or len(pairs) % 2 or not 2 <= len(pairs) <= 2 * MAX_NODES:
        raise ValueError(
            f"field {field!r} must be a list of (operation, input) pairs, two for each node"
        )
    cell = []
    for index, pair in enumerate(pairs):
        place = f"field '{field}[{index}]'"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"{place} must be a pair (operation, input)")
        operation, source = pair
        if not isinstance(operation, str) or operation not in OPERATION_NAMES:
            raise ValueError(
                f"{place}: unknown operation {str(operation)[:40]!r}; the operations are "
                + ", ".join(OPERATION_NAMES)
            )
        largest = index // 2 + 1
        if type(source) is not int or not 0 <= source <= largest:
            raise ValueError(f"{place}: the input must be a whole number from 0 to {largest}")
        cell.append((operation, source))
    return cell


def _checked_concat(nodes: object, field: str, node_count: int) -> list[int]:
    largest = node_count + 1
    if (
        not isinstance(nodes, list)
        or not nodes
        or any(type(node) is not int or not 2 <= node <= largest for node in nodes)
        or len(set(nodes)) != len(nodes)
    ):
        raise ValueError(f"field {field!r} must list nodes from 2 to {largest}, each at most once")
    return nodes
