"""The repeats of a model combined, at no further training: averaged probabilities, and averaged weights.

The recommendation leaves them out: where repeats hold out different folds, every validation image was trained on by
some of them, so no image can validate the combination.
"""

from typing import Any

import numpy as np

from stages.evaluation.comparisons import standard_errors, student
from stages.evaluation.formatting import rounded
from stages.evaluation.intervals import wilson
from stages.evaluation.predictions import SplitPredictions
from stages.evaluation.study_results import StudyResults
from stages.training.calibration import at_temperature


def combined_repeats(study: StudyResults, models: list[str], metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for the ensemble of each model with several repeats, and one for its soup, if its repeats share a start.

    model, kind, repeats. accuracy, low, high: on the test images. to_used, to_mean: the difference from the repeat that
    is used, and from the mean of the repeats, each with low and high (paired). validation: the accuracy, None if the
    repeats do not hold out the same images. multiply_adds: of one image in use. megabytes: of the weights in use.
    metrics: model -> its part of metrics.json. A model with a diverged repeat has no rows.
    """
    rows = []
    for model in models:
        record, predictions, soup = study.records[model], study.predictions[model], study.results[model].soup
        if record.repeats == 1 or metrics[model]["training"]["diverged_repeats"]:
            continue
        held_out = ["test"] if len(set(record.folds)) > 1 else ["test", "validation"]
        ensemble = {
            split: at_temperature(predictions[split].probabilities, record.temperature).mean(axis=0)
            for split in held_out
        }
        # The repeats of a head, or a probe, have one frozen backbone.
        features = record.provenance.features if record.kind in ("head", "probe") else None
        shared_work, shared_weights = (features.multiply_adds, features.parameters) if features else (0, 0)
        for kind, probabilities, times in (("ensemble", ensemble, record.repeats), ("soup", soup, 1)):
            if not probabilities:
                continue
            correct = {
                split: values.argmax(axis=1) == predictions[split].labels for split, values in probabilities.items()
            }
            rows.append(
                {
                    "model": model,
                    "kind": kind,
                    "repeats": record.repeats,
                    **_on_test(correct["test"], predictions["test"], record.best_repeat),
                    "validation": rounded(correct["validation"].mean()) if "validation" in correct else None,
                    "multiply_adds": shared_work + times * (record.multiply_adds - shared_work),
                    "megabytes": rounded((shared_weights + times * (record.total_parameters - shared_weights)) * 4e-6),
                }
            )
    return rows


def _on_test(correct: np.ndarray, test: SplitPredictions, best_repeat: int) -> dict[str, Any]:
    low, high = wilson(correct, test.groups)
    return {
        "accuracy": rounded(correct.mean()),
        "low": rounded(low),
        "high": rounded(high),
        "to_used": _difference(correct, test.correct[best_repeat], test.groups),
        "to_mean": _difference(correct, test.share_correct, test.groups),
    }


def _difference(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> list[float]:
    """The difference of two accuracies on the same images, and its 95 % interval for the choice of images."""
    outcomes = {name: values.astype(float)[None] for name, values in (("a", a), ("b", b))}
    (error,), (degrees,) = standard_errors(outcomes, groups)
    difference = float(a.mean() - b.mean())
    low, high, _ = student(difference, error, degrees)
    return [rounded(difference), rounded(low), rounded(high)]
