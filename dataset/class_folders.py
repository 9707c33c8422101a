"""The one reader of class folders: which images of which classes a split's folder holds.

A split is `<class>/<file>`, with any folders between them, or as Tiny ImageNet's validation images
come: all in `images/`, their classes in `val_annotations.txt`. Nothing is left out in silence but
what systems leave lying about.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import UnidentifiedImageError

from dataset.decoding import UNREADABLE, open_image
from runtime.errors import UserError
from runtime.progress_bar import progress_bar

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp",
    ".avif", ".jfif", ".jpe", ".jp2", ".tga",
)  # fmt: skip
"""Files of these names are images, or have to be mended. Of others the content decides."""

ANNOTATIONS_FILE = "val_annotations.txt"

ANNOTATED_IMAGES = "images"
"""The folder beside `ANNOTATIONS_FILE`."""

LEFT_BY_SYSTEMS = re.compile(
    r"\..*|thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r|__macosx|@eadir|lost\+found"
    r"|\$recycle\.bin|system volume information",
    re.IGNORECASE,
)
"""Hidden files and folders, and those of Windows, macOS and network disks."""

SHOWN_NAMES = 3
"""So many of the files that are left out are named."""


@dataclass
class _Found:
    """What the folders of a split hold; names relative to it.

    Attributes:
        images: in the order of classes and names.
        left_out: files that are no images.
        divided: classes with images in more than one folder.
    """

    images: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    divided: list[str] = field(default_factory=list)


def class_folders(folder: Path) -> list[str]:
    """The sorted names of the classes of a split's `folder`; a label is a position in them.

    Raises:
        UserError: it is not a folder or has no class folders, or one cannot be read; names it.
    """
    if _is_annotated(folder):
        return sorted(set(_annotations(folder).values()))
    if not folder.is_dir():
        problem = "is a link to nothing" if folder.is_symlink() else "is not a folder"
        raise UserError(f"{folder} {problem}; it should hold one folder for a class")
    names = [entry.name for entry in _entries(folder) if entry.is_dir()]
    if not names:
        raise UserError(f"{folder} has no class folders; its images go into {folder}/<class>/")
    return names


def file_size(file: Path) -> int:
    """Size of an image's file in bytes.

    Raises:
        UserError: it cannot be looked at.
    """
    try:
        return file.stat().st_size
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None


def list_images(folder: Path) -> list[str]:
    """`<class>/<name>` of the images in a split's `folder`, sorted by class, then name.

    `<name>` leads through the folders within a class folder. What is left out is counted on
    stderr, or in the run's log.

    Raises:
        UserError: there are no class folders, or one has no images, or a link leads nowhere or
            back, or something cannot be read; names it.
    """
    find = _annotated_images if _is_annotated(folder) else _images_in_class_folders
    found = find(folder)
    _tell(folder, found)
    return found.images


def image_file(folder: Path) -> Callable[[str], Path]:
    """What gives the file of each of `list_images(folder)`."""
    return partial(_annotated_file if _is_annotated(folder) else Path.joinpath, folder)


def _annotated_file(folder: Path, key: str) -> Path:
    return folder / ANNOTATED_IMAGES / class_and_name(key)[1]


def class_and_name(key: str) -> tuple[str, str]:
    """The two parts of `<class>/<name>`."""
    name, _, rest = key.partition("/")
    return name, rest


def has_labels(folder: Path) -> bool:
    """Whether images in `folder` have labels: Tiny ImageNet's test images have not.

    They are in a folder `images/` alone.
    """
    if _is_annotated(folder):
        return True
    return [entry.name for entry in _entries(folder) if entry.is_dir()] != [ANNOTATED_IMAGES]


def _images_in_class_folders(folder: Path) -> _Found:
    found = _Found()
    names = class_folders(folder)
    found.left_out += [entry.name for entry in _entries(folder) if not entry.is_dir()]
    for name in progress_bar(names, f"listing {folder.name}", "classes"):
        images = []
        for file, is_regular in sorted(_files_in(folder / name, name, (_identity(folder),))):
            kept = images if is_regular and _is_image(folder, file) else found.left_out
            kept.append(file)
        if not images:
            raise UserError(f"{folder / name}: no images in it; put some there, or remove it")
        if len({file.rpartition("/")[0] for file in images}) > 1:
            found.divided.append(name)
        found.images += images
    return found


def _files_in(
    folder: Path, name: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, bool]]:
    """All that is in `folder` but folders: `name`, a slash and its name, and if it is a file.

    Pipes and sockets are none.

    Args:
        above: the folders that this one was reached through.
    """
    identity = _identity(folder)
    if identity in above:
        raise UserError(f"{folder}: a link to a folder that it is in itself; remove it")
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _files_in(folder / entry.name, f"{name}/{entry.name}", (*above, identity))
        else:
            yield f"{name}/{entry.name}", entry.is_file()


def _entries(folder: Path) -> list[os.DirEntry]:
    """What is in `folder`, sorted by name; not what systems leave there, but hidden images are.

    Raises:
        UserError: it cannot be read, or something in it is a link to nothing; names it.
    """
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    entries = [entry for entry in entries if not _is_left_by_a_system(entry.name)]
    for entry in entries:
        # Such links stand for content that is elsewhere: not fetched yet, or on another disk.
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise UserError(
                f"{entry.path}: a link to {os.readlink(entry.path)}, which is not there; fetch it "
                "(as with git annex get, dvc pull, or by mounting its disk), or remove the link"
            )
    return entries


def _is_left_by_a_system(name: str) -> bool:
    if name.startswith(".") and not name.startswith("._") and _has_image_suffix(name):
        return False
    return LEFT_BY_SYSTEMS.fullmatch(name) is not None


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_image(folder: Path, file: str) -> bool:
    """Whether a file is an image, maybe a damaged one, which whoever decodes it refuses."""
    if file.rpartition("/")[2].startswith("."):
        return False
    if _has_image_suffix(file):
        return True
    path = folder / file
    try:
        open_image(path).close()
    except UnidentifiedImageError:
        return False
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UNREADABLE:
        pass
    return True


def _has_image_suffix(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _is_annotated(folder: Path) -> bool:
    """Whether a split comes as Tiny ImageNet's validation images; some sort them into folders."""
    if not (folder / ANNOTATIONS_FILE).is_file():
        return False
    return [entry.name for entry in _entries(folder) if entry.is_dir()] == [ANNOTATED_IMAGES]


