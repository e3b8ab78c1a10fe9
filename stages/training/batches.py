"""Batches from an array that may be larger than memory."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from stages.artifacts.tasks import SPLITS, Task, row_labels
from stages.config.training import TrainingConfig


@dataclass(frozen=True)
class Examples:
    """The images, or the features, of one split of a task.

    array: (m, ...) uint8 images or float features, possibly memory-mapped. rows: (n,) which rows of the array.
    labels: (n,) int32. index: (n,) the rows of the dataset they stand for, kept with the predictions.
    classes: of the task.
    """

    array: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    classes: int

    def with_views(self, views: int, images: int) -> "Examples":
        """Every example in so many views; in the array, a view of all `images` follows the other."""
        rows = np.concatenate([self.rows + view * images for view in range(views)])
        return replace(self, rows=rows, labels=np.tile(self.labels, views), index=np.tile(self.index, views))

    def targets(self) -> np.ndarray:
        """The labels one-hot, (n, classes) float32."""
        return np.eye(self.classes, dtype=np.float32)[self.labels]


def split_examples(
    task: Task, array: np.ndarray, positions: Callable[[np.ndarray], np.ndarray], settings: TrainingConfig
) -> dict[str, Examples]:
    """The examples of every split of a task, of the training images those the settings ask for.

    positions: function from rows of the dataset (n,) to rows of `array` (n,).
    """
    examples = {}
    for split in SPLITS:
        limits = (settings.max_train_per_class, settings.train_fraction) if split == "train" else ()
        rows = task.rows(split, *limits)
        index = rows["index"].to_numpy(np.int64)
        examples[split] = Examples(array, positions(index), row_labels(rows), index, len(task.classes))
    return examples


def iterate_batches(
    examples: Examples, size: int, order: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(inputs, places) in batches of `size`, the last one smaller; in `order` (n,), a permutation, or as they stand.

    places: (size,) where the examples of the batch stand among the n. Only the rows of one batch are read from the
    array at a time; they keep its dtype, which models take as it is.
    """
    order = np.arange(len(examples.rows)) if order is None else order
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield np.asarray(examples.array[examples.rows[chosen]]), chosen


def rows_within(array: np.ndarray, size: int) -> int:
    """How many rows of an array (n, ...) are `size` bytes in float32, or in uint8 where it is; at least 1."""
    return max(1, size // (np.prod(array.shape[1:], dtype=int) * (1 if array.dtype == np.uint8 else 4)))


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weights (n,) float32 with mean 1 by which every class has the same sum, as scikit-learn's `balanced`."""
    counts = np.bincount(labels)
    return (len(labels) / (np.count_nonzero(counts) * counts[labels])).astype(np.float32)


def mixup(
    inputs: np.ndarray, targets: np.ndarray, alpha: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A batch mixed with itself in another order: mixup, Zhang et al. 2018; one share for the batch, as in their code.

    inputs (n, ...) uint8, which they stay, or float16 or float32, which become float32; targets (n, classes) float32.
    """
    share, order = np.float32(random.beta(alpha, alpha)), random.permutation(len(inputs))
    both = share * inputs.astype(np.float32) + (1 - share) * inputs[order].astype(np.float32)
    both = np.rint(both).astype(np.uint8) if inputs.dtype == np.uint8 else both
    return both, share * targets + (1 - share) * targets[order]


def examples_fingerprint(examples: dict[str, Examples]) -> str:
    """A hash of which images, with which labels, the examples stand for."""
    found = hashlib.sha256()
    for each in examples.values():
        found.update(each.index.astype(np.int64).tobytes() + each.labels.astype(np.int32).tobytes())
    return found.hexdigest()
