"""Feature caches: the activations of a backbone at a cut layer, with a record of what they are made of.

In data/features/<features>: `features.npy` (n, ...) float16 or float32, `index.npy` (n,) the rows of the dataset's
images in ascending order, `above.weights.h5` the weights of the backbone above the cut, `record.json`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base.errors import UserError
from stages.base.files import read_json, reading

FOLDER = Path("data/features")


@dataclass(frozen=True)
class FeatureRecord:
    """What features are made of: equal records mean equal features.

    Reading checks that the arrays are those of the record; heads check the images, fine-tunes also the weights.

    images_sha256, weights_sha256: of the images and of the backbone's weights file.
    architecture, image_size, cut, pooling: how the images go through the backbone; its preprocessing belongs to the
    architecture. precision: of the computation. storage: dtype of the array. views: copies of each image.
    shape: of the features of one image. parameters: weights of the backbone up to the cut.
    """

    dataset: str
    images_sha256: str
    images: int
    backbone: str
    weights_sha256: str
    architecture: str
    image_size: int
    cut: str
    pooling: str
    precision: str
    storage: str
    views: int
    shape: list[int]
    parameters: int


@dataclass(frozen=True)
class Features:
    """A feature cache that was read: array (n, ...) memory-mapped, index (n,) int64, folder, record."""

    name: str
    folder: Path
    record: FeatureRecord
    array: np.ndarray
    index: np.ndarray

    def positions(self, rows: np.ndarray, what: str) -> np.ndarray:
        """Where the given rows of the dataset stand in the array, (n,) int64; `UserError` if some are not there."""
        found = np.searchsorted(self.index, rows)
        inside = found < len(self.index)
        missing = len(rows) - int(np.sum(self.index[found[inside]] == rows[inside]))
        if missing:
            raise UserError(
                f"features.{self.name}.classes: {missing} of {len(rows)} images of {what} have no features; add their "
                "classes, or leave the key out for all classes."
            )
        return found


def read_features(name: str) -> Features:
    """Read a feature cache and check it against its record; `UserError` when it is missing, damaged or does not fit."""
    folder = FOLDER / name
    with reading(folder):
        record = FeatureRecord(**read_json(folder / "record.json"))
        array = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
        index = np.load(folder / "index.npy", allow_pickle=False)
        recorded = [record.images, *record.shape], record.storage, record.images
        if (list(array.shape), array.dtype, len(index)) != recorded:
            raise ValueError("it does not hold what its record says")
        return Features(name, folder, record, array, index)
