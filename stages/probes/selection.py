"""Choosing a probe among several strengths of its penalty, on the validation images."""

from typing import TypeVar

import numpy as np
from scipy.special import softmax

from stages.artifacts.models import Candidate, cross_entropy
from stages.probes.linear import LinearProbe, calibrating_scale
from stages.probes.neighbors import NeighborsProbe
from stages.probes.standardization import StandardizedFeatures

Probe = TypeVar("Probe", LinearProbe, NeighborsProbe)


def choose_probe(
    solutions: list[Probe], features: StandardizedFeatures, rows: np.ndarray, labels: np.ndarray
) -> tuple[Probe, list[Candidate]]:
    """The calibrated probe with the lowest validation loss, and all candidates if there were several.

    rows: (n,) of the features of the validation images; labels: (n,) int.
    """
    probes, losses, accuracies = [], [], []
    for solution, scores in zip(solutions, _scores_of_all(solutions, features, rows), strict=True):
        scale = calibrating_scale(scores, labels)
        probabilities = softmax(scale * scores, axis=1).astype(np.float32)
        probes.append(solution.scaled(scale))
        losses.append(cross_entropy(probabilities, labels))
        accuracies.append(accuracy(probabilities, labels))
    best = int(np.argmin(losses))
    candidates = [
        Candidate(
            learning_rate=None,
            l2=probe.l2,
            neighbors=getattr(probe, "neighbors", None),
            epochs=1,
            validation_loss=loss,
            validation_accuracy=validation_accuracy,
            chosen=number == best,
        )
        for number, (probe, loss, validation_accuracy) in enumerate(zip(probes, losses, accuracies, strict=True))
    ]
    return probes[best], candidates if len(candidates) > 1 else []


def _scores_of_all(solutions: list[Probe], features: StandardizedFeatures, rows: np.ndarray) -> list[np.ndarray]:
    """The scores (n, classes) of each solution; features and similarities are computed once for all."""
    if isinstance(solutions[0], NeighborsProbe):
        return solutions[0].remembered.scores(features, rows, [solution.neighbors for solution in solutions])
    blocks = [[block @ probe.kernel + probe.bias for probe in solutions] for block in features.blocks(rows)]
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose most probable class is their label. probabilities: (n, classes); labels: (n,)."""
    return float((probabilities.argmax(axis=1) == labels).mean())
