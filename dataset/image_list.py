"""Lists of images: `train_datalist.txt` and `val_datalist.txt`, one `<class>/<name>` a line.

Such a line is also the image's key in an LMDB. An image's label is the position of its class in
the sorted list of the training images' classes.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from dataset.image_folder import class_folders
from runtime.atomic_file import write_whole_file
from runtime.errors import UserError
from runtime.progress import progress_bar

SPLITS = ("train", "val")

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"
)  # fmt: skip

MAX_KEY_BYTES = 511
"""LMDB's own limit."""


def list_file(folder: str | Path, split: str) -> Path:
    """Where the list of a split is, in `folder`."""
    return Path(folder) / f"{split}_datalist.txt"


def list_images(folder: Path) -> list[str]:
    """`<class>/<name>` of the image files in a split's `folder`, sorted by class, then name.

    Raises:
        UserError: there are no class folders, or one has no images; names it.
    """
    keys = []
    for name in progress_bar(class_folders(folder), f"listing {folder.name}", "classes"):
        with os.scandir(folder / name) as entries:
            files = sorted(entry.name for entry in entries if _is_image(entry))
        if not files:
            raise UserError(f"{folder / name}: no images in it; put some there, or remove it")
        keys += [f"{name}/{file}" for file in files]
    return keys


def read_list(path: Path) -> list[str]:
    """The keys in a list file.

    Raises:
        UserError: the file cannot be read or is empty, or a key cannot be one or is there twice;
            names it.
    """
    try:
        keys = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"list {path}: {error.strerror}; dataset/mk_img_list.py writes it"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"list {path}: not a text file") from None
    keys = [key.strip() for key in keys if key.strip()]
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
    if not key.isascii() or not key.isprintable() or len(key) > MAX_KEY_BYTES:
        reason = f"a key is printable ASCII of at most {MAX_KEY_BYTES} characters"
    elif key.startswith("/") or ".." in key.split("/"):
        reason = "a key stays within the image folder"
    elif "/" not in key:
        reason = "a key is <class>/<name>"
    else:
        return
    raise UserError(f"{place}: {key[:100]!r} cannot be a key; {reason}")


def class_of(key: str) -> str:
    """The class of the image `key`."""
    return key.rpartition("/")[0]


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


def _is_image(entry: os.DirEntry) -> bool:
    name = entry.name
    return name[0] != "." and name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file()
