"""Sums over images from which metrics are computed, for many bootstrap weightings at once.

scikit-learn's metrics with `sample_weight` give equal numbers, but for one weighting at a time.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from stages.evaluation.predictions import NO_PREDICTION, RepeatPredictions

BINS = 15  # of confidence, as in Guo et al. 2017
LOWEST = 1e-7  # probability in a logarithm, as Keras clips it


@dataclass(frozen=True)
class SufficientStatistics:
    """Sums over images; the last axis of every array is (weightings,).

    correct, predicted, actual, loss, top_5: (classes, ...). Correct images; images predicted as the class; images of
    the class; their cross-entropy in nats; those of them whose class is among the five most probable.
    confidence, confirmed, count: (classes, BINS, ...). Of the images that are predicted as a class and whose highest
    probability falls into a bin: that probability, the correct images, all images.
    """

    correct: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    loss: np.ndarray
    top_5: np.ndarray
    confidence: np.ndarray
    confirmed: np.ndarray
    count: np.ndarray

    def metrics(self) -> dict[str, np.ndarray]:
        """The metrics of `metrics.compute_metrics` that are functions of sums.

        (1, weightings) for all classes together; (classes, weightings) for names that start with `class_`, NaN for a
        class without images. Only the calibration error of a class is over the images that are predicted as this class.
        """
        images = self.actual.sum(axis=0)
        images = np.where(images > 0, images, np.nan)  # a resample may lack all images of a fold
        scores = {
            "precision": _ratio(self.correct, self.predicted),
            "recall": _ratio(self.correct, self.actual),
            "f1": _ratio(2 * self.correct, self.predicted + self.actual),
        }
        share = self.actual / images
        present = (self.actual > 0) / np.where(images > 0, (self.actual > 0).sum(axis=0), np.nan)  # or a class
        bins = self.confidence, self.confirmed, self.count
        overall = {
            "accuracy": self.correct.sum(axis=0) / images,
            "top5_accuracy": self.top_5.sum(axis=0) / images,
            "balanced_accuracy": (present * scores["recall"]).sum(axis=0),
            **{f"macro_{name}": (present * score).sum(axis=0) for name, score in scores.items()},
            **{f"weighted_{name}": (share * score).sum(axis=0) for name, score in scores.items()},
            "loss": self.loss.sum(axis=0) / images,
            "calibration_error": _calibration_error(*(values.sum(axis=0) for values in bins)),
        }
        by_class = {
            **scores,
            "top5_accuracy": _ratio(self.top_5, self.actual),
            "loss": _ratio(self.loss, self.actual),
        }
        by_class = {name: np.where(self.actual > 0, score, np.nan) for name, score in by_class.items()}
        by_class["calibration_error"] = np.stack(
            [_calibration_error(*class_bins) for class_bins in zip(*bins, strict=True)]
        )
        return {name: values[None] for name, values in overall.items()} | {
            f"class_{name}": values for name, values in by_class.items()
        }


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """part / total, 0 where the total is 0."""
    return np.divide(part, total, out=np.zeros(np.broadcast_shapes(part.shape, total.shape)), where=total > 0)


def _calibration_error(confidence: np.ndarray, confirmed: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean distance between confidence and accuracy over the bins (first axis), weighted by their images."""
    return _ratio(np.abs(confidence - confirmed).sum(axis=0), count.sum(axis=0))


@dataclass(frozen=True)
class GroupStatistics:
    """What the images of every group add to the sums of one repeat: (rows, groups) sparse."""

    matrix: csr_array
    classes: int

    def sums(self, weighting: np.ndarray) -> SufficientStatistics:
        """The sums for weights of the groups, (groups, weightings) float64."""
        totals = self.matrix @ weighting
        by_class, by_bin = totals[: 5 * self.classes], totals[5 * self.classes :]
        return SufficientStatistics(*by_class.reshape(5, self.classes, -1), *by_bin.reshape(3, self.classes, BINS, -1))


def in_top_5(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Whether the actual class is among the five most probable, (n,) bool.

    labels, predicted: (n,) int. probabilities: (n, classes) float32.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    # Of equal probabilities the higher label comes first, as in scikit-learn.
    higher = (probabilities > own) | ((probabilities == own) & (np.arange(probabilities.shape[1]) > labels[:, None]))
    return (predicted != NO_PREDICTION) & (higher.sum(axis=1) < 5)


def group_statistics(repeat: RepeatPredictions, group_count: int) -> GroupStatistics:
    """The statistics of one repeat; an image with NO_PREDICTION adds to `actual` only.

    group_count: of all repeats, whose images may be others.
    """
    labels, predicted, probabilities = repeat.labels, repeat.predicted, repeat.probabilities
    classes, images = probabilities.shape[1], np.arange(len(labels))
    known, correct = predicted != NO_PREDICTION, predicted == labels
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins = np.ceil(np.where(known, confidence, 1) * BINS).astype(int).clip(1, BINS) - 1
    cell = predicted * BINS + bins
    loss = -np.log(np.maximum(probabilities[images, labels].astype(np.float64), LOWEST))
    ones = np.ones(len(labels))
    blocks = [  # the row in the block that each image adds to, which images count, what they add, the block's height
        (labels, correct, ones, classes),
        (predicted, known, ones, classes),
        (labels, np.ones(len(labels), bool), ones, classes),
        (labels, known, loss, classes),
        (labels, in_top_5(labels, predicted, probabilities), ones, classes),
        (cell, known, confidence, classes * BINS),
        (cell, correct, ones, classes * BINS),
        (cell, known, ones, classes * BINS),
    ]
    starts = np.cumsum([0, *(height for *_, height in blocks)])
    rows = np.concatenate([start + row[counted] for start, (row, counted, *_) in zip(starts, blocks, strict=False)])
    values = np.concatenate([value[counted] for _, counted, value, _ in blocks])
    columns = np.concatenate([repeat.groups[counted] for _, counted, *_ in blocks])
    shape = (starts[-1], group_count)
    return GroupStatistics(csr_array((values, (rows, columns)), shape=shape), classes)
