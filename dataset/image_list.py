"""Lists of images: `train_datalist.txt` and `val_datalist.txt`, one `<class>/<name>` a line.

Such a line is also the image's key in an LMDB. An image's label is the position of its class in
the sorted list of the training images' classes.
"""

import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from dataset.class_folders import class_and_name
from runtime.atomic_file import write_whole_file
from runtime.errors import UserError

SPLITS = ("train", "val")

MAX_KEY_BYTES = 511
"""LMDB's own limit."""


def list_file(folder: str | Path, split: str) -> Path:
    """Where the list of a split is, in `folder`."""
    return Path(folder) / f"{split}_datalist.txt"


def read_list(path: Path) -> list[str]:
    """The keys in a list file.

    Raises:
        UserError: the file cannot be read or is empty, or a key cannot be one or is there twice;
            names it.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(
            f"list {path}: {error.strerror}; dataset/mk_img_list.py writes it"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"list {path}: not a text file") from None
    # Spaces at either end belong to the names of the class and of the file.
    keys = [line.removesuffix("\r") for line in lines if line.strip()]
    if not keys:
        raise UserError(f"list {path}: no images in it")
    for key in keys:
        check_key(key, f"list {path}")
    if len(set(keys)) < len(keys):
        ((key, _),) = Counter(keys).most_common(1)
        raise UserError(f"list {path}: {key} is in it more than once")
    return keys


def write_list(path: Path, keys: Sequence[str]) -> None:
    """Write a list file, unless it is there already.

    Raises:
        UserError: it is there with other keys, or a key cannot be one, or it cannot be written.
    """
    for key in keys:
        check_key(key, f"list {path}")
    content = "".join(f"{key}\n" for key in keys)
    try:
        if path.exists():
            if path.read_text(encoding="utf-8") != content:
                raise UserError(
                    f"list {path}: there already, with other keys; it is never overwritten, so "
                    "move it away or choose another --output_path"
                )
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole_file(path, content)
    except OSError as error:
        raise UserError(f"list {path}: cannot be written ({error.strerror})") from None


def check_key(key: str, place: str) -> None:
    """Refuse what cannot be a key, or would lead out of the image folder.

    Raises:
        UserError: names `key` and the `place` it was found in.
    """
    if not all(map(_is_plain, key)) or len(key.encode()) > MAX_KEY_BYTES:
        reason = (
            f"a key is printable text of at most {MAX_KEY_BYTES} bytes in UTF-8 (rename the file "
            "or its folder)"
        )
    elif key.startswith("/") or ".." in key.split("/"):
        reason = "a key stays within the image folder"
    elif "/" not in key:
        reason = "a key is <class>/<name>"
    else:
        return
    raise UserError(f"{place}: {key[:100]!r} cannot be a key; {reason}")


def note_keys_beyond_ascii(keys: Iterable[str]) -> None:
    """Say on stderr that there are some: keys are UTF-8, but not all readers take that."""
    beyond = [key for key in keys if not key.isascii()]
    if beyond:
        print(
            f"note: {len(beyond)} of the keys not ASCII, such as {beyond[0]!a}; they are kept and "
            "read in UTF-8, which the original RelativeNAS does not do",
            file=sys.stderr,
        )


def _is_plain(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def class_of(key: str) -> str:
    """The class of the image `key`."""
    return class_and_name(key)[0]


def class_labels(classes: Iterable[str]) -> dict[str, int]:
    """The label of each of `classes`."""
    return {name: label for label, name in enumerate(sorted(set(classes)))}


def labels_in(folder: str | Path, split: str) -> dict[str, int]:
    """The label of each class, by the lists in `folder`: the training list, or else the split's.

    Raises:
        UserError: as `read_list`.
    """
    path = list_file(folder, "train")
    keys = read_list(path if path.exists() else list_file(folder, split))
    return class_labels(class_of(key) for key in keys)


def labels_of_keys(keys: Sequence[str], labels: dict[str, int], place: str) -> list[int]:
    """The label of each key.

    Raises:
        UserError: a key's class has no label, for there are no training images of it.
    """
    for key in keys:
        if class_of(key) not in labels:
            raise UserError(
                f"{place}: {key} is of class {class_of(key)}, of which there are no training "
                "images; remove it, or add the class to the training images"
            )
    return [labels[class_of(key)] for key in keys]
