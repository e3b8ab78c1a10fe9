"""The repeats of a probe: each is solved without the validation images of its fold."""

import time
from dataclasses import dataclass

import numpy as np

from stages.artifacts.features import CachedFeatures
from stages.artifacts.models import Candidate, cross_entropy
from stages.core.errors import UserError
from stages.probes.ridge import LARGEST_MATRIX, LinearProbe, solve_ridge
from stages.probes.selection import accuracy, choose_probe
from stages.probes.standardization import StandardizedFeatures, channel_statistics
from stages.probes.weights import ProbeWeights
from stages.training.batches import Examples, class_weights


@dataclass(frozen=True)
class SolvedProbe:
    """One repeat of a probe. probabilities: split -> (n, classes) float32."""

    features: StandardizedFeatures
    probe: LinearProbe
    candidates: list[Candidate]
    probabilities: dict[str, np.ndarray]
    seconds: float

    @property
    def weights(self) -> ProbeWeights:
        """What is stored."""
        return ProbeWeights(self.features.mean, self.features.variance, self.probe.kernel, self.probe.bias)


def solve_probe(
    features: CachedFeatures, examples: dict[str, Examples], views: int, strengths: list[float], balanced: bool
) -> SolvedProbe:
    """Solve a probe for one fold, and choose among the strengths on its validation images."""
    start = time.perf_counter()
    train = examples["train"].with_views(views, features.record.images)
    standardized = StandardizedFeatures(features.array, *channel_statistics(features.array, examples["train"].rows))
    weights = class_weights(train.labels).astype(np.float64) if balanced else np.ones(len(train.rows))
    solutions = solve_ridge(standardized, train.rows, train.targets(), weights, strengths)
    validation = examples["validation"]
    probe, candidates = choose_probe(solutions, standardized, validation.rows, validation.labels)
    probabilities = {split: probe.probabilities(standardized, part.rows) for split, part in examples.items()}
    return SolvedProbe(standardized, probe, candidates, probabilities, time.perf_counter() - start)


def check_size(name: str, train_views: Examples) -> None:
    """Refuse a probe whose matrix would not fit into memory."""
    size = min(int(np.prod(train_views.array.shape[1:])), len(train_views.rows))
    if size > LARGEST_MATRIX:
        raise UserError(
            f"probes.{name}: ridge regression needs a matrix of {size} x {size}; the limit is {LARGEST_MATRIX} rows "
            "(2 GiB). Pool the features (pooling: average), or set max_train_per_class."
        )


def history_of(solved: SolvedProbe, examples: dict[str, Examples]) -> dict[str, float]:
    """The only epoch of a repeat that is solved."""
    row = {}
    for split in ("train", "validation"):
        row[f"{split}_loss"] = cross_entropy(solved.probabilities[split], examples[split].labels)
        row[f"{split}_accuracy"] = accuracy(solved.probabilities[split], examples[split].labels)
    return row
