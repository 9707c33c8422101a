"""Write the images of a list into an LMDB.

The image files' bytes are stored as they are, unless --image_size asks for a resize. Stopped
half-way and run again, it goes on where it was. The list of what the LMDB holds is put beside it.
"""

import hashlib
import io
import os
import shutil
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":  # run as dataset/img2lmdb.py: the root is not on the path
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parent.parent)]

import lmdb
from PIL import Image

from dataset.class_folders import image_file
from dataset.decoding import UNREADABLE, check_image_size, decoding_pool, grey_or_rgb, open_image
from dataset.image_list import (
    SPLITS,
    labels_in,
    labels_of_keys,
    list_file,
    note_keys_beyond_ascii,
    read_list,
    write_list,
)
from dataset.lmdb_set import MAX_LABEL, decode_value, encode_value, is_lmdb, keys_in, open_to_read
from runtime.arguments import ArgumentParser, expanded_path, positive_int
from runtime.atomic_file import write_json
from runtime.errors import UserError, run_script
from runtime.out_of_memory import memory_advice
from runtime.progress_bar import progress_bar
from runtime.untrusted import parse_json

STATE_FILE = "img2lmdb.json"

BATCH_SIZE = 256
"""Images in a commit, and the most that are held in memory beside it."""

INITIAL_MAP_BYTES = 1 << 26

QUALITY = 95
"""Of the JPEGs that --image_size makes."""


def write_lmdb(args: Namespace) -> None:
    """Write the LMDB of a split, or the rest of it, and read all of it back."""
    source = list_file(args.list_path, args.split)
    target = list_file(args.output_path, args.split)
    folder = Path(args.output_path) / args.split
    keys = read_list(source)
    labels = labels_of_keys(keys, labels_in(args.list_path, args.split), f"list {source}")
    if max(labels) > MAX_LABEL:
        raise UserError(f"list {source}: a label is at most {MAX_LABEL}; there are more classes")
    label_of = dict(zip(keys, labels, strict=True))
    _check_target(source, target, keys, args.skip_bad)
    note_keys_beyond_ascii(keys)
    try:
        state = _begin(folder, label_of, args.image_size)
        was_complete = state["complete"]
        if not was_complete:
            state["skipped"] = _write_missing(folder, label_of, args)
        kept = [key for key in keys if key not in state["skipped"]]
        if not kept:
            raise UserError(f"list {source}: none of its images can be decoded")
        _read_back(folder, {key: label_of[key] for key in kept})
        write_list(target, kept)
        _report_skipped(Path(args.output_path) / f"{args.split}_skipped.txt", state["skipped"])
        write_json(folder / STATE_FILE, state | {"complete": True})
    except (OSError, lmdb.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{folder}: cannot be written or read ({reason}), as when its disk is full "
            f"({_free_space(folder)}); make room, and run this again: it goes on where it was"
        ) from None
    done = "was complete already" if was_complete else "written"
    print(f"{folder}: {done}, {len(kept)} images, all read back")


def _free_space(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free >> 20} MiB free"
    except OSError as error:  # the folder could not even be made
        return str(error.strerror)


def _check_target(source: Path, target: Path, keys: list[str], skip_bad: bool) -> None:
    """Find out before the work that the list of what was written can be put beside it."""
    if not target.exists():
        return
    if skip_bad and target.samefile(source):
        raise UserError(
            f"--skip_bad: the list of what it keeps would overwrite {source}; choose another "
            "--output_path than --list_path"
        )
    if not skip_bad and not set(read_list(target)) <= set(keys):
        raise UserError(
            f"list {target}: there already, with other keys than {source}; it is never "
            "overwritten, so move it away or choose another --output_path"
        )


def _begin(folder: Path, label_of: dict[str, int], image_size: int | None) -> dict:
    """The state kept beside the LMDB, which says what it is being written from.

    Raises:
        UserError: another LMDB is there.
    """
    lines = "".join(f"{key} {label}\n" for key, label in label_of.items())
    origin = {"list_sha256": hashlib.sha256(lines.encode()).hexdigest(), "image_size": image_size}
    path = folder / STATE_FILE
    if path.exists():
        try:
            state = parse_json(path.read_bytes())
        except ValueError:
            state = None
        if not _is_state(state):
            raise UserError(f"{path}: not what this script writes; remove the folder {folder}")
        for name, value in origin.items():
            if state[name] != value:
                what = "--image_size" if name == "image_size" else "list"
                raise UserError(
                    f"{folder}: was begun with another {what}; remove it or choose another "
                    "--output_path"
                )
        return state
    if is_lmdb(folder):
        raise UserError(
            f"{folder}: holds an LMDB that this script did not write; choose another --output_path"
        )
    folder.mkdir(parents=True, exist_ok=True)
    state = origin | {"complete": False, "skipped": {}}
    write_json(path, state)
    return state


