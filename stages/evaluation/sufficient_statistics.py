"""What the figures of a model are made of: sums over images, which a bootstrap weights in many ways at once."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

NO_PREDICTION = -1
BINS = 15  # of confidence, as in Guo et al. 2017
LOWEST = 1e-7  # probability in a logarithm, as Keras clips it


@dataclass(frozen=True)
class SufficientStatistics:
    """Sums over images for several weightings of them; the last axis of every array are the (weightings,).

    right, predicted, actual, loss, top_5: (classes, ...) images that are right, of the predicted class, of the actual
    class; of the actual class also the cross-entropy in nats, and the images whose class is among the five most
    probable. confidence, confirmed, count: (classes, BINS, ...) of the images of a predicted class whose highest
    probability is in a bin that probability, the right images, and all.
    """

    right: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    loss: np.ndarray
    top_5: np.ndarray
    confidence: np.ndarray
    confirmed: np.ndarray
    count: np.ndarray

    def figures(self) -> dict[str, np.ndarray]:
        """The figures of `metrics.figures_of` that are made of sums.

        (1, weightings) of all classes together; of each class, where the name begins `class_`, (classes, weightings),
        NaN where there is no image of the class, but for the calibration error, which is over what is taken for it.
        """
        images = self.actual.sum(axis=0)
        scores = {
            "precision": _ratio(self.right, self.predicted),
            "recall": _ratio(self.right, self.actual),
            "f1": _ratio(2 * self.right, self.predicted + self.actual),
        }
        share = self.actual / images
        there = (self.actual > 0) / (self.actual > 0).sum(axis=0)  # a resample may be without a class
        together = {
            "accuracy": self.right.sum(axis=0) / images,
            "top5_accuracy": self.top_5.sum(axis=0) / images,
            "balanced_accuracy": (there * scores["recall"]).sum(axis=0),
            **{f"macro_{name}": (there * score).sum(axis=0) for name, score in scores.items()},
            **{f"weighted_{name}": (share * score).sum(axis=0) for name, score in scores.items()},
            "loss": self.loss.sum(axis=0) / images,
            "calibration_error": _calibration_error(*(each.sum(axis=0) for each in self._bins())),
        }
        of_classes = {
            name: np.where(self.actual > 0, score, np.nan)
            for name, score in {
                **scores,
                "top5_accuracy": _ratio(self.top_5, self.actual),
                "loss": _ratio(self.loss, self.actual),
            }.items()
        } | {
            "calibration_error": np.stack([_calibration_error(*bins) for bins in zip(*self._bins(), strict=True)]),
        }
        return {name: figure[None] for name, figure in together.items()} | {
            f"class_{name}": figure for name, figure in of_classes.items()
        }

    def _bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.confidence, self.confirmed, self.count


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole > 0)


def _calibration_error(confidence: np.ndarray, confirmed: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean distance of confidence and accuracy over the bins (first axis), weighted by their images."""
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
    """Whether the actual class is among the five most probable, (n,) bool; arguments as of `group_statistics`."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    # Of equal probabilities the higher label goes first, as in scikit-learn.
    ahead = (probabilities > own) | ((probabilities == own) & (np.arange(probabilities.shape[1]) > labels[:, None]))
    return (predicted != NO_PREDICTION) & (ahead.sum(axis=1) < 5)


def group_statistics(
    labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, groups: np.ndarray
) -> GroupStatistics:
    """The parts of one repeat.

    labels, predicted, groups: (n,) int; where predicted is NO_ANSWER, an image adds to `actual` alone.
    probabilities: (n, classes) float32.
    """
    classes, images = probabilities.shape[1], np.arange(len(labels))
    told, right = predicted != NO_PREDICTION, predicted == labels
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins = np.ceil(np.where(told, confidence, 1) * BINS).astype(int).clip(1, BINS) - 1
    cell = predicted * BINS + bins
    loss = -np.log(np.maximum(probabilities[images, labels].astype(np.float64), LOWEST))
    one = np.ones(len(labels))
    blocks = [  # the rows of a block, which images add to it, what, and its height
        (labels, right, one, classes),
        (predicted, told, one, classes),
        (labels, np.ones(len(labels), bool), one, classes),
        (labels, told, loss, classes),
        (labels, in_top_5(labels, predicted, probabilities), one, classes),
        (cell, told, confidence, classes * BINS),
        (cell, right, one, classes * BINS),
        (cell, told, one, classes * BINS),
    ]
    starts = np.cumsum([0, *(height for *_, height in blocks)])
    rows = np.concatenate([start + row[which] for start, (row, which, *_) in zip(starts, blocks, strict=False)])
    values = np.concatenate([value[which] for _, which, value, _ in blocks])
    columns = np.concatenate([groups[which] for _, which, *_ in blocks])
    shape = (starts[-1], groups.max() + 1)
    return GroupStatistics(csr_array((values, (rows, columns)), shape=shape), classes)
