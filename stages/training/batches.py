"""Batches from an array that may be larger than memory."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
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

    def batches(self, size: int, shuffle_seed: int | None = None) -> "Batches":
        """Batches of `size`, shuffled anew in every epoch where there is a seed."""
        return Batches(self, size, shuffle_seed)


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


class Batches(keras.utils.PyDataset):
    """(inputs, labels) batches in order, or in a new order each epoch where there is a seed.

    Only the rows of one batch are read from the array at a time. Images stay uint8, features become float32.
    """

    def __init__(self, examples: Examples, size: int, shuffle_seed: int | None = None):
        super().__init__()
        self.examples = examples
        self.size = size
        self.random = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
        self.order = np.arange(len(examples.rows))
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[number * self.size : (number + 1) * self.size]
        inputs = self.examples.array[self.examples.rows[chosen]]
        if inputs.dtype != np.uint8:
            inputs = inputs.astype(np.float32)
        return inputs, self.examples.labels[chosen]

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch; Keras calls it."""
        if self.random is not None:
            self.order = self.random.permutation(len(self.order))
