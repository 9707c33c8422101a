"""Bring the tables of flags in docs/flags.md up to date with the scripts: `python docs/flags.py`.

A table stands between `<!-- flags of SCRIPT -->` and `<!-- end of flags -->`.
"""

import argparse
import importlib
import re
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":  # the root is not on the path of docs/flags.py
    sys.path[: not sys.flags.safe_path] = [str(ROOT)]

TABLE = re.compile(r"(<!-- flags of (\S+)\.py -->\n).*?(<!-- end of flags -->)", re.DOTALL)


class _Parser(Exception):
    """Carries a script's parser out of it, before anything is parsed."""


def with_flag_tables(page: str) -> str:
    """The text `page` with the tables of flags as the scripts have them now."""
    return TABLE.sub(lambda found: found[1] + flag_table(found[2]) + found[3], page)


def flag_table(script: str) -> str:
    """A Markdown table of the flags of `script`, such as `train` or `dataset/img2lmdb`."""
    rows = ["| flag | default | |", "| --- | --- | --- |"]
    for action in script_parser(script)._actions:
        if not isinstance(action, argparse._HelpAction):
            flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
            rows.append(f"| {flags or f'`{action.dest}`'} | {_default(action)} | {_help(action)} |")
    return "\n".join(rows) + "\n"


def script_parser(script: str) -> argparse.ArgumentParser:
    """The argument parser that a script makes in its `main`."""

    def carry_out(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Parser(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", carry_out):
        try:
            importlib.import_module(script.replace("/", ".")).main()
        except _Parser as found:
            return found.args[0]
    raise ValueError(f"{script}: parses no arguments")


def _default(action: argparse.Action) -> str:
    value = action.default
    if value is None:
        return "needed" if action.required else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _help(action: argparse.Action) -> str:
    text = (action.help or "") % {"default": _default(action)}
    if action.choices is not None:
        text += f" ({', '.join(f'`{choice}`' for choice in action.choices)})"
    return text.replace("|", "\\|")


if __name__ == "__main__":
    path = ROOT / "docs" / "flags.md"
    path.write_text(with_flag_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
