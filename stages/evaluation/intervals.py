"""95 % intervals that describe the choice of images; images of one group are resampled together."""

from collections.abc import Iterator

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95
RESAMPLES = 1_000
CHUNK = 100  # resamples at a time, which bounds the memory


def effective_images(correct: np.ndarray, groups: np.ndarray) -> float:
    """The number of independent images that estimate an accuracy as precisely as these grouped images.

    correct: (n,) from 0 to 1, the share of repeats that are correct on each image. groups: (n,) int.

    n over the design effect, the variance of the mean with groups over that without (Kish 1965), at most n, with the
    correction for few groups of Korn & Graubard (1998, Survey Methodology 24). If all images have the same outcome, the
    correlation within groups is unknown, and each group counts as a single image.
    """
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    images = len(correct)
    if len(sizes) == images:
        return float(images)
    if len(sizes) == 1:
        return 1.0
    deviations = correct - correct.mean()
    ungrouped = (deviations**2).sum()
    grouped = (np.bincount(groups, deviations) ** 2).sum() * len(sizes) / (len(sizes) - 1)
    effect = max(1.0, grouped / ungrouped) if ungrouped > 0 else (sizes**2).sum() / images
    few_groups = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, len(sizes) - 1)) ** 2
    return float(images / effect * few_groups)


def wilson(correct: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Wilson's interval (1927) for the mean of `correct`, with the number of effective images; see there."""
    count = effective_images(correct, groups)
    low, high = proportion_confint(correct.mean() * count, count, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)


def resampled_groups(groups: int, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each group is drawn in bootstrap resamples of groups, as (groups, CHUNK) float64 arrays."""
    random = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = random.integers(0, groups, (size, groups)) + groups * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups).T.astype(float)


def percentiles(resampled: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """The expanded percentile interval along the last axis, which holds resamples of `groups` groups.

    resampled: (m, resamples); NaN for an unknown value, which is ignored. The percentiles (Efron & Tibshirani 1993,
    chapter 13) are further out than 2.5 and 97.5, as Student's interval is wider than the normal one (Hesterberg 2015,
    The American Statistician 69): resamples of few groups vary too little.
    """
    tail = stats.norm.cdf(-stats.t.ppf(0.975, max(1, groups - 1)) * np.sqrt(groups / max(1, groups - 1)))
    known = ~np.isnan(resampled)
    if known.all():
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=-1)
    else:
        ends = [
            np.quantile(row[mask], [tail, 1 - tail]) if mask.any() else [np.nan, np.nan]
            for row, mask in zip(resampled, known, strict=True)
        ]
        low, high = np.transpose(ends)
    return low, high


def unbiased(value: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An interval for a metric from 0 to 1 that chance increases, such as the calibration error.

    value: (m,) as measured. resampled: (m, resamples). Resampling increases the value as much as the choice of images
    did before (the bootstrap's estimate of bias, Efron & Tibshirani 1993, chapter 10). The interval is centered on the
    value less this bias, and the bias adds to its width.
    """
    bias, deviation = resampled.mean(axis=-1) - value, resampled.std(axis=-1)
    margin = stats.norm.ppf(0.975) * np.hypot(deviation, bias)
    return np.clip(value - bias - margin, 0, 1), np.clip(value - bias + margin, 0, 1)