def _is_state(state: object) -> bool:
    """Whether `state` is one that this script has written."""
    skipped = state.get("skipped") if isinstance(state, dict) else None
    return (
        isinstance(skipped, dict)
        and all(isinstance(reason, str) for reason in skipped.values())
        and isinstance(state.get("complete"), bool)
        and {"list_sha256", "image_size"} <= state.keys()
    )


def _write_missing(folder: Path, label_of: dict[str, int], args: Namespace) -> dict[str, str]:
    """Write the images that the LMDB has not yet; returns those left out, each with the reason."""
    environment = lmdb.open(str(folder), map_size=INITIAL_MAP_BYTES, readahead=False)
    present = keys_in(environment)
    remaining = [key for key in label_of if key.encode() not in present]
    skipped = {}
    batch = []
    file_of = image_file(Path(args.image_path) / args.split)
    with environment, decoding_pool(args.workers or os.cpu_count()) as pool:
        loaded = _load_ahead(pool, file_of, remaining, args.image_size)
        for key, image, reason in progress_bar(
            loaded, f"writing {args.split}", "images", len(label_of), len(present)
        ):
            if reason is None:
                batch.append((key.encode(), encode_value(image, label_of[key])))
            elif args.skip_bad:
                skipped[key] = reason
            else:
                raise UserError(
                    f"{file_of(key)}: cannot be decoded ({reason}); mend it, or leave such images "
                    "out with --skip_bad"
                )
            if len(batch) == BATCH_SIZE:
                _commit(environment, batch)
                batch = []
        _commit(environment, batch)
    return skipped


def _load_ahead(
    pool: ThreadPoolExecutor,
    file_of: Callable[[str], Path],
    keys: Iterable[str],
    image_size: int | None,
) -> Iterator[tuple[str, bytes, str | None]]:
    """Each key's image in order, loaded by `pool`, a batch ahead at most."""
    pending: deque[Future] = deque()
    for key in keys:
        pending.append(pool.submit(_load, file_of(key), key, image_size))
        if len(pending) == BATCH_SIZE:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _load(file: Path, key: str, image_size: int | None) -> tuple[str, bytes, str | None]:
    """The key, its image's bytes as they are stored, and why it cannot be decoded, or None.

    Raises:
        UserError: there is no such file.
    """
    try:
        encoded = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; check --image_path and the list") from None
    try:
        with open_image(io.BytesIO(encoded)) as image:
            readable = grey_or_rgb(image)
            return key, encoded if image_size is None else _resized(readable, image_size), None
    except UNREADABLE as error:
        return key, b"", str(error)


def _resized(image: Image.Image, image_size: int) -> bytes:
    """A JPEG of the image, in L or RGB, its shorter side `image_size` pixels.

    Raises:
        ValueError: it would be larger than images may be.
    """
    scale = image_size / min(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    check_image_size(*size)
    file = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _commit(environment: lmdb.Environment, batch: list[tuple[bytes, bytes]]) -> None:
    """Write `batch` in one transaction, with a larger map if it does not fit."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def _read_back(folder: Path, label_of: dict[str, int]) -> None:
    """Read every key: its value is whole, its label right, its image one that can be opened.

    Raises:
        UserError: it is not so; names the key.
    """
    with open_to_read(folder) as environment, environment.begin(buffers=True) as transaction:
        for key, label in progress_bar(label_of.items(), "reading back", "images"):
            value = transaction.get(key.encode())
            try:
                if value is None:
                    raise ValueError("it is missing")
                image, found = decode_value(value)
                if found != label:
                    raise ValueError(f"its label is {found}, not {label}")
                open_image(io.BytesIO(image)).close()
            except UNREADABLE as error:
                raise UserError(
                    f"{folder}: {key} does not read back ({error}); remove the folder and write "
                    "it anew"
                ) from None
        extra = environment.stat()["entries"] - len(label_of)
    if extra:
        raise UserError(f"{folder}: has {extra} keys more than the list; write it anew")


def _report_skipped(path: Path, skipped: dict[str, str]) -> None:
    if not skipped:
        return
    path.write_text("".join(f"{key}\t{reason}\n" for key, reason in skipped.items()), "utf-8")
    for key, reason in skipped.items():
        print(f"left out: {key} ({reason})", file=sys.stderr)
    print(f"left out: {len(skipped)} images, listed in {path}", file=sys.stderr)


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--image_path",
        type=expanded_path,
        required=True,
        metavar="DIR",
        help="folder with train/ and val/",
    )
    add("--list_path", type=expanded_path, required=True, metavar="DIR", help="folder of the lists")
    add(
        "--output_path",
        type=expanded_path,
        required=True,
        metavar="DIR",
        help="folder for DIR/train or DIR/val",
    )
    add("--split", choices=SPLITS, required=True, help="which of the two")
    add("--image_size", type=positive_int, metavar="N", help="resize the shorter side to N pixels")
    add(
        "--workers",
        type=positive_int,
        help="images decoded at a time; the processor's cores if not given",
    )
    add("--skip_bad", action="store_true", help="leave out images that cannot be decoded")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    with memory_advice("lower --workers"):
        write_lmdb(args)


if __name__ == "__main__":
    run_script(main)
