"""Comparisons of models in pairs on the same images: the size of the difference, and whether it may be chance."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from stages.evaluation.folds import Outcomes, fold_variances
from stages.evaluation.formatting import rounded
from stages.evaluation.intervals import CHUNK, resampled_groups

RESAMPLES = 10_000
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """Models `a` and `b` on the same images.

    difference: accuracy of a minus accuracy of b, means over repeats, -1 to 1. low, high: its 95 % interval, the wider
    of `bootstrap_interval` and `student`. p: two-sided, the largest of `bootstrap_interval`, `permutation_p` and
    `student`. p_holm: corrected for the number of pairs. distinguishable: p_holm is below 0.05.
    only_a_correct, only_b_correct: images where the predictions of one repeat differ, see `Outcomes.single`.
    p_mcnemar: exact test of these counts. p_mcnemar_holm: corrected for the number of pairs.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    distinguishable: bool
    only_a_correct: int
    only_b_correct: int
    p_mcnemar: float
    p_mcnemar_holm: float


def compare_models(outcomes: dict[str, Outcomes], seed: int) -> list[Comparison]:
    """Compare all models of a task in pairs.

    outcomes: of each model on the same images and folds; the number of repeats may differ. seed: of the resampling;
    apart from the number of resamples, a comparison does not depend on the other models.

    p values are corrected by Holm (1979, Scandinavian Journal of Statistics 6).
    """
    pairs = list(combinations(outcomes, 2))
    if not pairs:
        return []
    # The smallest p value is 2 / (resamples + 1). With many pairs it must be smaller to survive Holm's correction.
    resamples = max(RESAMPLES, 50 * len(pairs))
    correct = {model: part.by_image for model, part in outcomes.items()}
    first = next(iter(outcomes.values()))
    groups, folds = first.groups, first.folds
    accuracies = resampled_accuracies(correct, groups, seed, resamples)
    signed = signed_sums(correct, groups, seed, resamples)
    errors = standard_errors(correct, groups, folds)
    estimates = [
        _estimate(
            correct[a].mean() - correct[b].mean(),
            bootstrap_interval(accuracies[a] - accuracies[b]),
            (signed[a] - signed[b], len(groups)),
            (error, degrees),
        )
        for (a, b), error, degrees in zip(pairs, *errors, strict=True)
    ]
    counts = [mcnemar(outcomes[a].single, outcomes[b].single) for a, b in pairs]
    p_holm = multipletests([p for *_, p in estimates], method="holm")[1]
    mcnemar_holm = multipletests([p for *_, p in counts], method="holm")[1]
    return [
        Comparison(
            a=a,
            b=b,
            difference=rounded(difference),
            low=rounded(low),
            high=rounded(high),
            p=rounded(p),
            p_holm=rounded(corrected),
            distinguishable=bool(corrected < SIGNIFICANCE),
            only_a_correct=only_a,
            only_b_correct=only_b,
            p_mcnemar=rounded(p_mcnemar),
            p_mcnemar_holm=rounded(mcnemar_corrected),
        )
        for (a, b), (difference, low, high, p), corrected, (only_a, only_b, p_mcnemar), mcnemar_corrected in zip(
            pairs, estimates, p_holm, counts, mcnemar_holm, strict=True
        )
    ]


def _estimate(
    difference: float,
    bootstrap: tuple[float, float, float],
    permutation: tuple[np.ndarray, int],
    standard_error: tuple[float, float],
) -> tuple[float, float, float, float]:
    """Difference, low, high, p of one pair: the wider interval of two methods, the largest p value of three.

    bootstrap: from `bootstrap_interval`. permutation: permuted differences of correct images, and the number of images.
    standard_error: with its degrees of freedom, from `standard_errors`.
    """
    permuted, images = permutation
    low, high, p = student(difference, *standard_error)
    p_permutation = permutation_p(difference * images, permuted)
    return difference, min(bootstrap[0], low), max(bootstrap[1], high), max(bootstrap[2], p, p_permutation)


