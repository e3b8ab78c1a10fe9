"""A linear probe in closed form: ridge regression of one-hot classes on features, as probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BLOCK = 1024  # features in memory at once
LARGEST = 16_384  # side of the matrix that is decomposed, 2 GiB


@dataclass(frozen=True)
class LinearProbe:
    """A linear layer for one strength: kernel (d, classes) and bias (classes,) float64, of a softmax.

    l2: the strength. scale: what the regression's scores are multiplied by to be log-probabilities.
    """

    l2: float
    kernel: np.ndarray
    bias: np.ndarray


def blocks(array: np.ndarray, rows: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Iterator[np.ndarray]:
    """The given rows of features (m, ..., c) standardized channel by channel and flattened, (BLOCK, d) float64."""
    for start in range(0, len(rows), BLOCK):
        values = (array[rows[start : start + BLOCK]].astype(np.float64) - mean) / np.sqrt(variance)
        yield values.reshape(len(values), -1)


def solve_ridge(
    array: np.ndarray,
    rows: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    statistics: tuple[np.ndarray, np.ndarray],
    strengths: list[float],
) -> list[LinearProbe]:
    """Solve ridge regression for all strengths with one eigendecomposition (Hoerl & Kennard 1970).

    targets (n, classes): one-hot. weights (n,): how much each row counts, mean 1. Minimised is the weighted mean of
    squared errors plus strength times the squared kernel; the intercept is not penalised. With more features than rows
    the matrix of the rows' products is decomposed instead, which has the same solution.
    """
    share = weights / weights.sum()
    center_y = share @ targets
    wanted = targets - center_y
    center_x = sum(
        share[place : place + len(block)] @ block for place, block in _placed(blocks(array, rows, *statistics))
    )
    features = len(center_x)
    root = np.sqrt(share)[:, None]
    if features <= len(rows):
        gram, cross = np.zeros((features, features)), np.zeros((features, targets.shape[1]))
        for place, block in _placed(blocks(array, rows, *statistics)):
            part = slice(place, place + len(block))
            centered = (block - center_x) * root[part]
            gram += centered.T @ centered
            cross += centered.T @ (wanted[part] * root[part])
        values, vectors = eigh(gram, overwrite_a=True)
        turned = vectors.T @ cross
        kernels = [vectors @ (turned / (np.maximum(values, 0) + l2)[:, None]) for l2 in strengths]
    else:
        centered = (np.concatenate(list(blocks(array, rows, *statistics))) - center_x) * root
        values, vectors = eigh(centered @ centered.T, overwrite_a=True)
        turned = vectors.T @ (wanted * root)
        kernels = [centered.T @ (vectors @ (turned / (np.maximum(values, 0) + l2)[:, None])) for l2 in strengths]
    return [
        LinearProbe(l2, kernel, center_y - center_x @ kernel) for l2, kernel in zip(strengths, kernels, strict=True)
    ]


def _placed(parts: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    place = 0
    for part in parts:
        yield place, part
        place += len(part)


def probe_scores(
    probe: LinearProbe, array: np.ndarray, rows: np.ndarray, statistics: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """What the probe says to the given rows, (n, classes) float64."""
    return np.concatenate([block @ probe.kernel + probe.bias for block in blocks(array, rows, *statistics)])


def calibrate(probe: LinearProbe, of_validation: np.ndarray, labels: np.ndarray) -> LinearProbe:
    """The probe with its scores scaled to the log-probabilities that suit the validation images best.

    of_validation: its scores (n, classes), labels (n,). One number is fitted (Guo et al. 2017, temperature scaling);
    the order of the classes stays.
    """

    def loss(log_scale: float) -> float:
        return -log_softmax(np.exp(log_scale) * of_validation, axis=1)[np.arange(len(labels)), labels].mean()

    scale = np.exp(minimize_scalar(loss, bounds=(-3, 7), method="bounded").x)
    return LinearProbe(probe.l2, probe.kernel * scale, probe.bias * scale)
