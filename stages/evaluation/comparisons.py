"""Models compared in pairs on the same images: how large is the difference, and is it more than chance?"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from stages.evaluation.intervals import CHUNK, resampled_groups
from stages.evaluation.metrics import SplitPredictions, rounded

RESAMPLES = 10_000
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """Models `a` and `b` on the same images.

    difference: accuracy of a less that of b, means over repeats, -1 to 1; low, high: its 95 % interval, the wider one
    of `bootstrap_interval` and `student`. p: two-sided, the largest one of `bootstrap_interval`, `permutation_p` and
    `student`; p_holm: corrected for the number of pairs.
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


def compare_models(answers: dict[str, SplitPredictions], kept: dict[str, int], seed: int) -> list[Comparison]:
    """Compare all models of a task in pairs.

    answers: model -> its answers to the same images; repeats may differ between models. kept: model -> its kept repeat.
    seed: of the resampling; but for the number of resamples, what a pair gets does not depend on the other models.

    p values are corrected by Holm (1979, Scandinavian Journal of Statistics 6).
    """
    pairs = list(combinations(answers, 2))
    if not pairs:
        return []
    # The smallest p value is 2 / (resamples + 1): many pairs need more, or Holm's correction leaves none below 0.05.
    resamples = max(RESAMPLES, 50 * len(pairs))
    correct = {model: each.correct for model, each in answers.items()}
    groups = next(iter(answers.values())).groups
    drawn = resampled_accuracies(correct, groups, seed, resamples)
    signed = signed_sums(correct, groups, seed, resamples)
    differences = [correct[a].mean() - correct[b].mean() for a, b in pairs]
    bootstrap = [bootstrap_interval(drawn[a] - drawn[b]) for a, b in pairs]
    of_student = [student(*each) for each in zip(differences, *standard_errors(correct, groups), strict=True)]
    intervals = [
        (min(one[0], other[0]), max(one[1], other[1])) for one, other in zip(bootstrap, of_student, strict=True)
    ]
    p_values = [
        max(one[2], other[2], permutation_p(difference * len(groups), signed[a] - signed[b]))
        for (a, b), difference, one, other in zip(pairs, differences, bootstrap, of_student, strict=True)
    ]
    counts = [mcnemar(correct[a][kept[a]], correct[b][kept[b]]) for a, b in pairs]
    p_holm, mcnemar_holm = (multipletests(each, method="holm")[1] for each in (p_values, [p for *_, p in counts]))
    return [
        Comparison(
            a=a,
            b=b,
            difference=rounded(differences[place]),
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
        for place, (a, b) in enumerate(pairs)
    ]


def resampled_accuracies(
    correct: dict[str, np.ndarray], groups: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> dict[str, np.ndarray]:
    """The accuracy of every model in bootstrap resamples of images and of repeats.

    correct: model -> (repeats, n) bool, whether a repeat is right on each of the same n images. groups: (n,) int, 0 up;
    images of one group are drawn together.

    Every resample draws as many groups as there are, the same for all models, and for each model repeats: of r repeats
    r - 1, because drawing r of so few would understate their spread by (r - 1) / r (Rao & Wu 1988, JASA 83). One repeat
    shows no spread. Returns model -> (resamples,).
    """
    columns, sizes = _right_of_groups(correct, groups), np.bincount(groups).astype(np.float32)
    drawn = [
        (times.T @ columns) / (times.T @ sizes)[:, None]
        for times in (each.astype(np.float32) for each in resampled_groups(len(sizes), seed, resamples))
    ]
    accuracies = np.concatenate(drawn).astype(np.float64)  # (resamples, repeats of all models)
    means = {}
    for model, of_model in _by_model(correct, accuracies).items():
        repeats = of_model.shape[1]
        # Of its own name: the repeats of one model have nothing to do with those of another.
        random = np.random.default_rng([seed, *model.encode()])
        draws = max(1, repeats - 1)
        weights = random.multinomial(draws, np.full(repeats, 1 / repeats), size=resamples) / draws
        means[model] = (weights * of_model).sum(axis=1)
    return means


def signed_sums(
    correct: dict[str, np.ndarray], groups: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> dict[str, np.ndarray]:
    """For every model the sum of its right images, mean over repeats, each group of images with a sign drawn at random.

    The difference of two models is that of their right images where a random half of the groups is exchanged between
    them. Arguments and result as of `resampled_accuracies`; the signs are the same for all models.
    """
    columns = _right_of_groups(correct, groups)
    random = np.random.default_rng(seed)
    sums = []
    for start in range(0, resamples, CHUNK):
        shape = (min(CHUNK, resamples - start), len(columns))
        exchanged = random.integers(0, 2, shape, dtype=np.int8).astype(np.float32) @ columns
        sums.append(2 * exchanged - columns.sum(axis=0))
    return {model: each.mean(axis=1) for model, each in _by_model(correct, np.concatenate(sums).astype(float)).items()}


def _right_of_groups(correct: dict[str, np.ndarray], groups: np.ndarray) -> np.ndarray:
    """How many images of each group each repeat of each model has right, (groups, repeats of all models) float32.

    Sums of whole numbers, which float32 holds exactly up to 16 million.
    """
    return np.stack([np.bincount(groups, repeat) for each in correct.values() for repeat in each], axis=1).astype(
        np.float32
    )


def _by_model(correct: dict[str, np.ndarray], columns: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of each model: model -> (rows, its repeats)."""
    ends = np.cumsum([len(each) for each in correct.values()])[:-1]
    return dict(zip(correct, np.split(columns, ends, axis=1), strict=True))


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float, float]:
    """The 95 % percentile interval of resampled differences (resamples,), and the two-sided p value of no difference.

    p doubles the smaller share of resamples on one side of 0 (Efron & Tibshirani 1993, chapters 13, 15), one added to
    both counts so that it is never 0 (Davison & Hinkley 1997, section 4.2). Returns low, high, p.
    """
    differences = differences.round(6)  # below what images can tell; sums that cancel become 0
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return float(low), float(high), min(1.0, 2 * (tail + 1) / (len(differences) + 1))


def standard_errors(correct: dict[str, np.ndarray], groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard error of the difference in accuracy of every pair of models, and its degrees of freedom.

    Arguments as of `resampled_accuracies`. Returns two arrays (pairs,), in the order of `itertools.combinations`.

    The variance is that over groups of images, less what chance in training adds to it there, and that over the
    repeats of either model, of which chance in training is a part. The degrees of freedom of the two are joined by
    Satterthwaite (1946, Biometrics Bulletin 2); those of the repeats are of both models together, as in Student's test:
    Welch's would leave one or two, with which no difference is large enough.
    """
    count = int(groups.max()) + 1
    scale = count / max(1, count - 1) / len(groups) ** 2  # from squared sums of groups to the variance of a mean
    deviations, chance, of_repeats, freedom = [], [], [], []
    for of_model in correct.values():
        of_groups = np.stack([np.bincount(groups, each - each.mean(), count) for each in of_model])
        deviations.append(of_groups.mean(axis=0))
        repeats, several = len(of_model), len(of_model) > 1
        chance.append(of_groups.var(axis=0, ddof=1).sum() * scale / repeats if several else 0.0)
        of_repeats.append(of_model.mean(axis=1).var(ddof=1) / repeats if several else 0.0)
        freedom.append(repeats - 1)
    one, other = np.transpose(list(combinations(range(len(correct)), 2)))
    chance, of_repeats, freedom = np.array(chance), np.array(of_repeats), np.array(freedom)
    products = np.stack(deviations) @ np.transpose(deviations) * scale
    of_images = products.diagonal()[one] + products.diagonal()[other] - 2 * products[one, other]
    of_images = np.maximum(0, of_images - chance[one] - chance[other])
    of_repeats, freedom = of_repeats[one] + of_repeats[other], freedom[one] + freedom[other]
    variance = of_images + of_repeats
    spread = of_images**2 / max(1, count - 1) + of_repeats**2 / np.maximum(1, freedom)
    degrees = np.divide(variance**2, spread, out=np.full(len(variance), float(max(1, count - 1))), where=spread > 0)
    return np.sqrt(variance), degrees


def student(difference: float, error: float, degrees: float) -> tuple[float, float, float]:
    """The 95 % interval of a difference and the two-sided p value of none, by Student's distribution.

    Of two or three repeats a bootstrap knows no tails: this one does. Returns low, high, p.
    """
    if error < 1e-9:
        return difference, difference, float(abs(difference) < 1e-9)
    margin = stats.t.ppf(0.975, degrees) * error
    return difference - margin, difference + margin, float(2 * stats.t.sf(abs(difference) / error, degrees))


def permutation_p(observed: float, exchanged: np.ndarray) -> float:
    """Two-sided p value of a difference, if it were chance which model is which on each image, or group of them.

    observed: right images of one model less those of the other. exchanged: (resamples,) the same after exchanges, as of
    `signed_sums`.

    The paired permutation test (Fisher 1935; Good 2005, section 3.7). With one repeat and images that do not hang
    together it is McNemar's exact test, drawn at random. It holds its level where few images tell the models apart,
    which the bootstrap does not; of repeats it knows only the mean.
    """
    reached = np.count_nonzero(np.abs(exchanged) >= abs(observed) - 1e-6)
    return (reached + 1) / (len(exchanged) + 1)


def mcnemar(a: np.ndarray, b: np.ndarray) -> tuple[int, int, float]:
    """Exact McNemar test of two sets of answers to the same images (McNemar 1947; exact: the binomial test).

    a, b: (n,) bool, whether the answer is right. Returns the images where only a is right, where only b is, and the
    two-sided p value; 1 where they never differ.
    """
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(stats.binomtest(only_a, only_a + only_b).pvalue)