def _annotations(folder: Path) -> dict[str, str]:
    """The class of each image in `images/`, by its name."""
    path = folder / ANNOTATIONS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{path}: cannot be read ({reason})") from None
    classes = {}
    for number, line in enumerate(lines, start=1):
        image, _, rest = line.partition("\t")
        name = rest.partition("\t")[0]
        if not name or "/" in name or not image or "/" in image or image in classes:
            raise UserError(
                f"{path}: line {number} is not an image's name that is there once, a tab and its "
                "class"
            )
        classes[image] = name
    if not classes:
        raise UserError(f"{path}: no images in it")
    return classes


def _annotated_images(folder: Path) -> _Found:
    found = _Found()
    images = folder / ANNOTATED_IMAGES
    annotations = _annotations(folder)
    present = dict(_files_in(images, ANNOTATED_IMAGES, ()))
    for image, name in annotations.items():
        if not present.pop(f"{ANNOTATED_IMAGES}/{image}", False):
            raise UserError(
                f"{images / image}: is in {ANNOTATIONS_FILE}, but not there; unpack the images anew"
            )
        found.images.append(f"{name}/{image}")
    found.images.sort(key=class_and_name)
    found.left_out = sorted(present)
    found.left_out += [
        entry.name
        for entry in _entries(folder)
        if not entry.is_dir() and entry.name != ANNOTATIONS_FILE
    ]
    return found


def _tell(folder: Path, found: _Found) -> None:
    """Say what was left out, or taken together, in the first of several processes."""
    if int(os.environ.get("RANK", 0)):
        return
    log = logging.getLogger("relativenas")
    if found.divided:
        log.warning(
            "%s: images in folders within a class folder are of its class (%s)",
            folder, _some(found.divided),
        )  # fmt: skip
    if found.left_out:
        count = len(found.left_out)
        log.warning(
            "left out: %d file%s (%s) of %s, no images as it seems",
            count, "s" * (count > 1), _some(found.left_out), folder,
        )  # fmt: skip


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:SHOWN_NAMES]))
    more = len(names) - SHOWN_NAMES
    return shown + (f" and {more} more" if more > 0 else "")
