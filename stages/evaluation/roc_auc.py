"""The area under the ROC curve: how often an image of the class is ranked above one of another."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class RocAuc:
    """value: 0 to 1. influence: (n,) what each image moves it by; they sum to 0.

    Influences are scaled so that the sum of the squares of those of groups of images is the variance without bias; NaN
    where all images of the class, or all others, are one group: then nothing is known of how the area varies.
    """

    value: float
    influence: np.ndarray

    def interval(self, groups: np.ndarray) -> tuple[float, float]:
        """The 95 % interval of DeLong et al. (1988, Biometrics 44), made of log odds so that it stays in 0..1.

        groups: (n,) int, 0 up; the influences of a group are taken together (Obuchowski 1997, Biometrics 53). NaN for
        an area of 0 or 1, of which nothing is known of how it varies.
        """
        if not 0 < self.value < 1:
            return np.nan, np.nan
        error = np.sqrt((np.bincount(groups, self.influence) ** 2).sum())
        odds = np.log(self.value / (1 - self.value))
        margin = norm.ppf(0.975) * error / (self.value * (1 - self.value))
        low, high = 1 / (1 + np.exp(-(odds + np.array([-margin, margin]))))
        return float(low), float(high)


def class_roc_aucs(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> list[RocAuc]:
    """The area of every class against the rest.

    labels: (n,) int, of at least two classes; every class must be there. probabilities: (n, classes), finite. groups:
    (n,) int, which images hang together.
    """
    ranks = rankdata(probabilities, axis=0)
    areas = []
    for label, scores in enumerate(probabilities.T):
        own = labels == label
        inside, outside = int(own.sum()), int((~own).sum())
        rank = ranks[:, label]
        # Of an image of the class the share of the others it is ranked above, of another that of the class above it.
        placement = np.empty(len(labels))
        placement[own] = (rank[own] - rankdata(scores[own])) / outside
        placement[~own] = 1 - (rank[~own] - rankdata(scores[~own])) / inside
        value = placement[own].mean()
        influence = (placement - value) / np.where(own, inside, outside)
        areas.append(RocAuc(float(value), influence * np.where(own, _unbiased(groups[own]), _unbiased(groups[~own]))))
    return areas


def _unbiased(groups: np.ndarray) -> float:
    """What makes deviations from a mean of so many groups as large as those from the truth; NaN of one group."""
    count = len(np.unique(groups))
    return np.sqrt(count / (count - 1)) if count > 1 else np.nan


def mean_roc_auc(areas: list[RocAuc]) -> RocAuc:
    """The mean of areas on the same images."""
    return RocAuc(float(np.mean([area.value for area in areas])), np.mean([area.influence for area in areas], axis=0))
