"""A linear probe, and the calibration of its probabilities."""

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from stages.probes.standardization import StandardizedFeatures


class Scoring(Protocol):
    """What every kind of probe can do."""

    def scaled(self, scale: float) -> Self:
        """The probe with its scores multiplied by a number."""


Probe = TypeVar("Probe", bound=Scoring)


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


def calibrate(probe: Probe, scores: np.ndarray, labels: np.ndarray) -> Probe:
    """The probe with its scores scaled so that their softmax has the lowest cross-entropy (temperature scaling).

    scores: (n, classes) of validation images; labels: (n,) int. One number is fitted (Guo et al. 2017); the order of
    the classes stays.
    """

    def loss(log_scale: float) -> float:
        return -log_softmax(np.exp(log_scale) * scores, axis=1)[np.arange(len(labels)), labels].mean()

    return probe.scaled(np.exp(minimize_scalar(loss, bounds=(-3, 7), method="bounded").x))