def resampled_accuracies(
    correct: dict[str, np.ndarray], groups: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> dict[str, np.ndarray]:
    """The accuracy of every model in bootstrap resamples of images and of repeats.

    correct: model -> (repeats, n), whether a repeat is correct on each of the same n images; see `Outcomes.by_image`.
    groups: (n,) int, 0 up; images of one group are drawn together.

    Every resample draws as many groups as exist, the same for all models, and for every model repeats: of r repeats
    r - 1, because drawing r would understate their spread by (r - 1) / r (Rao & Wu 1988, JASA 83). One repeat has no
    spread. Returns model -> (resamples,).
    """
    columns, sizes = _correct_by_group(correct, groups), np.bincount(groups).astype(np.float32)
    chunks = [
        (counts.T @ columns) / (counts.T @ sizes)[:, None]
        for counts in (chunk.astype(np.float32) for chunk in resampled_groups(len(sizes), seed, resamples))
    ]
    accuracies = np.concatenate(chunks).astype(np.float64)  # (resamples, repeats of all models)
    means = {}
    for model, repeats in _split_by_model(correct, accuracies).items():
        count = repeats.shape[1]
        # Seeded by the model's name: the repeats of different models are independent.
        random = np.random.default_rng([seed, *model.encode()])
        draws = max(1, count - 1)
        weights = random.multinomial(draws, np.full(count, 1 / count), size=resamples) / draws
        means[model] = (weights * repeats).sum(axis=1)
    return means


def signed_sums(
    correct: dict[str, np.ndarray], groups: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> dict[str, np.ndarray]:
    """The sum of correct images of every model, mean over repeats, with a random sign for every group of images.

    The difference of the sums of two models is their difference in correct images after a random half of the groups was
    exchanged between them. Arguments and result as of `resampled_accuracies`; the signs are the same for all models.
    """
    columns = _correct_by_group(correct, groups)
    random = np.random.default_rng(seed)
    chunks = []
    for start in range(0, resamples, CHUNK):
        shape = (min(CHUNK, resamples - start), len(columns))
        exchanged = random.integers(0, 2, shape, dtype=np.int8).astype(columns.dtype) @ columns
        chunks.append(2 * exchanged - columns.sum(axis=0))
    sums = _split_by_model(correct, np.concatenate(chunks).astype(float))
    return {model: repeats.mean(axis=1) for model, repeats in sums.items()}


def _correct_by_group(correct: dict[str, np.ndarray], groups: np.ndarray) -> np.ndarray:
    """The number of correct images of each group, (groups, repeats of all models).

    float32 where these are whole numbers: their sums are exact up to 16 million. With folds an image may
    count a third, if one of three repeats is correct; then float64, because sums in float32 that should be equal are
    not.
    """
    columns = np.stack([np.bincount(groups, repeat) for repeats in correct.values() for repeat in repeats], axis=1)
    return columns.astype(np.float32) if (columns % 1 == 0).all() else columns.astype(np.float64)


def _split_by_model(correct: dict[str, np.ndarray], columns: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of each model: model -> (rows, its repeats)."""
    ends = np.cumsum([len(repeats) for repeats in correct.values()])[:-1]
    return dict(zip(correct, np.split(columns, ends, axis=1), strict=True))


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float, float]:
    """The 95 % percentile interval of resampled differences (resamples,), and the two-sided p value of no difference.

    p doubles the smaller share of resamples on one side of 0 (Efron & Tibshirani 1993, chapters 13, 15), one added to
    both counts so that it is never 0 (Davison & Hinkley 1997, section 4.2). Returns low, high, p.
    """
    differences = differences.round(6)  # finer than images can resolve; sums that cancel become 0
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return float(low), float(high), min(1.0, 2 * (tail + 1) / (len(differences) + 1))


def standard_errors(
    correct: dict[str, np.ndarray], groups: np.ndarray, folds: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The standard error of the difference in accuracy of every pair of models, and its degrees of freedom.

    correct, groups: as of `resampled_accuracies`. folds: (n,) int, the fold of each image; one fold by default. Returns
    two arrays (pairs,), in the order of `itertools.combinations`.

    The variance is the sum of two: over groups of images, less what the randomness of training adds to it, and over the
    repeats of both models, which contains that randomness. Their degrees of freedom are combined by Satterthwaite
    (1946, Biometrics Bulletin 2); those of the repeats are of both models together, as in Student's test: Welch's would
    be one or two, with which no difference is large enough. With folds, see `_fold_errors`.
    """
    if folds is not None and folds.any():
        return _fold_errors({model: repeats[0] for model, repeats in correct.items()}, groups, folds)
    count = int(groups.max()) + 1
    scale = count / max(1, count - 1) / len(groups) ** 2  # from squared sums of groups to the variance of a mean
    deviations, training_noise, repeat_variance, freedom = [], [], [], []
    for repeats in correct.values():
        by_group = np.stack([np.bincount(groups, repeat - repeat.mean(), count) for repeat in repeats])
        deviations.append(by_group.mean(axis=0))
        several = len(repeats) > 1
        training_noise.append(by_group.var(axis=0, ddof=1).sum() * scale / len(repeats) if several else 0.0)
        repeat_variance.append(repeats.mean(axis=1).var(ddof=1) / len(repeats) if several else 0.0)
        freedom.append(len(repeats) - 1)
    a, b = _pair_indices(correct)
    training_noise, repeat_variance, freedom = map(np.array, (training_noise, repeat_variance, freedom))
    products = np.stack(deviations) @ np.transpose(deviations) * scale
    image_variance = products.diagonal()[a] + products.diagonal()[b] - 2 * products[a, b]
    image_variance = np.maximum(0, image_variance - training_noise[a] - training_noise[b])
    repeat_variance, freedom = repeat_variance[a] + repeat_variance[b], np.maximum(1, freedom[a] + freedom[b])
    variance = image_variance + repeat_variance
    degrees = _degrees(variance, (image_variance, max(1, count - 1)), (repeat_variance, freedom))
    return np.sqrt(variance), degrees


def _fold_errors(
    correct: dict[str, np.ndarray], groups: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `standard_errors`, from one prediction of each image; correct: model -> (n,).

    Models are compared on the same folds, so all variances are those of the differences of two models: the larger one
    of that over images and that over folds. Its degrees of freedom count the few folds in both cases: whether training
    adds to the variance is hardly known from two or three trainings.
    """
    a, b = _pair_indices(correct)
    values, count = np.stack([*correct.values()]).astype(float), int(folds.max()) + 1
    images, between = np.transpose(
        [np.ravel(fold_variances(values[[i]] - values[[j]], groups, folds)) for i, j in zip(a, b, strict=True)]
    )
    image_degrees = max(1, int(groups.max()) + 1 - count)
    variance = np.maximum(images, between)
    return np.sqrt(variance), _degrees(variance, (images, image_degrees), (between, count - 1))


def _pair_indices(correct: dict[str, np.ndarray]) -> np.ndarray:
    """The positions of the first and of the second model of every pair, (2, pairs)."""
    return np.transpose(list(combinations(range(len(correct)), 2)))


def _degrees(variance: np.ndarray, images: tuple, training: tuple) -> np.ndarray:
    """Satterthwaite's degrees of freedom of variances (pairs,), from two parts, each with its own degrees."""
    (image_variance, image_degrees), (training_variance, training_degrees) = images, training
    spread = image_variance**2 / image_degrees + training_variance**2 / training_degrees
    return np.divide(variance**2, spread, out=np.full(len(variance), float(image_degrees)), where=spread > 0)


def student(difference: float, error: float, degrees: float) -> tuple[float, float, float]:
    """The 95 % interval of a difference and the two-sided p value of no difference, by Student's distribution.

    A bootstrap of two or three repeats has no tails; Student's distribution has. Returns low, high, p.
    """
    if error < 1e-9:
        return difference, difference, float(abs(difference) < 1e-9)
    margin = stats.t.ppf(0.975, degrees) * error
    return difference - margin, difference + margin, float(2 * stats.t.sf(abs(difference) / error, degrees))


def permutation_p(observed: float, permuted: np.ndarray) -> float:
    """Two-sided p value of a difference, if chance decided which model is which on each image or group of images.

    observed: correct images of one model minus those of the other. permuted: (resamples,) the same after exchanges,
    from `signed_sums`.

    The paired permutation test (Fisher 1935; Good 2005, section 3.7). With one repeat and no groups it is McNemar's
    exact test, estimated from random permutations. It keeps its level if the models differ on few images, which the
    bootstrap does not. Of the repeats it uses only the mean.
    """
    reached = np.count_nonzero(np.abs(permuted) >= abs(observed) - 1e-6)
    return (reached + 1) / (len(permuted) + 1)


def mcnemar(a: np.ndarray, b: np.ndarray) -> tuple[int, int, float]:
    """The exact McNemar test of two sets of predictions for the same images.

    a, b: (n,) bool, whether the prediction is correct. Returns the images where only a is correct, those where only b
    is, and the two-sided p value; 1 if they never differ.
    """
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(contingency_tables.mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)
