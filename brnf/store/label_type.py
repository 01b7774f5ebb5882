"""The type that holds class indices: one byte where all fit into it, two where they do not.

Everything that makes or reads masks, maps or pixel stores asks here, so that an array's type says
which of its values is the ignored one.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MOST_CLASSES",
    "MOST_IN_A_BYTE",
    "Labels",
    "as_labels",
    "ignored",
    "ignored_in",
    "ignored_value",
    "label_type",
]

MOST_IN_A_BYTE = 254
"""Classes whose indices fit into a byte, beside 0 for background and 255 for ignored."""
MOST_CLASSES = 65_534
"""Likewise of two bytes, whose largest value, 65535, is the ignored one."""

Labels = NDArray[np.unsignedinteger]
"""Class indices: uint8 with 255 ignored, or uint16 with 65535 ignored."""


def label_type(classes: int) -> np.dtype[np.unsignedinteger]:
    """Return the type that holds the indices of so many foreground classes.

    >>> label_type(254), label_type(255)
    (dtype('uint8'), dtype('uint16'))

    Arguments:
        classes: C, foreground classes; of the numbers in a data set's own masks, the largest.

    Raises:
        ValueError: two bytes do not hold them.
    """
    if classes > MOST_CLASSES:
        raise ValueError(f"{classes} classes are more than {MOST_CLASSES}")
    return np.dtype(np.uint8 if classes <= MOST_IN_A_BYTE else np.uint16)


def ignored_value(classes: int) -> int:
    """Return the value of pixels without a class where there are so many foreground classes.

    >>> ignored_value(20), ignored_value(1000)
    (255, 65535)
    """
    return ignored_in(label_type(classes))


def ignored_in(kind: np.dtype[np.unsignedinteger]) -> int:
    """Return the ignored value of a type of labels.

    Raises:
        TypeError: labels are not of this type.
    """
    if kind not in (np.uint8, np.uint16):
        raise TypeError(f"labels are uint8 or uint16, not {kind}")
    return int(np.iinfo(kind).max)


def ignored(labels: Labels) -> NDArray[np.bool_]:
    """Return which pixels have no class, an array of the same shape."""
    found: NDArray[np.bool_] = labels == ignored_in(labels.dtype)
    return found


def as_labels(indices: NDArray[np.integer] | tuple[int, ...], classes: int) -> Labels:
    """Return class indices in the type of so many foreground classes.

    Raises:
        ValueError: an index is none of 0..C.
    """
    found = np.asarray(indices, np.int64)
    if found.size and not 0 <= found.min() <= found.max() <= classes:
        raise ValueError(f"indices {found.min()}..{found.max()} of {classes} classes")
    return found.astype(label_type(classes))
