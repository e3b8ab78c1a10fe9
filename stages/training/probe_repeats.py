"""The repeats of a probe: each is solved without the validation images of its fold."""

import time
from dataclasses import dataclass

import numpy as np

from stages.artifacts.features import CachedFeatures
from stages.artifacts.models import Candidate, cross_entropy
from stages.config.probes import ProbeConfig
from stages.core.errors import UserError
from stages.core.wording import counted
from stages.probes import logistic, neighbors, ridge
from stages.probes.linear import LinearProbe
from stages.probes.neighbors import NeighborsProbe
from stages.probes.selection import accuracy, choose_probe
from stages.probes.standardization import StandardizedFeatures, channel_statistics
from stages.probes.weights import NeighborWeights, ProbeWeights
from stages.training.batches import Examples, class_weights


@dataclass(frozen=True)
class SolvedProbe:
    """One repeat of a probe. probabilities: split -> (n, classes) float32."""

    features: StandardizedFeatures
    probe: LinearProbe | NeighborsProbe
    candidates: list[Candidate]
    probabilities: dict[str, np.ndarray]
    seconds: float
    multiply_adds: int

    @property
    def weights(self) -> ProbeWeights | NeighborWeights:
        """What is stored."""
        statistics, probe = (self.features.mean, self.features.variance), self.probe
        if isinstance(probe, LinearProbe):
            return ProbeWeights(*statistics, probe.kernel, probe.bias)
        numbers = np.array([probe.neighbors]), np.array([probe.scale])
        return NeighborWeights(*statistics, probe.remembered.unit, probe.remembered.votes, *numbers)

    @property
    def choice(self) -> float:
        """The L2 strength, or the number of neighbors, that was chosen."""
        return self.probe.l2 if isinstance(self.probe, LinearProbe) else self.probe.neighbors


def solve_probe(
    entry: ProbeConfig, features: CachedFeatures, examples: dict[str, Examples], choices: list[float], balanced: bool
) -> SolvedProbe:
    """Solve a probe for one fold, and choose among the strengths, or numbers of neighbors, on its validation images."""
    views = features.record.views_used(entry.views)
    start = time.perf_counter()
    train = examples["train"].with_views(views, features.record.images)
    standardized = StandardizedFeatures(features.array, *channel_statistics(features.array, examples["train"].rows))
    weights = class_weights(train.labels).astype(np.float64) if balanced else np.ones(len(train.rows))
    if entry.kind == "ridge":
        solutions = ridge.solve_ridge(standardized, train.rows, train.targets(), weights, choices)
    elif entry.kind == "logistic":
        solutions = logistic.solve_logistic(standardized, train.rows, train.labels, weights, choices)
    else:
        remembered = neighbors.remember(standardized, train.rows, train.targets(), weights)
        fitting = [number for number in choices if number <= len(train.rows)]  # none in a repeat with fewer rows
        solutions = [NeighborsProbe(number, remembered) for number in fitting or [len(train.rows)]]
    validation = examples["validation"]
    probe, candidates = choose_probe(solutions, standardized, validation.rows, validation.labels)
    probabilities = {split: probe.probabilities(standardized, part.rows) for split, part in examples.items()}
    seconds = time.perf_counter() - start
    return SolvedProbe(
        standardized, probe, candidates, probabilities, seconds, _multiply_adds(entry.kind, train, len(choices))
    )


def _multiply_adds(kind: str, train: Examples, strengths: int) -> int:
    size = len(train.rows), int(np.prod(train.array.shape[1:]))
    if kind == "nearest_neighbors":
        return 0  # they are only remembered
    if kind == "ridge":
        return ridge.solving_multiply_adds(*size)
    return logistic.solving_multiply_adds(*size, train.classes, strengths)


def check_size(name: str, kind: str, train_views: Examples) -> None:
    """Refuse a probe whose matrix would not fit into memory."""
    rows, dimensions = len(train_views.rows), int(np.prod(train_views.array.shape[1:]))
    size = min(rows, dimensions)
    if kind == "ridge" and size > ridge.LARGEST_MATRIX:
        what = f"ridge regression needs a matrix of {size} x {size}; the limit is {ridge.LARGEST_MATRIX} rows (2 GiB)"
    elif kind == "nearest_neighbors" and rows * dimensions > neighbors.LARGEST_INPUT:
        what = (
            f"nearest neighbors need {counted(rows, 'row')} of {dimensions} features in memory; the limit is "
            f"{neighbors.LARGEST_INPUT} values (2 GiB)"
        )
    elif kind == "logistic" and rows * dimensions > logistic.LARGEST_INPUT:
        what = (
            f"logistic regression needs {counted(rows, 'row')} of {dimensions} features in memory; the limit is "
            f"{logistic.LARGEST_INPUT} values (2 GiB)"
        )
    else:
        return
    raise UserError(f"probes.{name}: {what}. Pool the features (pooling: average), or set max_train_per_class.")


def check_neighbors(name: str, entry: ProbeConfig, parts: list[Examples]) -> None:
    """Refuse a number of neighbors that is given and above the number of training rows of a repeat."""
    rows = min(len(part.rows) for part in parts)
    given = [] if entry.neighbors is None else entry.choices
    if too_many := [number for number in given if number > rows]:
        raise UserError(
            f"probes.{name}.neighbors: {max(too_many)} is more than the {counted(rows, 'training row')}. Give at most "
            f"{rows}, or null."
        )


def history_of(solved: SolvedProbe, examples: dict[str, Examples]) -> dict[str, float]:
    """The only epoch of a repeat that is solved."""
    row = {}
    for split in ("train", "validation"):
        row[f"{split}_loss"] = cross_entropy(solved.probabilities[split], examples[split].labels)
        row[f"{split}_accuracy"] = accuracy(solved.probabilities[split], examples[split].labels)
    return row
