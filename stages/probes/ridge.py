"""Ridge regression of one-hot classes on features, solved in closed form."""

from collections.abc import Iterator

import numpy as np
from scipy.linalg import eigh

from stages.probes.linear import LinearProbe
from stages.probes.standardization import StandardizedFeatures

LARGEST_MATRIX = 16_384  # rows of the matrix that is decomposed; 2 GiB


def solve_ridge(
    features: StandardizedFeatures, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray, strengths: list[float]
) -> list[LinearProbe]:
    """Solve ridge regression for all strengths with one eigendecomposition (Hoerl & Kennard 1970).

    rows: (n,) of the features to train on. targets: (n, classes) one-hot. weights: (n,) of the rows, above 0.
    strengths: above 0. Minimizes the weighted mean of squared errors plus strength times the squared kernel; the
    intercept is not penalized. If there are more features than rows, the matrix of the products of rows is decomposed,
    which gives the same solution.
    """
    share = weights / weights.sum()
    target_mean = share @ targets
    centered_targets = targets - target_mean
    feature_mean = sum(share[start:stop] @ block for start, stop, block in _slices(features.blocks(rows)))
    dimensions = len(feature_mean)
    root = np.sqrt(share)[:, None]
    if dimensions <= len(rows):
        gram, cross = np.zeros((dimensions, dimensions)), np.zeros((dimensions, targets.shape[1]))
        for start, stop, block in _slices(features.blocks(rows)):
            centered = (block - feature_mean) * root[start:stop]
            gram += centered.T @ centered
            cross += centered.T @ (centered_targets[start:stop] * root[start:stop])
        values, vectors = eigh(gram, overwrite_a=True)
        rotated = vectors.T @ cross
        kernels = [vectors @ (rotated / (np.maximum(values, 0) + l2)[:, None]) for l2 in strengths]
    else:
        centered = (np.concatenate(list(features.blocks(rows))) - feature_mean) * root
        values, vectors = eigh(centered @ centered.T, overwrite_a=True)
        rotated = vectors.T @ (centered_targets * root)
        kernels = [centered.T @ (vectors @ (rotated / (np.maximum(values, 0) + l2)[:, None])) for l2 in strengths]
    return [
        LinearProbe(l2, kernel, target_mean - feature_mean @ kernel)
        for l2, kernel in zip(strengths, kernels, strict=True)
    ]


def solving_multiply_adds(rows: int, dimensions: int) -> int:
    """The multiply-adds of `solve_ridge` in order of magnitude: the matrix of products, and its decomposition."""
    size = min(rows, dimensions)
    return rows * dimensions * size + size**3


def _slices(blocks: Iterator[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Blocks of rows, each with its first row and the row after its last."""
    start = 0
    for block in blocks:
        yield start, start + len(block), block
        start += len(block)
