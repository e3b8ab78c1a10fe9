"""A linear head that is solved instead of trained: one eigendecomposition for all strengths of the penalty."""

import time
from collections.abc import Callable
from dataclasses import asdict

import keras
import numpy as np
import pandas as pd

from stages.artifacts.models import Candidate, ModelResult, Provenance, cross_entropy
from stages.backbones.runtime import make_deterministic
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.probes.ridge import LARGEST, calibrate, probe_scores, solve_ridge
from stages.training.batches import Examples, class_weights
from stages.training.fitting import predict_probabilities
from stages.training.repeats import Repeat, summarize_repeats


def solve_head(
    name: str,
    build: Callable[[], keras.Model],
    strengths: list[float],
    examples: dict[str, Examples],
    shown: Examples,
    statistics: tuple[np.ndarray, np.ndarray],
    settings: TrainingConfig,
    origin: Provenance,
) -> tuple[keras.Model, ModelResult]:
    """Solve a linear head for all strengths and keep the one of the lowest validation loss.

    build: makes the head, one dense layer `predictions` on standardized features. statistics: by which they are. The
    result has one epoch. Raises `UserError` when the features and the images are too many to be solved.
    """
    train, validation = examples["train"], examples["validation"]
    size = min(int(np.prod(shown.array.shape[1:])), len(shown.rows))
    if size > LARGEST:
        raise UserError(
            f"heads.{name}.kind: ridge would decompose a matrix of {size} x {size}, and at most {LARGEST} is possible; "
            "pool the features (pooling: average), or give the head a max_train_per_class."
        )
    start = time.perf_counter()
    weights = np.ones(len(shown.rows))
    if settings.class_weights == "balanced":
        weights = class_weights(shown.labels).astype(np.float64)
    make_deterministic(0)  # nothing random is left in what is solved
    head = build()

    def take(probe_weights: list[np.ndarray], of: Examples) -> tuple[np.ndarray, float, float]:
        head.get_layer("predictions").set_weights(probe_weights)
        found = predict_probabilities(head, of)
        return found, cross_entropy(found, of.labels), float((found.argmax(axis=1) == of.labels).mean())

    solved, tried = [], []
    for probe in solve_ridge(shown.array, shown.rows, shown.targets(), weights, statistics, strengths):
        raw = probe_scores(probe, validation.array, validation.rows, statistics)
        probe = calibrate(probe, raw, validation.labels)
        solved.append([probe.kernel, probe.bias])
        tried.append((probe.l2, *take(solved[-1], validation)[1:]))
    best = int(np.argmin([loss for _, loss, _ in tried]))
    probabilities = {split: take(solved[best], of_split)[0] for split, of_split in examples.items()}
    _, train_loss, train_accuracy = take(solved[best], train)
    row = {
        "epoch": 1,
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "validation_loss": tried[best][1],
        "validation_accuracy": tried[best][2],
    }
    candidates = [
        asdict(
            Candidate(
                learning_rate=None,
                l2=l2,
                epochs=1,
                validation_loss=loss,
                validation_accuracy=accuracy,
                chosen=place == best,
            )
        )
        for place, (l2, loss, accuracy) in enumerate(tried)
    ]
    solution = Repeat(
        chosen=best,
        candidates=candidates,
        history=pd.DataFrame([row]),
        seconds=time.perf_counter() - start,
        weights=head.get_weights(),
        probabilities=probabilities,
    )
    return head, summarize_repeats([solution], 0, examples, shown, origin, head)
