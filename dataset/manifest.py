"""What images a run began with: kept in its folder, and compared when it is resumed.

A manifest has the names of the classes in the order of their labels, and for each class of each
split the number of its images and a checksum of their names and sizes. So that the images may be
moved, or written into an LMDB, neither their folder nor their pixels are part of it.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from dataset.class_folders import class_and_name
from dataset.image_set import ImageSet
from runtime.atomic_file import write_json
from runtime.errors import UserError
from runtime.untrusted import is_whole_number, load_json

MANIFEST_FILE = "manifest.json"

MAX_BYTES = 1 << 24
"""Of a manifest file; one of 65,536 classes has a third of that."""

MOST_NAMED = 3
"""So many differences are named in an error."""

Manifest = dict[str, object]


def image_set_manifest(sets: dict[str, ImageSet]) -> Manifest:
    """The manifest of sets in memory; of those that are no folder it has no checksums.

    Args:
        sets: by split, "train" or "test".
    """
    splits = {}
    for split, image_set in sets.items():
        if image_set.files:
            splits[split] = by_class((*class_and_name(key), size) for key, size in image_set.files)
        else:
            counts = image_set.labels.bincount(minlength=image_set.num_classes).tolist()
            splits[split] = {
                class_name: [count, ""]
                for class_name, count in zip(image_set.class_names, counts, strict=True)
            }
    (class_names,) = {image_set.class_names for image_set in sets.values()}
    return {"class_names": list(class_names), "splits": splits}


def keep_manifest(path: Path | None, describe: Callable[[], Manifest]) -> None:
    """Write a run's manifest into the file `path`, or compare it with the one that is there.

    Args:
        path: None in all processes but the main one, which do nothing.
        describe: gives the manifest of the images as they are now.

    Raises:
        UserError: they differ, which is named; or the file is damaged.
    """
    if path is None:
        return
    now = describe()
    if not path.exists():
        write_json(path, now, indent=None)
        return
    try:
        before = _checked(load_json(path, MAX_BYTES))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it, and it is written anew") from None
    found = differences(before, now)
    if found:
        more = len(found) - MOST_NAMED
        listed = "; ".join(found[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(
            f"--resume {path.parent}: the images are not those that the run began with: {listed}; "
            f"put them back or begin anew, or remove {path} to go on with these"
        )


def differences(before: Manifest, now: Manifest) -> list[str]:
    """What differs between two manifests, in words."""
    labels_before, labels = (
        {name: label for label, name in enumerate(manifest["class_names"]) if name}
        for manifest in (before, now)
    )
    found = _changed_names("class ", labels_before.keys(), labels.keys())
    if not found:  # else the others' labels have changed too
        found = [
            f"class {name} had label {labels_before[name]} and has {label}"
            for name, label in labels.items()
            if labels_before[name] != label
        ]
    for split, classes_before in before["splits"].items():
        classes = now["splits"].get(split, {})
        said = labels_before.keys() ^ labels.keys()  # of these that they are missing or new
        found += _changed_names(f"{split}/", classes_before.keys() - said, classes.keys() - said)
        for name in sorted(classes_before.keys() & classes.keys()):
            (count_before, sum_before), (count, checksum) = classes_before[name], classes[name]
            if count_before != count:
                found.append(f"{split}/{name} had {count_before} images and has {count}")
            elif sum_before != checksum:
                found.append(f"{split}/{name} has images of other names or sizes")
    return found


def by_class(files: Iterable[tuple[str, str, int]]) -> dict[str, list]:
    """A split's part of a manifest: for each class the number of its images and their checksum.

    Args:
        files: the class of each image, its name, and its size in bytes; sorted.
    """
    counts: Counter[str] = Counter()
    digests = {}
    for class_name, name, size in files:
        counts[class_name] += 1
        line = f"{name}\0{size}\n".encode(errors="surrogateescape")
        digests.setdefault(class_name, hashlib.sha256()).update(line)
    return {name: [counts[name], digests[name].hexdigest()[:16]] for name in sorted(counts)}


def _changed_names(prefix: str, before: Set[str], now: Set[str]) -> list[str]:
    missing = [f"{prefix}{name} is missing" for name in sorted(before - now)]
    return missing + [f"{prefix}{name} is new" for name in sorted(now - before)]


def _checked(content: object) -> Manifest:
    """A manifest from a file.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(content, dict) or not isinstance(content.get("splits"), dict):
        raise ValueError("not a manifest")
    names = content.get("class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class_names are not names")
    for classes in content["splits"].values():
        for entry in classes.values() if isinstance(classes, dict) else [None]:
            if (
                not isinstance(entry, list)
                or len(entry) != 2
                or not is_whole_number(entry[0], 0, 2**53)
                or not isinstance(entry[1], str)
            ):
                raise ValueError("a class has no number and checksum")
    return content
