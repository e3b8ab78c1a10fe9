"""A linear probe, and the calibration of its probabilities."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from stages.probes.bisection import crossing
from stages.probes.standardization import StandardizedFeatures


@dataclass(frozen=True)
class LinearProbe:
    """A linear layer: kernel (d, classes), bias (classes,) float64. l2: strength of the penalty that solved it."""

    l2: float
    kernel: np.ndarray
    bias: np.ndarray

    def scores(self, features: StandardizedFeatures, rows: np.ndarray) -> np.ndarray:
        """The outputs of the layer for some rows of the features, (n, classes) float64."""
        return np.concatenate([block @ self.kernel + self.bias for block in features.blocks(rows)])

    def probabilities(self, features: StandardizedFeatures, rows: np.ndarray) -> np.ndarray:
        """The softmax of the scores, (n, classes) float32."""
        return softmax(self.scores(features, rows), axis=1).astype(np.float32)

    def scaled(self, scale: float) -> "LinearProbe":
        """The probe with its scores multiplied by a number."""
        return LinearProbe(self.l2, self.kernel * scale, self.bias * scale)


def calibrating_scale(scores: np.ndarray, labels: np.ndarray) -> float:
    """The factor of scores by which their softmax has the lowest cross-entropy (temperature scaling).

    scores: (n, classes) of validation images; labels: (n,) int. One number is fitted (Guo et al. 2017); the order of
    the classes stays.
    """
    own = scores[np.arange(len(labels)), labels].sum()

    def slope(log_scale: float) -> float:  # of the loss, along the scale: the loss is convex in it
        return (softmax(np.exp(log_scale) * scores, axis=1) * scores).sum() - own

    return float(np.exp(crossing(slope, -3, 7)))
