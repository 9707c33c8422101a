"""Images in an LMDB: what a value looks like, and reading a split.

A value is a msgpack binary: the image file's bytes, then the label as a little-endian uint16.
"""

import os
import struct
from pathlib import Path

import lmdb
import msgpack
import numpy as np

from dataset.image_list import labels_in, list_file, read_list
from runtime.errors import UserError

LABEL = struct.Struct("<H")

MAX_LABEL = 0xFFFF

BINARY_CODES = (*range(0xA0, 0xC0), *range(0xC4, 0xC7), *range(0xD9, 0xDC))
"""How a msgpack of one binary may begin: strings are what old versions of msgpack made of them."""

DATA_FILE = "data.mdb"


def encode_value(image: bytes, label: int) -> bytes:
    """The value for an image file's bytes and its label, at most `MAX_LABEL`."""
    return msgpack.packb(image + LABEL.pack(label), use_bin_type=True)


def decode_value(value: bytes | memoryview) -> tuple[bytes, int]:
    """The image file's bytes and the label in a value.

    Raises:
        ValueError: it is truncated or something else; says what.
    """
    # Anything else than a binary, such as lists of lists, is not even begun with.
    if not value or value[0] not in BINARY_CODES:
        raise ValueError("not an image and its label")
    try:
        content = msgpack.unpackb(value, raw=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"truncated, or not msgpack: {error}") from None
    if not isinstance(content, bytes) or len(content) <= LABEL.size:
        raise ValueError("not an image and its label")
    return content[: -LABEL.size], *LABEL.unpack(content[-LABEL.size :])


def open_to_read(folder: Path) -> lmdb.Environment:
    """Open the LMDB in `folder`.

    Raises:
        UserError: it is not an LMDB, or a part of it is missing.
    """
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        reason = str(error).removeprefix(f"{folder}: ")
        raise UserError(
            f"{folder}: not an LMDB that can be read ({reason}); dataset/img2lmdb.py writes one"
        ) from None
    # Reading beyond the end of a file cut short would end the process with a bus error.
    size = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = (folder / DATA_FILE).stat().st_size
    if found < size:
        environment.close()
        raise UserError(
            f"{folder}: {DATA_FILE} is cut short ({found} of {size} bytes); copy or write it anew"
        )
    return environment


class LmdbImages:
    """The images of a split in an LMDB, in the order of its list.

    The LMDB is opened when the first image is read. An open one must not go through a fork: close
    it before.

    Args:
        data_path: folder with the LMDB folders `train/` and `val/` and their lists beside them.
        split: "train" or "val".
        num_classes: labels are below it; None: as many as the training list has classes.

    Raises:
        UserError: the list or the LMDB cannot be read, or has not what the other names.
    """

    def __init__(self, data_path: Path, split: str, num_classes: int | None = None) -> None:
        self.folder = data_path / split
        self.list = list_file(data_path, split)
        keys = [key.encode() for key in read_list(self.list)]
        self.num_classes = num_classes or len(labels_in(data_path, split))
        self._environment: lmdb.Environment | None = None
        self._check_present(keys)
        # A list of objects would be copied into every process as its references are counted.
        self._keys = np.array(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        """The image's key, `<class>/<name>`."""
        return self._keys[index].decode()

    def name(self, index: int) -> str:
        """What to call the image when something is wrong with it."""
        return f"{self.key(index)} in {self.folder}"

    def read(self, index: int) -> tuple[bytes, int]:
        """The image file's bytes and the label.

        Raises:
            UserError: the value is damaged or its label beyond the class count; names the key.
        """
        if self._environment is None:
            self._environment = open_to_read(self.folder)
        try:
            with self._environment.begin(buffers=True) as transaction:
                image, label = decode_value(transaction.get(self._keys[index]))
        except (ValueError, lmdb.Error) as error:
            raise UserError(
                f"{self.name(index)}: its value is damaged ({error}); write the LMDB anew"
            ) from None
        if label >= self.num_classes:
            raise UserError(
                f"{self.name(index)}: label {label} is beyond the {self.num_classes} classes; "
                "check the list, or give the right number with --num_classes"
            )
        return image, label

    def close(self) -> None:
        """Close the LMDB; the next `read` opens it again."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_environment": None}

    def _check_present(self, keys: list[bytes]) -> None:
        environment = open_to_read(self.folder)
        try:
            present = keys_in(environment)
        except lmdb.Error as error:
            raise UserError(f"{self.folder}: damaged ({error}); write the LMDB anew") from None
        finally:
            environment.close()
        missing = [key.decode() for key in keys if key not in present]
        if missing:
            raise UserError(
                f"{self.list} names {missing[0]!r}, which is not in {self.folder} ({len(missing)} "
                f"of {len(keys)} are not); use the list it was written from"
            )


def keys_in(environment: lmdb.Environment) -> set[bytes]:
    """All keys of an LMDB."""
    with environment.begin() as transaction:
        return set(transaction.cursor().iternext(keys=True, values=False))


def is_lmdb(folder: Path) -> bool:
    """Whether `folder` looks like an LMDB."""
    return os.path.exists(folder / DATA_FILE)
