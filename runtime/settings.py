"""A run's settings: kept in its folder, and given to its script's parser again on `--resume`."""

from argparse import Namespace
from pathlib import Path

from runtime.arguments import ArgumentParser
from runtime.errors import UserError
from runtime.untrusted import load_json

SETTINGS_FILE = "settings.json"


def read_settings(path: str) -> dict:
    """The settings of the run in the folder `path`.

    Raises:
        UserError: it is not a run folder.
    """
    try:
        settings = load_json(Path(path) / SETTINGS_FILE)
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict) or not isinstance(settings.get("script", ""), str):
        raise UserError(f"{path}: not a run folder (no readable {SETTINGS_FILE} in it)")
    return settings


def parse_with_resume(
    parser: ArgumentParser,
    argv: list[str] | None,
    changeable: tuple[str, ...],
    former_switches: tuple[str, ...] = (),
) -> Namespace:
    """Parse arguments; with `--resume DIR` the run's own settings come before them.

    Args:
        changeable: flags that may differ from the interrupted run's, beside `--resume` itself.
        former_switches: flags that take "on" and "off", and had `--no-` in older versions.

    Raises:
        UserError: `DIR` is not a run folder of this script, or another flag differs from its
            settings.
    """
    args = parser.parse_args(argv)
    folder = args.resume
    if folder is None:
        return args
    settings = read_settings(folder)
    script = settings.pop("script", None)
    if script != parser.prog:
        raise UserError(f"--resume {folder}: was made by {str(script)[:60]}; resume it with that")
    for name in former_switches:
        if isinstance(settings.get(name), bool):
            settings[name] = "on" if settings[name] else "off"
    # What this version has no flag for, another one has written.
    known = {name: settings[name] for name in settings.keys() & vars(args).keys() - {"resume"}}
    for name, value in known.items():
        parser.set_defaults(**{name: _checked(parser, folder, name, value)})
    args = parser.parse_args(argv)
    for name, value in known.items():
        if name not in changeable and getattr(args, name) != value:
            raise UserError(
                f"--resume {folder}: --{name} was {value} in that run and cannot change to "
                f"{getattr(args, name)}; leave it out"
            )
    return args


def _checked(parser: ArgumentParser, folder: str, name: str, value: object) -> object:
    """`value`, if the flag `name` gives it for the words that a user would type.

    Raises:
        UserError: it does not.
    """
    try:
        if getattr(parser.parse_args(_words(name, value)), name) == value:
            return value
    except (RecursionError, UserError):
        pass
    raise UserError(
        f"--resume {folder}: {SETTINGS_FILE} in it is damaged (what it has for --{name} cannot "
        "be); put the right value there"
    )


def _words(name: str, value: object) -> list[str]:
    """The words that set the flag `name` to `value`; none for what no word stands for."""
    if value is None or "\0" in str(value):
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if not isinstance(value, list):
        return [f"--{name}={value}"]
    if name == "gpus":
        return [f"--{name}={','.join(map(str, value))}"]
    return [f"--{name}", *map(str, value)]
