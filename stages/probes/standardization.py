"""Scaling features to mean 0 and variance 1, channel by channel."""

import numpy as np

# A channel that hardly varies over the training images would be blown up by its standard deviation.
SMALLEST_VARIANCE = 0.01  # of the mean variance of all channels


def channel_statistics(array: np.ndarray, rows: np.ndarray, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (c,) float64 of every channel of features (m, ..., c), over the given rows, block by block.

    A variance below a hundredth of the mean variance is raised to it.
    """
    count, total, squares = 0, 0.0, 0.0
    for chosen in np.array_split(np.sort(rows), max(1, len(rows) // block)):
        values = array[chosen].reshape(-1, array.shape[-1]).astype(np.float64)
        count += len(values)
        total, squares = total + values.sum(axis=0), squares + np.square(values).sum(axis=0)
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0)
    return mean, np.maximum(variance, max(SMALLEST_VARIANCE * variance.mean(), 1e-12))
