"""Models compared in pairs on the same images: how large is the difference, and is it more than chance?"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from stages.reporting.metrics import Answers, rounded

RESAMPLES = 10_000
SIGNIFICANCE = 0.05
CHUNK = 1_000  # resamples drawn at a time, which bounds the memory


@dataclass(frozen=True)
class Comparison:
    """Models `a` and `b` on the same images.

    difference: accuracy of a less that of b, means over repeats, -1 to 1; low, high: its 95 % interval.
    p: two-sided, the larger one of `Pair.bootstrap` and `Pair.swapped`; p_holm: corrected for the number of pairs.
    distinguishable: p_holm is below 0.05.
    only_a_right, only_b_right: images of the kept repeats where they differ; p_mcnemar: exact test of these two counts;
    p_mcnemar_holm: corrected for the number of pairs.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    distinguishable: bool
    only_a_right: int
    only_b_right: int
    p_mcnemar: float
    p_mcnemar_holm: float


def compare_models(answers: dict[str, Answers], kept: dict[str, int], seed: int) -> list[Comparison]:
    """Compare all models of a task in pairs.

    answers: model -> its answers to the same images; repeats may differ between models. kept: model -> its kept repeat.
    seed: of the resampling; what a pair gets does not depend on the other models.

    p values are corrected by Holm (1979, Scandinavian Journal of Statistics 6).
    """
    names = list(combinations(answers, 2))
    if not names:
        return []
    # The smallest p value is 2 / (resamples + 1): many pairs need more, or Holm's correction leaves none below 0.05.
    resamples = max(RESAMPLES, 50 * len(names))
    pairs = [Pair.of(answers[a].correct, answers[b].correct, answers[a].groups) for a, b in names]
    intervals = [pair.bootstrap(seed, resamples) for pair in pairs]
    p_values = [max(p, pair.swapped(seed, resamples)) for pair, (_, _, p) in zip(pairs, intervals, strict=True)]
    counts = [mcnemar(answers[a].correct[kept[a]], answers[b].correct[kept[b]]) for a, b in names]
    p_holm, mcnemar_holm = (multipletests(values, method="holm")[1] for values in (p_values, [p for *_, p in counts]))
    return [
        Comparison(
            a=a,
            b=b,
            difference=rounded(pairs[place].difference),
            low=rounded(intervals[place][0]),
            high=rounded(intervals[place][1]),
            p=rounded(p_values[place]),
            p_holm=rounded(p_holm[place]),
            distinguishable=bool(p_holm[place] < SIGNIFICANCE),
            only_a_right=counts[place][0],
            only_b_right=counts[place][1],
            p_mcnemar=rounded(counts[place][2]),
            p_mcnemar_holm=rounded(mcnemar_holm[place]),
        )
        for place, (a, b) in enumerate(names)
    ]


@dataclass(frozen=True)
class Pair:
    """How often each repeat of two models is right, in patterns that make the time hardly grow with the images.

    Images, or groups of images, in which the same repeats are right equally often are interchangeable.

    right: (repeats of both, k) right images of a group with this pattern; sizes: (k,) its images; counts: (k,) how many
    groups have it; first: repeats of the first model.
    """

    right: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray
    first: int

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> "Pair":
        """Of two models, (repeats, n) bool each, whether a repeat is right on each of the same n images.

        groups: (n,) int, 0 up; images of one group are drawn together.
        """
        sums = [np.bincount(groups, each) for each in (np.ones(len(groups)), *a, *b)]
        patterns, counts = np.unique(np.array(sums), axis=1, return_counts=True)
        return cls(patterns[1:], patterns[0], counts, len(a))

    @property
    def difference(self) -> float:
        """Mean accuracy of the first model less that of the second."""
        return float(self._differences() @ self.counts / (self.sizes @ self.counts))

    def _differences(self) -> np.ndarray:
        """Of every pattern the right images of a group, first less second model, means over the repeats: (k,)."""
        return self.right[: self.first].mean(axis=0) - self.right[self.first :].mean(axis=0)

    def bootstrap(self, seed: int, resamples: int = RESAMPLES) -> tuple[float, float, float]:
        """95 % interval and two-sided p value of the difference by a paired bootstrap over images and repeats.

        Every resample draws as many groups of images as there are, the same for both models, and repeats of each
        model; the interval is the percentile interval, and p doubles the smaller share of resamples on one side of 0
        (Efron & Tibshirani 1993, chapters 13, 15), one added to both counts so that it is never 0 (Davison & Hinkley
        1997, section 4.2). Of r repeats r - 1 are drawn: drawing r of so few would understate their spread by
        (r - 1) / r (Rao & Wu 1988, JASA 83). One repeat shows no spread.

        Returns low, high, p.
        """
        random = np.random.default_rng(seed)
        groups = int(self.counts.sum())
        drawn = []
        for start in range(0, resamples, CHUNK):
            size = min(CHUNK, resamples - start)
            a, b = (_draw_repeats(random, count, size) for count in (self.first, len(self.right) - self.first))
            times = random.multinomial(groups, self.counts / groups, size=size)  # (size, k)
            right = np.concatenate([a, -b], axis=1) @ self.right
            drawn.append((right * times).sum(axis=1) / (times @ self.sizes))
        differences = np.concatenate(drawn).round(12)  # rounding makes sums that cancel exactly 0
        low, high = np.quantile(differences, [0.025, 0.975])
        tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
        return float(low), float(high), min(1.0, 2 * (tail + 1) / (resamples + 1))

    def swapped(self, seed: int, resamples: int = RESAMPLES) -> float:
        """Two-sided p value of the difference, if it were chance which model is which on each image, or group of them.

        The paired permutation test (Fisher 1935; Good 2005, section 3.7), with so many random exchanges. With one
        repeat and images that do not hang together it is McNemar's exact test, drawn at random. It holds its level
        where few images tell the models apart, which the bootstrap does not; of repeats it knows only the mean.
        """
        random = np.random.default_rng(seed)
        differences = self._differences()
        observed = abs(differences @ self.counts)
        kept = random.binomial(self.counts, 0.5, size=(resamples, len(self.counts)))
        exchanged = np.abs((2 * kept - self.counts) @ differences)
        return float((np.count_nonzero(exchanged >= observed - 1e-9) + 1) / (resamples + 1))


def _draw_repeats(random: np.random.Generator, repeats: int, size: int) -> np.ndarray:
    """Weight of each repeat in each of `size` resamples, (size, repeats), rows sum to 1."""
    draws = max(1, repeats - 1)
    return random.multinomial(draws, np.full(repeats, 1 / repeats), size=size) / draws


def mcnemar(a: np.ndarray, b: np.ndarray) -> tuple[int, int, float]:
    """Exact McNemar test of two sets of answers to the same images (McNemar 1947; exact: the binomial test).

    a, b: (n,) bool, whether the answer is right. Returns the images where only a is right, where only b is, and the
    two-sided p value; 1 where they never differ.
    """
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue)
