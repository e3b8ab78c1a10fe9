"""Scaling features to mean 0 and variance 1, channel by channel."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# A channel that hardly varies over the training images would be blown up by its standard deviation.
SMALLEST_VARIANCE = 0.01  # of the mean variance of all channels
BLOCK = 1024  # rows in memory at once


@dataclass(frozen=True)
class StandardizedFeatures:
    """Features that are standardized when they are read. array: (m, ..., c); mean, variance: (c,) float64."""

    array: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    def blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Some rows, flattened, in blocks of at most (BLOCK, d) float64."""
        for start in range(0, len(rows), BLOCK):
            values = self.array[rows[start : start + BLOCK]].astype(np.float64)
            values = (values - self.mean) / np.sqrt(self.variance)
            yield values.reshape(len(values), -1)


def channel_statistics(array: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (c,) float64 of every channel of some rows of features (m, ..., c).

    A variance below a hundredth of the mean variance is raised to it.
    """
    count, total, squares = 0, 0.0, 0.0
    for block in np.array_split(np.sort(rows), max(1, len(rows) // BLOCK)):
        values = array[block].reshape(-1, array.shape[-1]).astype(np.float64)
        count += len(values)
        total, squares = total + values.sum(axis=0), squares + np.square(values).sum(axis=0)
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0)
    return mean, np.maximum(variance, max(SMALLEST_VARIANCE * variance.mean(), 1e-12))
