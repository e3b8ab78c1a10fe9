"""95 % intervals of what is measured on images: of which images were drawn, in whole groups where they have groups."""

from collections.abc import Iterator

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95
RESAMPLES = 1_000
CHUNK = 100  # resamples at a time, which bounds the memory


def effective_images(right: np.ndarray, groups: np.ndarray) -> float:
    """How many independent images tell as much of an accuracy as these, which hang together in groups.

    right: (n,) from 0 to 1, the share of repeats that is right on each image. groups: (n,) int.

    n over the design effect, the variance of the mean with groups over that without (Kish 1965), never above n, with
    the correction for few groups of Korn & Graubard (1998, Survey Methodology 24). Where all images have the same
    outcome, nothing is known of how groups hang together, and each counts as one that repeats itself.
    """
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    images = len(right)
    if len(sizes) == images:
        return float(images)
    if len(sizes) == 1:
        return 1.0
    deviations = right - right.mean()
    alone = (deviations**2).sum()
    together = (np.bincount(groups, deviations) ** 2).sum() * len(sizes) / (len(sizes) - 1)
    effect = max(1.0, together / alone) if alone > 0 else (sizes**2).sum() / images
    few = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, len(sizes) - 1)) ** 2
    return float(images / effect * few)


def wilson(right: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """The interval of Wilson (1927) for the mean of `right`, at the number of effective images; see there."""
    count = effective_images(right, groups)
    low, high = proportion_confint(right.mean() * count, count, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)


def resampled_groups(groups: int, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each group is drawn in bootstrap resamples of groups, as (groups, CHUNK) float64 arrays."""
    random = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = random.integers(0, groups, (size, groups)) + groups * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups).T.astype(float)


def percentiles(resampled: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """The expanded percentile interval along the last axis, the resamples, each of so many groups.

    resampled: (m, resamples); NaN where a figure is not known, which does not count. Percentiles (Efron & Tibshirani
    1993, chapter 13) further out than 2.5 and 97.5, as far as Student's interval is wider than the normal one
    (Hesterberg 2015, The American Statistician 69): resamples of few vary too little.
    """
    tail = stats.norm.cdf(-stats.t.ppf(0.975, max(1, groups - 1)) * np.sqrt(groups / max(1, groups - 1)))
    known = ~np.isnan(resampled)
    if known.all():
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=-1)
    else:
        ends = [
            np.quantile(row[which], [tail, 1 - tail]) if which.any() else [np.nan, np.nan]
            for row, which in zip(resampled, known, strict=True)
        ]
        low, high = np.transpose(ends)
    return low, high


def unbiased(value: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An interval for a figure from 0 to 1 that chance makes larger, as it does the calibration error.

    value: (m,) as measured. resampled: (m, resamples). As much as resampling adds to the value, drawing the images
    added before (the bootstrap's estimate of bias, Efron & Tibshirani 1993, chapter 10). That is taken off, and
    counted as uncertain by its own size.
    """
    bias, deviation = resampled.mean(axis=-1) - value, resampled.std(axis=-1)
    margin = stats.norm.ppf(0.975) * np.hypot(deviation, bias)
    return np.clip(value - bias - margin, 0, 1), np.clip(value - bias + margin, 0, 1)
