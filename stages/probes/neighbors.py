"""The votes of the nearest neighbors, by cosine similarity, weighted as DINO weights them (Caron et al. 2021)."""

from dataclasses import dataclass

import numpy as np

from stages.probes.standardization import StandardizedFeatures

DEFAULT_NEIGHBORS = [1, 5, 10, 20, 50, 100, 200]
VOTE_TEMPERATURE = 0.07  # a neighbor's vote is exp(similarity / 0.07)
BLOCK = 256  # rows whose similarities to all training rows are in memory at once


@dataclass(frozen=True)
class Neighbors:
    """Training rows that vote. unit: (n, d) float32 of length 1; votes: (n, classes), each row's class and weight."""

    unit: np.ndarray
    votes: np.ndarray

    def scores(self, features: StandardizedFeatures, rows: np.ndarray, numbers: list[int]) -> list[np.ndarray]:
        """The logarithms of the shares of votes, (m, classes) float64, for each number of neighbors.

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


def remember(features: StandardizedFeatures, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Neighbors:
    """The neighbors that vote. rows: (n,) to train on. targets: (n, classes) one-hot. weights: (n,), above 0."""
    return Neighbors(unit_rows(features, rows), targets * weights[:, None])


def unit_rows(features: StandardizedFeatures, rows: np.ndarray) -> np.ndarray:
    """Standardized rows (n, d) float32, each divided by its length; a row of zeros stays."""
    blocks = (
        block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12) for block in features.blocks(rows)
    )
    return np.concatenate([block.astype(np.float32) for block in blocks])
