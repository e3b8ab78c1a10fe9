"""Batches from an array that may be larger than memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stages.data.tasks import SPLITS, Task, labels_of


@dataclass(frozen=True)
class Examples:
    """The images, or the features, of one split of a task.

    array: (m, ...) uint8 images or float features, possibly memory-mapped. rows: (n,) which rows of the array.
    labels: (n,) int32. index: (n,) the rows of the dataset they stand for, kept with the predictions.
    """

    array: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    index: np.ndarray


def examples_of(
    task: Task,
    array: np.ndarray,
    positions: Callable[[np.ndarray], np.ndarray],
    max_train_per_class: int | None,
) -> dict[str, Examples]:
    """The examples of every split of a task.

    positions: function from rows of the dataset (n,) to rows of `array` (n,). max_train_per_class: see `Task.rows`.
    """
    examples = {}
    for split in SPLITS:
        rows = task.rows(split, max_train_per_class if split == "train" else None)
        index = rows["index"].to_numpy(np.int64)
        examples[split] = Examples(array, positions(index), labels_of(rows), index)
    return examples


def batches(examples: Examples, size: int, order: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(inputs, labels) in batches of `size`, the last one smaller; in `order` (n,), a permutation, or as they stand.

    Only the rows of one batch are read from the array at a time. Images stay uint8, features become float32.
    """
    order = np.arange(len(examples.rows)) if order is None else order
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        inputs = examples.array[examples.rows[chosen]]
        yield inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32), examples.labels[chosen]
