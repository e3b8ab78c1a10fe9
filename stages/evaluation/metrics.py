"""The metrics of a model on one split, from predicted probabilities and true labels, with their 95 % intervals."""

from typing import Any

import numpy as np
import pandas as pd

from stages.artifacts.models import ModelResult
from stages.evaluation.calibration import with_temperature
from stages.evaluation.formatting import rounded
from stages.evaluation.intervals import effective_images, percentiles, resampled_groups, unbiased, wilson
from stages.evaluation.predictions import SplitPredictions
from stages.evaluation.roc_auc import class_roc_aucs, mean_roc_auc
from stages.evaluation.sufficient_statistics import GroupStatistics, group_statistics, in_top_5

TOP_5_ABOVE = 5  # classes; with fewer the true class is always among five
NEEDS_PROBABILITIES = ("roc_auc", "loss", "calibration_error")  # unknown if a repeat diverged


def compute_metrics(
    predictions: SplitPredictions, seed: int | None = None, with_roc_auc: bool = True
) -> dict[str, np.ndarray]:
    """Every metric of a split with its spread over the repeats and its 95 % interval.

    seed: of the bootstrap; without it only accuracy, recall and ROC-AUC have intervals. with_roc_auc: ROC-AUC takes
    most of the time.

    Returns arrays: (1,) for all classes together, (classes,) for names that start with `class_`. `<name>` is the mean
    over the repeats, each on the images that it predicts, `<name>_std` the sample standard deviation over them (NaN
    with one repeat), `<name>_low` and `<name>_high` the interval. The metrics:

    accuracy, top5_accuracy; balanced_accuracy: the mean recall of the classes (Brodersen et al. 2010).
    precision, recall, f1: with macro_ the mean over the classes, 0 for a class that is never predicted; with weighted_
        weighted by the number of images of each class.
    roc_auc: of two classes that of the second, else the mean over the classes, each against the rest.
    loss: cross-entropy in nats.
    calibration_error: expected distance between the highest probability and the accuracy, in 15 bins of that
        probability (Guo et al. 2017); of a class, over the images that are predicted as this class.

    Predictions that a diverged repeat lacks are wrong; roc_auc, loss and calibration_error are then NaN. Metrics of a
    class without images are NaN.

    Intervals describe the choice of images, in whole groups where images have groups; not the repeats. Those of
    accuracy, top-5 accuracy and recall are Wilson's (1927), of ROC-AUC DeLong's (1988), the rest is a bootstrap:
    percentiles, or `intervals.unbiased` for the calibration error. NaN where nothing varies.
    """
    statistics = [group_statistics(part, predictions.group_count) for part in predictions.repeats()]
    all_images = np.ones((predictions.group_count, 1))
    repeats = [repeat.sums(all_images).metrics() for repeat in statistics]
    metrics = {}
    for name in repeats[0]:
        metrics |= _over_repeats(name, np.stack([values[name][:, 0] for values in repeats]))
    if seed is not None:
        metrics |= _bootstrap_intervals({name: metrics[name] for name in repeats[0]}, statistics, seed)
    metrics |= _wilson_intervals(predictions) | (_roc_auc(predictions) if with_roc_auc else {})
    return _without_unknown(metrics, predictions)


