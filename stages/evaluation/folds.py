"""Which images the repeats of a model predict correctly, where each repeat may validate on another fold."""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy import stats

from stages.evaluation.predictions import SplitPredictions


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a model on images of one split, in ascending order of the images' rows.

    correct: (repeats, n) bool, whether a repeat is correct. predicts: (repeats, n) bool, whether it predicted the image
    at all; every image has a prediction. groups: (n,) int64, 0 up; images of one group are not independent.
    best_repeat: its position among these repeats.
    """

    correct: np.ndarray
    predicts: np.ndarray
    groups: np.ndarray
    best_repeat: int = 0

    @property
    def folds(self) -> np.ndarray:
        """The fold of each image, (n,) int from 0 up: images of one fold were predicted by the same repeats."""
        if self.predicts.all():
            return np.zeros(len(self.groups), int)
        return np.unique(self.predicts, axis=1, return_inverse=True)[1].reshape(-1)

    @property
    def by_image(self) -> np.ndarray:
        """Whether repeats are correct on each image.

        Where all repeats predict all images, (repeats, n) bool. Where they validate on different folds, an image has
        only the predictions of the repeats that did not train on it: (1, n) float64, the mean over these repeats. What
        repeats differ in is then part of what folds differ in.
        """
        if self.predicts.all():
            return self.correct
        return ((self.correct & self.predicts).sum(axis=0) / self.predicts.sum(axis=0))[None]

    @property
    def single(self) -> np.ndarray:
        """Whether one repeat is correct on each image, (n,) bool: the best; with folds the first that predicts it."""
        repeats = self.best_repeat if self.predicts.all() else self.predicts.argmax(axis=0)
        return self.correct[repeats, np.arange(len(self.groups))]


def common_outcomes(
    predictions: dict[str, SplitPredictions], indices: dict[str, np.ndarray], best_repeats: dict[str, int]
) -> dict[str, Outcomes]:
    """The outcomes of models on the images that all of them predict; there must be some, see `compared_folds`.

    predictions: of each model. indices: of each model, the rows of its images in the dataset, (n,) ascending.
    best_repeats: of each model. Repeats that predict none of the common images are left out.
    """
    common = reduce(np.intersect1d, indices.values())
    outcomes = {}
    for model, part in predictions.items():
        kept = np.isin(indices[model], common)
        repeats = np.flatnonzero(part.predicts[:, kept].any(axis=1))
        best = np.flatnonzero(repeats == best_repeats[model])
        outcomes[model] = Outcomes(
            correct=part.correct[np.ix_(repeats, kept)],
            predicts=part.predicts[np.ix_(repeats, kept)],
            groups=np.unique(part.groups[kept], return_inverse=True)[1],
            best_repeat=int(best[0]) if len(best) else 0,
        )
    return outcomes


def fold_variances(values: np.ndarray, groups: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The variance of a mean over images, from the groups of images within folds, and from the means of the folds.

    values: (m, n), of m means over the same images. groups, folds: (n,) int, 0 up; at least two folds, and every group
    in one of them. Returns two arrays (m,).

    All images of a fold are predicted after the same training. So both variances contain the choice of images, and the
    second one also what differs between trainings (Searle, Casella & McCulloch 1992, Variance Components, chapter 3).
    """
    sizes, count = np.bincount(folds), int(groups.max()) + 1
    means = np.stack([np.bincount(folds, row) for row in values]) / sizes
    by_group = np.stack([np.bincount(groups, row, count) for row in values - means[:, folds]])
    images = (by_group**2).sum(axis=1) * count / max(1, count - len(sizes)) / values.shape[1] ** 2
    shares = sizes / sizes.sum()
    between = (shares**2 * (means - values.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return images, between * len(sizes) / (len(sizes) - 1)


def images_needed(a: Outcomes, b: Outcomes, effect: float) -> float:
    """The number of images that would show a difference in accuracy of this size, above 0, between two models.

    a, b: on the same images. A paired z-test at the 5 % level finds it with this many images in 80 % of cases; its
    variance is that of the measured difference per image, in whole groups.
    """
    values, count = a.by_image.mean(axis=0) - b.by_image.mean(axis=0), int(a.groups.max()) + 1
    by_group = np.bincount(a.groups, values - values.mean(), count)
    variance = (by_group**2).sum() * count / max(1, count - 1) / len(values)
    return float((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 * variance / effect**2)
