"""An image of a source before it is decoded."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Larger files are not photographs, and are not read.
LARGEST_FILE = 200 * 2**20


class NotAnImage(ValueError):
    """Why a file is not an image at all, in contrast to a damaged one."""


class SourceImage(NamedTuple):
    """One image of a source.

    name: unique in the dataset and independent of its location. label: the name of the class in the source.
    content: returns the bytes of an image file, or the pixels of an image, (height, width, 3) or (height, width)
    uint8. It is called once, in the order of the source. An exception is the reason why the image is excluded.
    split: train, validation or test if the source publishes it, else empty.
    group: the name of a group whose images must be in one split, or empty.
    bits: how many bits the values of 16-bit gray images use; None for all.
    is_optional: whether the file is ignored, and does not count as unreadable, if it is not an image (`NotAnImage`).
    """

    name: str
    label: str
    content: Callable[[], bytes | np.ndarray]
    split: str = ""
    group: str = ""
    bits: int | None = None
    is_optional: bool = False


def unusable_image(name: str, label: str, reason: str) -> SourceImage:
    """An image that will be listed in quarantine.csv with this reason."""
    return SourceImage(name, label, _raising(ValueError(reason)))


def ignored_file(name: str, label: str, reason: str) -> SourceImage:
    """A file that will be listed in ignored.csv with this reason."""
    return SourceImage(name, label, _raising(NotAnImage(reason)), is_optional=True)


def _raising(error: Exception) -> Callable[[], bytes]:
    def content() -> bytes:
        raise error

    return content