def _over_repeats(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and standard deviation of a metric over its repeats, the first axis."""
    std = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    return {name: values.mean(axis=0), f"{name}_std": std}


def _bootstrap_intervals(
    metrics: dict[str, np.ndarray], statistics: list[GroupStatistics], seed: int
) -> dict[str, np.ndarray]:
    """The intervals of metrics that are functions of sums over images; statistics: of each repeat."""
    groups = statistics[0].matrix.shape[1]
    chunks = [[repeat.sums(counts).metrics() for repeat in statistics] for counts in resampled_groups(groups, seed)]
    intervals = {}
    for name, value in metrics.items():
        resampled = np.concatenate([np.mean([repeat[name] for repeat in chunk], axis=0) for chunk in chunks], axis=-1)
        biased = name.endswith("calibration_error")
        ends = unbiased(value, resampled) if biased else percentiles(resampled, groups)
        # If no resample differs, for example because all predictions are correct, the variation is unknown.
        varies = (np.abs(resampled - value[:, None]) > 1e-12).any(axis=-1)
        intervals |= {
            f"{name}_{side}": np.where(varies, end, np.nan) for side, end in zip(("low", "high"), ends, strict=True)
        }
    return intervals


def _wilson_intervals(predictions: SplitPredictions) -> dict[str, np.ndarray]:
    """Wilson's intervals of accuracy and top-5 accuracy, of all images and of every class (its recall)."""
    repeats = zip(predictions.predicted, predictions.probabilities, strict=True)
    top_5 = np.sum([in_top_5(predictions.labels, *repeat) for repeat in repeats], axis=0)
    top_5 = top_5 / predictions.predicts.sum(axis=0)
    everything = [np.ones(len(predictions.labels), bool)]
    by_class = [predictions.labels == label for label in range(predictions.classes)]
    metrics = {}
    for name, subsets, correct in (
        ("accuracy", everything, predictions.share_correct),
        ("class_recall", by_class, predictions.share_correct),
        ("top5_accuracy", everything, top_5),
        ("class_top5_accuracy", by_class, top_5),
    ):
        intervals = [
            wilson(correct[subset], predictions.groups[subset]) if subset.any() else (np.nan, np.nan)
            for subset in subsets
        ]
        metrics |= dict(zip((f"{name}_low", f"{name}_high"), np.transpose(intervals), strict=True))
    return metrics


def _roc_auc(predictions: SplitPredictions) -> dict[str, np.ndarray]:
    """ROC-AUC with its spread and interval; NaN if a class or a probability is missing."""
    classes = predictions.classes
    parts = predictions.repeats()
    if predictions.diverged or any(len(np.unique(part.labels)) < classes for part in parts):
        names = [f"{name}{end}" for name in ("roc_auc", "class_roc_auc") for end in ("", "_std", "_low", "_high")]
        return {name: np.full(classes if name.startswith("class_") else 1, np.nan) for name in names}
    repeats = [
        [auc.among(rows) for auc in class_roc_aucs(part.labels, part.probabilities, part.groups)]
        for part, rows in zip(parts, predictions.predicts, strict=True)
    ]
    by_class = [mean_roc_auc(aucs) for aucs in zip(*repeats, strict=True)]
    values = np.array([[auc.value for auc in repeat] for repeat in repeats])
    averaged = slice(1, None) if classes == 2 else slice(None)
    metrics = _over_repeats("class_roc_auc", values)
    metrics |= _over_repeats("roc_auc", values[:, averaged].mean(axis=1, keepdims=True))
    for name, aucs in (("class_roc_auc", by_class), ("roc_auc", [mean_roc_auc(by_class[averaged])])):
        intervals = np.transpose([auc.interval(predictions.groups) for auc in aucs])
        metrics |= dict(zip((f"{name}_low", f"{name}_high"), intervals, strict=True))
    return metrics


def _without_unknown(metrics: dict[str, np.ndarray], predictions: SplitPredictions) -> dict[str, np.ndarray]:
    """Drop top-5 accuracy where it is always 1; set what needs probabilities to NaN if a repeat diverged."""
    known = {}
    for name, values in metrics.items():
        base = name.removeprefix("class_")
        if base.startswith("top5_accuracy") and predictions.classes <= TOP_5_ABOVE:
            continue
        unknown = predictions.diverged and base.startswith(NEEDS_PROBABILITIES)
        known[name] = np.full_like(values, np.nan) if unknown else values
    return known


def split_metrics(predictions: SplitPredictions, metrics: dict[str, np.ndarray]) -> dict[str, float | None]:
    """A split in metrics.json: the metrics of all classes together; None for unknown values.

    images: the number of images. effective_images: the number of independent images with the same information; fewer if
    images have groups. majority_rate: the accuracy of always predicting the largest class.
    """
    overall = {name: values[0] for name, values in metrics.items() if not name.startswith("class_")}
    return {
        "images": len(predictions.labels),
        "effective_images": rounded(effective_images(predictions.share_correct, predictions.groups)),
        **{name: rounded(value) if np.isfinite(value) else None for name, value in overall.items()},
        "majority_rate": rounded(np.bincount(predictions.labels).max() / len(predictions.labels)),
    }


def calibrated_metrics(predictions: SplitPredictions, temperature: float) -> dict[str, float | None]:
    """`calibrated_loss` and `calibrated_error`: loss and calibration error of a model in use, at its temperature.

    Means over the repeats; None if a repeat diverged.
    """
    metrics = compute_metrics(with_temperature(predictions, temperature), with_roc_auc=False)
    values = {"calibrated_loss": metrics["loss"][0], "calibrated_error": metrics["calibration_error"][0]}
    return {name: rounded(value) if np.isfinite(value) else None for name, value in values.items()}


def class_metrics(predictions: SplitPredictions, metrics: dict[str, np.ndarray], classes: list[str]) -> pd.DataFrame:
    """One row for every class: name, number of images and metrics; NaN for unknown values."""
    counts = np.bincount(predictions.labels, minlength=len(classes))
    by_class = {name.removeprefix("class_"): values for name, values in metrics.items() if name.startswith("class_")}
    return pd.DataFrame({"class": classes, "images": counts, **by_class})


def model_metrics(
    result: ModelResult,
    predictions: dict[str, SplitPredictions],
    metrics: dict[str, dict[str, np.ndarray]],
) -> dict[str, Any]:
    """The part of metrics.json for one model, without its costs: every split, and training; numbers and None only."""
    record = result.record
    parts = {split: split_metrics(predictions[split], values) for split, values in metrics.items()}
    parts["test"] |= calibrated_metrics(predictions["test"], record.temperature)
    return {
        **parts,
        "training": {
            "epochs": None if record.kind == "probe" else rounded(np.mean(record.epochs)),  # a probe is solved
            "repeats": record.repeats,
            "diverged_repeats": len(set().union(*(part.diverged for part in predictions.values()))),
            "images": record.train_images,
            "temperature": record.temperature,
        },
    }


def summarize(metrics: dict[str, Any]) -> dict[str, float]:
    """The few numbers that `dvc metrics` lists for a model, with four decimals.

    DVC sorts them by name: those of the validation images, which decide, come first, and those of the test images last.
    f1, precision, recall: means over the classes.
    """
    validation, test = metrics["validation"], metrics["test"]
    values = {
        "accuracy": validation["accuracy"],
        "accuracy_high": validation["accuracy_high"],
        "accuracy_low": validation["accuracy_low"],
        "f1": validation["macro_f1"],
        "precision": validation["macro_precision"],
        "recall": validation["macro_recall"],
        "seconds": metrics["cost"]["total_seconds"],
        "test_accuracy": test["accuracy"],
        "test_high": test["accuracy_high"],
        "test_low": test["accuracy_low"],
    }
    return {name: round(value, 4) for name, value in values.items()}
