"""How certain the models are, and how often they are right: before and after their calibration."""

from dataclasses import replace

import numpy as np
import pandas as pd

from stages.evaluation.predictions import NO_PREDICTION, SplitPredictions
from stages.evaluation.study_results import StudyResults
from stages.training.calibration import at_temperature

RELIABILITY_BINS = 10  # fewer than for the calibration error, so that more images are in each


def with_temperature(predictions: SplitPredictions, temperature: float) -> SplitPredictions:
    """The predictions of a model in use, at its temperature."""
    return replace(predictions, probabilities=at_temperature(predictions.probabilities, temperature))


def reliability(study: StudyResults) -> dict[str, pd.DataFrame]:
    """Of each model the reliability on the test images of what it predicts in training and in use.

    One row per bin of confidence with images; see `reliability_table`. calibrated: 0 before, 1 after.
    """
    tables = {}
    for model, predictions in study.predictions.items():
        before = predictions["test"]
        after = with_temperature(before, study.records[model].temperature)
        parts = {number: reliability_table(part) for number, part in enumerate((before, after))}
        tables[model] = pd.concat(parts, names=["calibrated", None]).reset_index(level="calibrated")
    return tables


def reliability_table(predictions: SplitPredictions) -> pd.DataFrame:
    """Columns confidence, accuracy, images: means over the images of a bin of the highest probability, all repeats;
    center: of the bin.

    Missing predictions of a diverged repeat do not count.
    """
    known = predictions.predicted != NO_PREDICTION
    confidence = predictions.probabilities.max(axis=2)[known].astype(np.float64)
    table = pd.DataFrame({"confidence": confidence, "accuracy": predictions.correct[known].astype(float)})
    bins = np.ceil(confidence * RELIABILITY_BINS).clip(1, RELIABILITY_BINS)
    means = table.groupby(bins).mean()
    centers = (means.index - 0.5) / RELIABILITY_BINS
    return means.assign(images=table.groupby(bins).size(), center=centers).reset_index(drop=True)
