"""The names of classes: what a network was trained on, and what it is tested on.

A network gives labels; which class a label stands for is said by the names in its checkpoint.
Images of other classes, or in another order, would be tested without any error and all wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from dataset.image_set import ImageSet
from runtime.errors import UserError

MOST_NAMED = 5
"""So many classes are named in an error."""


def names_by_label(labels: Mapping[str, int]) -> list[str]:
    """The names of the classes in the order of their labels; "" for a label that none has.

    Empty if two classes have the same label, for that has no name then.
    """
    if len(set(labels.values())) < len(labels):
        return []
    names = [""] * (max(labels.values(), default=-1) + 1)
    for name, label in labels.items():
        names[label] = name
    return names


def with_labels_of_network(
    image_set: ImageSet, class_names: Sequence[str], num_classes: int, place: str
) -> ImageSet:
    """`image_set`, which may have a part of the classes, with the labels that a network gives them.

    Args:
        class_names: the network's, in the order of its labels.
        num_classes: of the network.
        place: the flag and the file that the network comes from, for an error.

    Raises:
        UserError: a class of the images is none of the network's; names it.
    """
    labels = labels_in_network(image_set.class_names, class_names, place)
    new_labels = torch.tensor(
        [labels[name] for name in image_set.class_names], device=image_set.labels.device
    )
    return replace(
        image_set,
        labels=new_labels[image_set.labels],
        num_classes=num_classes,
        class_names=tuple(class_names),
    )


def labels_in_network(
    classes: Iterable[str], class_names: Sequence[str], place: str
) -> dict[str, int]:
    """The labels that a network gives, by their names.

    Args:
        classes: of the images that it is to be tested on.
        class_names, place: as for `with_labels_of_network`.

    Raises:
        UserError: one of `classes` is none of the network's; names it.
    """
    labels = {name: label for label, name in enumerate(class_names) if name}
    unknown = sorted(name for name in classes if name not in labels)
    if unknown:
        raise UserError(
            f"{place}: was not trained on {_listed(unknown)}, but on {_listed(list(labels))}; give "
            "the images that it is meant for, or name their class folders as in training"
        )
    return labels


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more classes" if more > 0 else "")
