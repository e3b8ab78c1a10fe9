"""The votes of the nearest neighbors, by cosine similarity, weighted as DINO weights them (Caron et al. 2021)."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from stages.probes.standardization import StandardizedFeatures

LARGEST_INPUT = 2**29  # float32 values of the training features that are in memory; 2 GiB
VOTE_TEMPERATURE = 0.07  # a neighbor's vote is exp(similarity / 0.07)
BLOCK = 256  # rows whose similarities to all training rows are in memory at once


@dataclass(frozen=True)
class Neighbors:
    """Training rows that vote. unit: (n, d) float32 of length 1; votes: (n, classes), each row's class and weight."""

    unit: np.ndarray
    votes: np.ndarray

    def scores(self, features: StandardizedFeatures, rows: np.ndarray, numbers: list[int]) -> list[np.ndarray]:
        """The logarithms of the shares of votes, (m, classes) float64, per number of neighbors.

        numbers: of neighbors, each from 1 to n. One more vote is spread evenly over the classes, so that no share is 0:
        against k votes it weighs 1 / (k + 1), the less the more neighbors are asked. Of equally similar training rows,
        the first are asked.
        """
        asked = unit_rows(features, rows)
        parts: list[list[np.ndarray]] = [[] for _ in numbers]
        for start in range(0, len(asked), BLOCK):
            similarities = asked[start : start + BLOCK] @ self.unit.T
            nearest = np.argsort(-similarities, axis=1, kind="stable")[:, : max(numbers)]
            similarity = np.take_along_axis(similarities, nearest, axis=1).astype(np.float64)
            weight = np.exp((similarity - similarity[:, :1]) / VOTE_TEMPERATURE)  # the nearest has weight 1
            votes = weight[:, :, None] * self.votes[nearest]
            for number, part in zip(numbers, parts, strict=True):
                total = votes[:, :number].sum(axis=1)
                share = total / total.sum(axis=1, keepdims=True)
                part.append(np.log((number * share + 1 / share.shape[1]) / (number + 1)))
        return [np.concatenate(part) for part in parts]


@dataclass(frozen=True)
class NeighborsProbe:
    """A number of neighbors that vote. scale: of the logarithms of the shares, which calibration chooses."""

    neighbors: int
    remembered: Neighbors
    scale: float = 1.0
    l2: None = None

    def scores(self, features: StandardizedFeatures, rows: np.ndarray) -> np.ndarray:
        """The scaled logarithms of the shares of votes for some rows of the features, (n, classes) float64."""
        return self.scale * self.remembered.scores(features, rows, [self.neighbors])[0]

    def probabilities(self, features: StandardizedFeatures, rows: np.ndarray) -> np.ndarray:
        """The softmax of the scores, (n, classes) float32."""
        return softmax(self.scores(features, rows), axis=1).astype(np.float32)

    def scaled(self, scale: float) -> "NeighborsProbe":
        """The probe with its scores multiplied by a number."""
        return replace(self, scale=self.scale * scale)


def remember(features: StandardizedFeatures, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Neighbors:
    """The neighbors that vote. rows: (n,) to train on. targets: (n, classes) one-hot. weights: (n,), above 0."""
    return Neighbors(unit_rows(features, rows), targets * weights[:, None])


def unit_rows(features: StandardizedFeatures, rows: np.ndarray) -> np.ndarray:
    """Standardized rows (n, d) float32, each divided by its length; a row of zeros stays."""
    blocks = (
        block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12) for block in features.blocks(rows)
    )
    return np.concatenate([block.astype(np.float32) for block in blocks])
