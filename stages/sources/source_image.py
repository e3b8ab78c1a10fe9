"""One image as a source gives it, before it is decoded."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class SourceImage(NamedTuple):
    """One image of a source.

    name: unique in its dataset; the same wherever the dataset lies. label: the class as the source calls it.
    content: returns the bytes of an image file, or the pixels of an image, (height, width, 3) or (height, width)
    uint8. It is called once, in the order of the source; what it raises is the reason why the image is left out.
    split: train, validation or test where the source publishes one, else empty.
    group: of images that belong together, where the source says so, else empty.
    """

    name: str
    label: str
    content: Callable[[], bytes | np.ndarray]
    split: str = ""
    group: str = ""


def unusable_image(name: str, label: str, reason: str) -> SourceImage:
    """An image that is not even tried: it goes to the quarantine table with this reason."""

    def content() -> bytes:
        raise ValueError(reason)

    return SourceImage(name, label, content)
