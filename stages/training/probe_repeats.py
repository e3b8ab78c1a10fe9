"""The repeats of a probe: each is solved without the validation images of its fold."""

import time
from dataclasses import dataclass

import numpy as np

from stages.artifacts.features import CachedFeatures
from stages.artifacts.models import Candidate, cross_entropy
from stages.config.probes import ProbeConfig
from stages.core.errors import UserError
from stages.core.wording import counted
from stages.probes import logistic, ridge
from stages.probes.linear import LinearProbe
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
    multiply_adds: int

    @property
    def weights(self) -> ProbeWeights:
        """What is stored."""
        return ProbeWeights(self.features.mean, self.features.variance, self.probe.kernel, self.probe.bias)


def solve_probe(
    entry: ProbeConfig, features: CachedFeatures, examples: dict[str, Examples], strengths: list[float], balanced: bool
) -> SolvedProbe:
    """Solve a probe for one fold, and choose among the strengths on its validation images."""
    views = features.record.views_used(entry.views)
    start = time.perf_counter()
    train = examples["train"].with_views(views, features.record.images)
    standardized = StandardizedFeatures(features.array, *channel_statistics(features.array, examples["train"].rows))
    weights = class_weights(train.labels).astype(np.float64) if balanced else np.ones(len(train.rows))
    if entry.kind == "ridge":
        solutions = ridge.solve_ridge(standardized, train.rows, train.targets(), weights, strengths)
    else:
        solutions = logistic.solve_logistic(standardized, train.rows, train.labels, weights, strengths)
    validation = examples["validation"]
    probe, candidates = choose_probe(solutions, standardized, validation.rows, validation.labels)
    probabilities = {split: probe.probabilities(standardized, part.rows) for split, part in examples.items()}
    seconds = time.perf_counter() - start
    return SolvedProbe(
        standardized, probe, candidates, probabilities, seconds, _multiply_adds(entry.kind, train, len(strengths))
    )


def _multiply_adds(kind: str, train: Examples, strengths: int) -> int:
    size = len(train.rows), int(np.prod(train.array.shape[1:]))
    return (
        ridge.solving_multiply_adds(*size)
        if kind == "ridge"
        else logistic.solving_multiply_adds(*size, train.classes, strengths)
    )


def check_size(name: str, kind: str, train_views: Examples) -> None:
    """Refuse a probe whose matrix would not fit into memory."""
    rows, dimensions = len(train_views.rows), int(np.prod(train_views.array.shape[1:]))
    size = min(rows, dimensions)
    if kind == "ridge" and size > ridge.LARGEST_MATRIX:
        what = f"ridge regression needs a matrix of {size} x {size}; the limit is {ridge.LARGEST_MATRIX} rows (2 GiB)"
    elif kind == "logistic" and rows * dimensions > logistic.LARGEST_INPUT:
        what = (
            f"logistic regression needs {counted(rows, 'row')} of {dimensions} features in memory; the limit is "
            f"{logistic.LARGEST_INPUT} values (2 GiB)"
        )
    else:
        return
    raise UserError(f"probes.{name}: {what}. Pool the features (pooling: average), or set max_train_per_class.")


def history_of(solved: SolvedProbe, examples: dict[str, Examples]) -> dict[str, float]:
    """The only epoch of a repeat that is solved."""
    row = {}
    for split in ("train", "validation"):
        row[f"{split}_loss"] = cross_entropy(solved.probabilities[split], examples[split].labels)
        row[f"{split}_accuracy"] = accuracy(solved.probabilities[split], examples[split].labels)
    return row
