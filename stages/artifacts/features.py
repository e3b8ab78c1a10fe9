"""Cached features: the activations of a backbone at its cut layers, each with a record of what they were made from.

In data/features/<features>: `index.npy` (n,) the rows of the dataset's images in ascending order; `seen.csv`, the
images that the backbone has seen (see `stages.artifacts.seen_images`); and per cut layer a folder with
`features.npy` (views * n, ...) float16 or float32, all images of a view after those of the view before;
`above.weights.h5`, the weights of the backbone above the cut layer; `record.json`.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts.tasks import Task
from stages.core.errors import UserError
from stages.core.files import read_json, reading, write_json
from stages.core.wording import counted

FEATURES_FOLDER = Path("data/features")


@dataclass(frozen=True)
class FeaturesRecord:
    """What features were made from: equal records mean equal features.

    name: the entry. images_sha256, weights_sha256: of the prepared images and of the backbone's weights file. images:
    how many. architecture, image_size, resize, cut, pooling: how images go through the backbone; its preprocessing
    belongs to the architecture. precision: of the computation. storage: dtype of the array. views: how the images were
    changed in each view but the first, which holds the images as they are. shape: of the features of one image.
    parameters: weights of the backbone up to the cut layer. multiply_adds: of one image up to the cut layer. bits: of
    16-bit gray images, see `PreparedImages`. preset: of a backbone of KerasHub, see `WeightsRecord`. joined: of
    features of several cut layers side by side, those below `cut`, lowest first.
    """

    name: str
    dataset: str
    images_sha256: str
    images: int
    image_size: int
    resize: str
    backbone: str
    weights_sha256: str
    architecture: str
    cut: str
    pooling: str
    precision: str
    storage: str
    views: list[dict[str, Any]]
    shape: list[int]
    parameters: int
    multiply_adds: int
    bits: int | None = None
    preset: dict[str, Any] | None = None
    joined: list[str] = field(default_factory=list)

    @property
    def cuts(self) -> list[str]:
        """The cut layers, lowest first."""
        return [*self.joined, self.cut]

    def views_used(self, limit: int | None) -> int:
        """The number of views that a model trains on; limit: its setting, None for all views."""
        views = 1 + len(self.views)
        return views if limit is None else min(limit, views)


@dataclass(frozen=True)
class JoinedArray:
    """Features of several cut layers side by side, read as an array (m, sum of c). parts: (m, c), memory-mapped."""

    parts: list[np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        """The rows, and the features of all cut layers."""
        return len(self.parts[0]), sum(part.shape[1] for part in self.parts)

    @property
    def dtype(self) -> np.dtype:
        """That of every part."""
        return self.parts[0].dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, in memory."""
        return np.concatenate([part[rows] for part in self.parts], axis=1)


@dataclass(frozen=True)
class CachedFeatures:
    """The features at one cut layer, or at several, joined.

    array: (views * n, ...), memory-mapped. index: (n,) int64 rows of the dataset. folder: of the (highest) cut layer.
    """

    folder: Path
    record: FeaturesRecord
    array: np.ndarray | JoinedArray
    index: np.ndarray

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """The rows of the array, (n,) int64, of some rows of the dataset; `UserError` if some have no features."""
        positions = np.searchsorted(self.index, rows)
        inside = positions < len(self.index)
        missing = len(rows) - int(np.sum(self.index[positions[inside]] == rows[inside]))
        if missing:
            raise UserError(
                f"features.{self.record.name}.classes: {missing} of {counted(len(rows), 'image')} of the task have no "
                "features. Add their classes, or leave the key out to use all classes."
            )
        return positions

    def check_images(self, task: Task) -> None:
        """Refuse features that were computed from other images than the task was split from."""
        task.check_images(self.record.images_sha256, f"data/features/{self.record.name}")


def joined_record(records: list[FeaturesRecord]) -> FeaturesRecord:
    """The record of the vectors of several cut layers side by side. records: of each, lowest first; of one, its own."""
    *lower, highest = records
    if not lower:
        return highest
    return replace(highest, joined=[record.cut for record in lower], shape=[sum(record.shape[0] for record in records)])


def write_features_record(folder: Path, record: FeaturesRecord) -> None:
    """Write the record of one cut layer into its folder."""
    write_json(folder / "record.json", asdict(record))


def read_all_features(name: str) -> list[CachedFeatures]:
    """The features at every cut layer, in the order of the layers' names.

    `UserError` if they are missing, damaged, or do not match their records.
    """
    folder = FEATURES_FOLDER / name
    with reading(folder):
        index = np.load(folder / "index.npy", allow_pickle=False)
        return [_read(cut, index) for cut in sorted(path for path in folder.iterdir() if path.is_dir())]


def _read(folder: Path, index: np.ndarray) -> CachedFeatures:
    record = FeaturesRecord(**read_json(folder / "record.json"))
    array = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
    expected = [record.images * (1 + len(record.views)), *record.shape], record.storage, record.images
    if (list(array.shape), array.dtype, len(index)) != expected:
        raise ValueError("its arrays do not have the shape that its record states")
    return CachedFeatures(folder, record, array, index)
