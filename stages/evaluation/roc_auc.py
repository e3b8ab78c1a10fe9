"""The area under the ROC curve: how often an image of a class is ranked above an image of another class."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class RocAuc:
    """value: 0 to 1. influence: (n,) the effect of each image on the value; sums to 0.

    Influences are scaled so that the sum of their squares, or of squared sums over groups of images, is an unbiased
    estimate of the variance. NaN if all images of the class, or all images of the rest, are one group.
    """

    value: float
    influence: np.ndarray

    def among(self, rows: np.ndarray) -> "RocAuc":
        """The same among more images: those of `rows`, (m,) bool with n True; the others have no influence."""
        influence = np.zeros(len(rows))
        influence[rows] = self.influence
        return RocAuc(self.value, influence)

    def interval(self, groups: np.ndarray) -> tuple[float, float]:
        """The 95 % interval of DeLong et al. (1988, Biometrics 44), on the scale of log odds so that it stays in 0..1.

        groups: (n,) int, 0 up; the influences of a group are summed (Obuchowski 1997, Biometrics 53). NaN for a value
        of 0 or 1, whose variance is unknown.
        """
        if not 0 < self.value < 1:
            return np.nan, np.nan
        error = np.sqrt((np.bincount(groups, self.influence) ** 2).sum())
        odds = np.log(self.value / (1 - self.value))
        margin = norm.ppf(0.975) * error / (self.value * (1 - self.value))
        low, high = 1 / (1 + np.exp(-(odds + np.array([-margin, margin]))))
        return float(low), float(high)


def class_roc_aucs(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> list[RocAuc]:
    """The ROC-AUC of every class against the rest.

    labels: (n,) int of at least two classes, each with an image. probabilities: (n, classes), finite. groups: (n,) int.
    """
    ranks = rankdata(probabilities, axis=0)
    aucs = []
    for label, scores in enumerate(probabilities.T):
        own = labels == label
        inside, outside = int(own.sum()), int((~own).sum())
        rank = ranks[:, label]
        # For an image of the class: the share of the rest that it is ranked above. For the rest: the share of the class
        # that is ranked above it.
        placement = np.empty(len(labels))
        placement[own] = (rank[own] - rankdata(scores[own])) / outside
        placement[~own] = 1 - (rank[~own] - rankdata(scores[~own])) / inside
        value = placement[own].mean()
        influence = (placement - value) / np.where(own, inside, outside)
        scale = np.where(own, _bias_correction(groups[own]), _bias_correction(groups[~own]))
        aucs.append(RocAuc(float(value), influence * scale))
    return aucs


def _bias_correction(groups: np.ndarray) -> float:
    """The factor from deviations from the sample mean to deviations from the true mean; NaN for one group."""
    count = len(np.unique(groups))
    return np.sqrt(count / (count - 1)) if count > 1 else np.nan


def mean_roc_auc(aucs: list[RocAuc]) -> RocAuc:
    """The mean of ROC-AUCs whose influences are among the same images."""
    return RocAuc(float(np.mean([auc.value for auc in aucs])), np.mean([auc.influence for auc in aucs], axis=0))
