"""The manifest (see `dataset.manifest`) of encoded images, in folders or in an LMDB."""

from collections.abc import Iterable, Sequence

from dataset.class_folders import class_and_name, file_size, image_file
from dataset.encoded_images import EncodedImages, FolderImages
from dataset.lmdb_set import LABEL, LmdbImages, open_to_read
from dataset.manifest import Manifest, by_class
from runtime.progress_bar import progress_bar


def encoded_manifest(splits: dict[str, EncodedImages], class_names: Sequence[str]) -> Manifest:
    """The manifest of encoded images by split: the same for folders and the LMDB of their files."""
    return {
        "class_names": list(class_names),
        "splits": {split: by_class(_files_of(images)) for split, images in splits.items()},
    }


def _files_of(images: EncodedImages) -> Iterable[tuple[str, str, int]]:
    keys = sorted(images.key(index) for index in range(len(images)))
    if isinstance(images, FolderImages):
        sizes = map(file_size, map(image_file(images.folder), keys))
    else:
        sizes = _sizes_in_lmdb(images, keys)
    description = f"looking at {images.folder.name} images"
    for key, size in progress_bar(zip(keys, sizes, strict=True), description, "images", len(keys)):
        yield *class_and_name(key), size


def _sizes_in_lmdb(images: LmdbImages, keys: Iterable[str]) -> Iterable[int]:
    images.close()  # an LMDB must not be opened twice in a process
    environment = open_to_read(images.folder)
    try:
        with environment.begin(buffers=True) as transaction:
            for key in keys:
                # By the length alone, which is found without reading the image.
                yield image_size(len(transaction.get(key.encode())))
    finally:
        environment.close()


def image_size(value_size: int) -> int:
    """Bytes of an image file, from those of its value: msgpack puts a head before a binary."""
    for head, most in ((2, 0xFF), (3, 0xFFFF)):
        if value_size - head <= most:
            return value_size - head - LABEL.size
    return value_size - 5 - LABEL.size
