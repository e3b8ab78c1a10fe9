"""Models compared in pairs on the same images: how large is the difference, and is it more than chance?"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from stages.reporting.metrics import rounded

RESAMPLES = 10_000
SIGNIFICANCE = 0.05
CHUNK = 1_000  # resamples drawn at a time, which bounds the memory


@dataclass(frozen=True)
class Comparison:
    """Models `a` and `b` on the same images.

    difference: accuracy of a less that of b, means over repeats, -1 to 1; low, high: its 95 % interval.
    p_bootstrap: two-sided; p_holm: corrected for the number of pairs. distinguishable: p_holm is below 0.05.
    only_a_right, only_b_right: images of the kept repeats where they differ; p_mcnemar: exact test of these two counts.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_holm: float
    distinguishable: bool
    only_a_right: int
    only_b_right: int
    p_mcnemar: float


def compare_models(correct: dict[str, np.ndarray], kept: dict[str, int], seed: int) -> list[Comparison]:
    """Compare all models of a task in pairs.

    correct: model -> (repeats, n) bool on the same n images in the same order; repeats may differ between models.
    kept: model -> its kept repeat. seed: of the bootstrap; a pair's interval does not depend on the other models.

    p values are corrected by Holm (1979, Scandinavian Journal of Statistics 6).
    """
    pairs = list(combinations(correct, 2))
    if not pairs:
        return []
    # The smallest p value is 2 / (resamples + 1): many pairs need more, or Holm's correction leaves none below 0.05.
    resamples = max(RESAMPLES, 100 * len(pairs))
    bootstraps = [bootstrap_difference(correct[a], correct[b], seed, resamples) for a, b in pairs]
    holm = multipletests([p for *_, p in bootstraps], method="holm")[1]
    comparisons = []
    for (a, b), (low, high, p), p_holm in zip(pairs, bootstraps, holm, strict=True):
        only_a, only_b, p_mcnemar = mcnemar(correct[a][kept[a]], correct[b][kept[b]])
        comparisons.append(
            Comparison(
                a=a,
                b=b,
                difference=rounded(correct[a].mean() - correct[b].mean()),
                low=rounded(low),
                high=rounded(high),
                p_bootstrap=rounded(p),
                p_holm=rounded(p_holm),
                distinguishable=bool(p_holm < SIGNIFICANCE),
                only_a_right=only_a,
                only_b_right=only_b,
                p_mcnemar=rounded(p_mcnemar),
            )
        )
    return comparisons


def bootstrap_difference(
    a: np.ndarray, b: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """95 % interval and two-sided p value of the difference in mean accuracy, by a paired bootstrap.

    a, b: (repeats, n) bool, whether each repeat is right on each of the same n images.

    Every resample draws n images, the same for both models, and repeats of each model; the interval is the percentile
    interval, and p doubles the smaller share of resamples on one side of 0 (Efron & Tibshirani 1993, chapters 13, 15),
    one added to both counts so that it is never 0 (Davison & Hinkley 1997, section 4.2). Of r repeats r - 1 are drawn:
    drawing r of so few would understate their spread by (r - 1) / r (Rao & Wu 1988, JASA 83). One repeat shows no
    spread.

    Returns low, high, p.
    """
    # Images with the same pattern of right and wrong answers are interchangeable: counting how often each pattern is
    # drawn is the same bootstrap, and its time hardly grows with the images.
    patterns, counts = np.unique(np.concatenate([a, b]), axis=1, return_counts=True)  # (repeats of both, k), (k,)
    images = a.shape[1]
    random = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        weights = np.concatenate([_draw_repeats(random, len(a), size), -_draw_repeats(random, len(b), size)], axis=1)
        shares = random.multinomial(images, counts / images, size=size) / images  # (size, k)
        drawn.append(((weights @ patterns) * shares).sum(axis=1))
    differences = np.concatenate(drawn).round(12)  # rounding makes sums that cancel exactly 0
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return float(low), float(high), min(1.0, 2 * (tail + 1) / (resamples + 1))


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
