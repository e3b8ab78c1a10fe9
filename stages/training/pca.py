"""The two principal components of features, for a scatter plot."""

import numpy as np

from stages.artifacts.models import PcaProjection
from stages.training.batches import Examples

MAX_IMAGES = 400  # more points would only cover each other in a plot


def project_features(examples: Examples, seed: int) -> PcaProjection:
    """Project the features of at most `MAX_IMAGES` examples, drawn by the seed, on their first two components.

    Every channel (last axis) is first scaled to variance 1, as heads do; a few large channels would dominate otherwise.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(examples.rows))[:MAX_IMAGES])
    features = examples.array[examples.rows[chosen]].astype(np.float32)  # (n, ..., channels)
    spread = features.std(axis=tuple(range(features.ndim - 1)))
    features /= np.where(spread > 0, spread, 1)
    centered = features.reshape(len(chosen), -1)
    centered -= centered.mean(axis=0)
    # The vectors of the products of images, of which there are fewer than features, give the same plane.
    squares, vectors = np.linalg.eigh((centered @ centered.T).astype(np.float64))
    points = vectors[:, :-3:-1] * np.sqrt(np.maximum(squares[:-3:-1], 0))
    axes = centered.T @ points  # (d, 2): their length does not matter, their sign is that of the largest entry
    points *= np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1, 1)
    variance = np.square(centered, dtype=np.float64).sum()
    shares = np.maximum(squares[:-3:-1], 0) / variance if variance > 0 else np.zeros(2)
    # Rounded, because the last digits of sums of many numbers differ between runs on several cores.
    return PcaProjection(examples.index[chosen], (points.round(3) + 0.0).astype(np.float32), shares.round(4))
