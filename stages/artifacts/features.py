"""Feature caches: the activations of a backbone at its cuts, each with a record of what they are made of.

In data/features/<features>: `index.npy` (n,) the rows of the dataset's images in ascending order, and in a folder for
each cut: `features.npy` (views * n, ...) float16 or float32, all images of one view after those of the other;
`above.weights.h5` the weights of the backbone above the cut; `record.json`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.backbones.layer_names import find_layer
from stages.core.errors import UserError
from stages.core.files import read_json, reading

FEATURES_FOLDER = Path("data/features")


@dataclass(frozen=True)
class FeaturesRecord:
    """What features are made of: equal records mean equal features.

    Reading checks that the arrays are those of the record; heads check the images, fine-tunes also the weights.

    images_sha256, weights_sha256: of the images and of the backbone's weights file.
    architecture, image_size, cut, pooling: how the images go through the backbone; its preprocessing belongs to the
    architecture. precision: of the computation. storage: dtype of the array. views: how the images were changed for
    each view after the first, which is the images as they are. shape: of the features of one image. parameters:
    weights of the backbone up to the cut.
    """

    name: str
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
    views: list[dict[str, Any]]
    shape: list[int]
    parameters: int


@dataclass(frozen=True)
class CachedFeatures:
    """The features of one cut: array (views * n, ...) memory-mapped, index (n,) int64, folder, record."""

    name: str
    folder: Path
    record: FeaturesRecord
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


def read_features(name: str, cut: str | None = None) -> CachedFeatures:
    """Read the features at one cut (a layer or block; None where there is one) and check them against their record.

    `UserError` when they are missing, damaged, do not fit, or have no such cut.
    """
    found = read_all_features(name)
    for each in found:
        if cut is None or each.record.cut == find_layer(each.record.architecture, cut, "highest"):
            return each
    cuts = ", ".join(each.record.cut for each in found)
    raise UserError(f"data/features/{name} has no cut {cut!r}, only {cuts}; run `dvc repro`.")


def read_all_features(name: str) -> list[CachedFeatures]:
    """Read the features at every cut, in the order of the cuts' names; see `read_features`."""
    folder = FEATURES_FOLDER / name
    with reading(folder):
        index = np.load(folder / "index.npy", allow_pickle=False)
        return [_read(name, each, index) for each in sorted(path for path in folder.iterdir() if path.is_dir())]


def _read(name: str, folder: Path, index: np.ndarray) -> CachedFeatures:
    record = FeaturesRecord(**read_json(folder / "record.json"))
    array = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
    recorded = [record.images * (1 + len(record.views)), *record.shape], record.storage, record.images
    if (list(array.shape), array.dtype, len(index)) != recorded:
        raise ValueError("it does not hold what its record says")
    return CachedFeatures(name, folder, record, array, index)
