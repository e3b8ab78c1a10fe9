"""An image of a source before it is decoded."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class SourceImage(NamedTuple):
    """One image of a source.

    name: unique in the dataset and independent of its location. label: the name of the class in the source.
    content: returns the bytes of an image file, or the pixels of an image, (height, width, 3) or (height, width)
    uint8. It is called once, in the order of the source. An exception is the reason why the image is excluded.
    split: train, validation or test if the source publishes it, else empty.
    group: the name of a group whose images must be in one split, or empty.
    """

    name: str
    label: str
    content: Callable[[], bytes | np.ndarray]
    split: str = ""
    group: str = ""


def unusable_image(name: str, label: str, reason: str) -> SourceImage:
    """An image that will be listed in quarantine.csv with this reason."""

    def content() -> bytes:
        raise ValueError(reason)

    return SourceImage(name, label, content)
