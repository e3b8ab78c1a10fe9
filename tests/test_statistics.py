"""The statistics of the report, against scikit-learn, SciPy and statsmodels, and in simulations with known truth."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, ttest_ind, ttest_rel
from sklearn import metrics as sk
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from stages.evaluation.comparisons import (
    bootstrap_interval,
    compare_models,
    mcnemar,
    permutation_p,
    resampled_accuracies,
    signed_sums,
    standard_errors,
    student,
)
from stages.evaluation.folds import Outcomes
from stages.evaluation.intervals import effective_images, resampled_groups, wilson
from stages.evaluation.metrics import class_metrics, compute_metrics
from stages.evaluation.roc_auc import class_roc_aucs
from stages.evaluation.sufficient_statistics import group_statistics
from tests.example_results import split_predictions

SIMULATIONS = 1_000
ERROR = np.sqrt(0.05 * 0.95 / SIMULATIONS)  # standard error of a share of 5 % or 95 % over the simulations


@st.composite
def random_predictions(draw):
    """Predictions of one to three repeats for images of two to seven classes, each with an image; also with ties."""
    classes = draw(st.integers(2, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.permutation(np.r_[np.arange(classes), random.integers(0, classes, draw(st.integers(2, 80)))])
    scores = random.normal(size=(draw(st.integers(1, 3)), len(labels), classes))
    scores[:, np.arange(len(labels)), labels] += draw(st.floats(-1, 3))
    if draw(st.booleans()):
        scores = scores.round()  # ties
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    return split_predictions(labels, probabilities.astype(np.float32), np.arange(len(labels)))


def summing_to_1(probabilities):
    """In float64, as scikit-learn requires."""
    return probabilities.astype(float) / probabilities.astype(float).sum(axis=1, keepdims=True)


def mean_over_repeats(score, predictions):
    repeats = zip(predictions.predicted, predictions.probabilities, strict=True)
    return np.mean([score(*repeat) for repeat in repeats], axis=0)


@given(random_predictions())
def test_all_metrics_agree_with_scikit_learn(predictions):
    labels, classes = predictions.labels, range(predictions.classes)
    metrics = compute_metrics(predictions)
    expected = {
        "accuracy": lambda predicted, _: sk.accuracy_score(labels, predicted),
        "balanced_accuracy": lambda predicted, _: sk.balanced_accuracy_score(labels, predicted),
        "loss": lambda _, probabilities: sk.log_loss(labels, summing_to_1(probabilities), labels=classes),
    }
    for position, score in enumerate(("precision", "recall", "f1")):
        for average in ("macro", "weighted", None):
            expected[f"{average or 'class'}_{score}"] = lambda predicted, _, position=position, average=average: (
                sk.precision_recall_fscore_support(labels, predicted, labels=classes, average=average, zero_division=0)[
                    position
                ]
            )
    if len(classes) > 5:
        expected["top5_accuracy"] = lambda _, probabilities: sk.top_k_accuracy_score(
            labels, probabilities, k=5, labels=classes
        )
    for name, score in expected.items():
        assert metrics[name] == pytest.approx(np.atleast_1d(mean_over_repeats(score, predictions)), abs=1e-5), name


@given(random_predictions())
def test_roc_auc_agrees_with_scikit_learn(predictions):
    metrics = compute_metrics(predictions)
    own = [
        mean_over_repeats(lambda _, scores, c=c: sk.roc_auc_score(predictions.labels == c, scores[:, c]), predictions)
        for c in range(predictions.classes)
    ]
    assert metrics["class_roc_auc"] == pytest.approx(np.array(own), abs=1e-9)
    assert metrics["roc_auc"] == pytest.approx([own[1] if predictions.classes == 2 else np.mean(own)], abs=1e-9)


@given(random_predictions())
def test_the_variance_of_roc_auc_is_delongs(predictions):
    """By the definition: over all pairs of an image of the class and one of the rest, 1 if higher, 1/2 for a tie."""
    labels, scores = predictions.labels, predictions.probabilities[0]
    for label, auc in enumerate(class_roc_aucs(labels, scores, predictions.groups)):
        own, rest = scores[labels == label, label], scores[labels != label, label]
        above = (own[:, None] > rest) + 0.5 * (own[:, None] == rest)
        if len(own) < 2 or len(rest) < 2:
            assert np.isnan(auc.interval(predictions.groups)).all()
            continue
        variance = above.mean(axis=1).var(ddof=1) / len(own) + above.mean(axis=0).var(ddof=1) / len(rest)
        assert (auc.influence**2).sum() == pytest.approx(variance, abs=1e-12)
        assert auc.influence.sum() == pytest.approx(0, abs=1e-9)


@given(random_predictions())
def test_the_calibration_error_matches_its_definition(predictions):
    confidence, correct = predictions.probabilities[0].max(axis=1), predictions.correct[0]
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (confidence.astype(float) > low) & (confidence.astype(float) <= high)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    first = split_predictions(predictions.labels, predictions.probabilities[:1], predictions.groups)
    assert compute_metrics(first)["calibration_error"] == pytest.approx([expected], abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(random_predictions(), st.integers(1, 9))
def test_weighting_images_equals_repeating_them(predictions, seed):
    """The bootstrap in one matrix product, against a bootstrap that draws the images themselves."""
    images = len(predictions.labels)
    statistics = group_statistics(predictions.repeats()[0], images)
    weights = next(resampled_groups(images, seed))[:, :3]
    weighted = statistics.sums(weights).metrics()
    for column, counts in enumerate(weights.T.astype(int)):
        rows = np.repeat(np.arange(images), counts)
        drawn = split_predictions(predictions.labels[rows], predictions.probabilities[:1, rows], np.arange(images))
        for name, values in compute_metrics(drawn).items():
            if name in weighted:
                assert weighted[name][:, column] == pytest.approx(values, abs=1e-9, nan_ok=True), name


@given(st.integers(2, 300), st.floats(0, 1))
def test_wilson_agrees_with_statsmodels_for_independent_images(images, share):
    correct = (np.arange(images) < share * images).astype(float)
    expected = proportion_confint(correct.sum(), images, method="wilson")
    assert wilson(correct, np.arange(images)) == pytest.approx(expected)


@given(st.integers(2, 40), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_effective_images_are_at_most_the_images_and_for_equal_outcomes_at_most_the_groups(groups, size, seed):
    number = np.repeat(np.arange(groups), size)
    random = np.random.default_rng(seed)
    assert effective_images(random.random(groups * size), number) <= groups * size
    assert effective_images(random.random(groups)[number], number) <= groups + 1e-9
    assert effective_images(np.ones(groups * size), number) <= groups + 1e-9


def p_values(models, groups, seed, resamples):
    """The p values of bootstrap, permutation test and Student's test for every pair of models, (repeats, n) bool."""
    correct = dict(zip("abcdef", models, strict=False))
    accuracies = resampled_accuracies(correct, groups, seed, resamples)
    signed = signed_sums(correct, groups, seed, resamples)
    return [
        (
            bootstrap_interval(accuracies[a] - accuracies[b])[2],
            permutation_p((correct[a].mean() - correct[b].mean()) * len(groups), signed[a] - signed[b]),
            student(correct[a].mean() - correct[b].mean(), error, degrees)[2],
        )
        for (a, b), error, degrees in zip(combinations(correct, 2), *standard_errors(correct, groups), strict=True)
    ]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20))
def test_mcnemar_agrees_with_the_binomial_test(only_a, only_b, both):
    a = np.repeat([True, False, True], [only_a, only_b, both])
    b = np.repeat([False, True, True], [only_a, only_b, both])
    *counts, p = mcnemar(a, b)
    assert counts == [only_a, only_b]
    assert p == pytest.approx(binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 9))
def test_the_permutation_test_of_one_repeat_is_mcnemars(only_a, only_b, seed):
    a = np.repeat([[True, False, True]], [only_a, only_b, 30], axis=1)
    b = np.repeat([[False, True, True]], [only_a, only_b, 30], axis=1)
    exact = mcnemar(a[0], b[0])[2]
    p = p_values([a, b], np.arange(a.shape[1]), seed, 10_000)[0][1]
    assert p == pytest.approx(exact, abs=5 * 0.5 / np.sqrt(10_000))  # five standard errors


def test_the_permutation_test_of_repeats_and_groups_agrees_with_scipy():
    random = np.random.default_rng(4)
    groups = np.repeat(np.arange(9), 3)
    a, b = random.random((2, 27)) < 0.8, random.random((3, 27)) < 0.6
    sums = [np.bincount(groups, correct.mean(axis=0)) for correct in (a, b)]
    exact = permutation_test(
        sums, lambda x, y: (x - y).sum(), permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert p_values([a, b], groups, 0, 40_000)[0][1] == pytest.approx(exact.pvalue, abs=0.01)


def test_sums_of_thirds_that_are_equal_count_as_equal():
    """With three repeats on a fold, an image counts a third; times three, the same sums are whole numbers."""
    random, groups = np.random.default_rng(0), np.arange(60) // 2
    thirds = {"a": random.integers(0, 4, (1, 60))}
    thirds["b"] = np.concatenate([random.integers(0, 4, (1, 12)), thirds["a"][:, 12:]], axis=1)
    p = []
    for scale in (3, 1):
        correct = {name: values / scale for name, values in thirds.items()}
        signed = signed_sums(correct, groups, 0, 2000)
        p.append(permutation_p((correct["a"] - correct["b"]).sum(), signed["a"] - signed["b"]))
    assert p[0] == p[1]


def test_mcnemars_test_with_folds_takes_the_first_repeat_that_holds_an_image_out():
    """Two repeats on one fold, one correct: the mean of both is neither correct nor wrong."""
    predicts = np.repeat([[True, False], [True, False], [False, True]], 30, axis=1)
    first, second = predicts.copy(), predicts.copy()
    first[1], second[0] = False, False
    (pair,) = compare_models(
        {"a": Outcomes(first, predicts, np.arange(60)), "b": Outcomes(second, predicts, np.arange(60))}, 0
    )
    assert (pair.only_a_correct, pair.only_b_correct, pair.difference) == (30, 0, 0)


@settings(deadline=None, max_examples=8)  # statsmodels collects garbage in each call
@given(st.lists(st.integers(1, 60), min_size=2, max_size=4), st.integers(0, 99))
def test_both_p_values_have_the_holm_correction_of_statsmodels(wrong, seed):
    random = np.random.default_rng(seed)
    outcomes = {}
    for number, count in enumerate(wrong):
        correct = (random.permutation(80) >= count)[None]
        outcomes[str(number)] = Outcomes(correct, np.ones((1, 80), bool), np.arange(80))
    pairs = compare_models(outcomes, seed)
    for p, corrected in (("p", "p_holm"), ("p_mcnemar", "p_mcnemar_holm")):
        expected = multipletests([getattr(pair, p) for pair in pairs], method="holm")[1]
        assert [getattr(pair, corrected) for pair in pairs] == pytest.approx(expected, abs=1e-5)


# Simulated studies


def overconfident(random, images, group_size=1):
    """Predictions of an overconfident model for images of three unequal classes; images of a group are correlated."""
    groups = images // group_size
    labels = np.repeat(random.choice(3, groups, p=[0.5, 0.3, 0.2]), group_size)
    scores = random.normal(size=(images, 3))
    if group_size > 1:
        scores = 0.6 * scores + 0.8 * np.repeat(random.normal(size=(groups, 3)), group_size, axis=0)
    scores[np.arange(images), labels] += 1.5
    probabilities = np.exp(2 * scores) / np.exp(2 * scores).sum(axis=1, keepdims=True)
    return split_predictions(labels, probabilities[None].astype(np.float32), np.repeat(np.arange(groups), group_size))


@pytest.mark.parametrize("group_size", [1, 4])
def test_intervals_cover_the_truth(group_size):
    """Every metric, over 500 test splits of 400 images or 400 groups; truth from a million images.

    A tolerance of 0.01 beside three standard errors: bootstrap and asymptotic intervals are a little short with few
    images. Twice that for single classes, which have as few as 80 images or groups.
    """
    random = np.random.default_rng(group_size)
    truth = compute_metrics(overconfident(random, 1_000_000, group_size))
    names = [name for name in truth if f"{name}_std" in truth]
    covered = dict.fromkeys(names, 0)
    simulations, error = SIMULATIONS // 2, ERROR * np.sqrt(2)  # each takes long
    for simulation in range(simulations):
        metrics = compute_metrics(overconfident(random, 400 * group_size, group_size), seed=simulation)
        for name in names:
            covered[name] += (metrics[f"{name}_low"] <= truth[name]) & (truth[name] <= metrics[f"{name}_high"])
    for name, count in covered.items():
        slack = 0.02 if name.startswith("class_") else 0.01
        assert (count / simulations >= 0.95 - 3 * error - slack).all(), (name, count)
        assert (count / simulations <= 0.95 + 3 * error + slack).all(), (name, count)


def test_intervals_that_ignore_groups_are_too_short():
    """Otherwise the test above would prove nothing about groups."""
    random = np.random.default_rng(0)
    truth = compute_metrics(overconfident(random, 1_000_000, 4))["accuracy"]
    covered = 0
    for _ in range(SIMULATIONS):
        predictions = overconfident(random, 400, 4)
        low, high = wilson(predictions.correct[0].astype(float), np.arange(400))
        covered += low <= truth[0] <= high
    assert covered / SIMULATIONS < 0.9


def any_significant(p_values):
    """Whether any p value is below 0.05 after Holm's correction: its first step; statsmodels is slow per call."""
    return min(p_values) * len(p_values) < 0.05


@pytest.mark.parametrize(("images", "repeats", "seeds_differ_by"), [(60, 1, 0), (200, 1, 0), (120, 3, 0.3)])
def test_corrected_tests_hold_their_level(images, repeats, seeds_differ_by):
    """In at most 5 % of studies of three equally good models any pair is significant.

    Images differ in difficulty. seeds_differ_by: standard deviation of the repeats in log odds. McNemar's test uses one
    repeat, so it is checked only if repeats do not differ.
    """
    random = np.random.default_rng(images)
    false_alarms = mcnemar_false_alarms = 0
    for simulation in range(SIMULATIONS):
        difficulty = random.normal(1.5, 1.0, images)
        models = []
        for _ in range(3):
            odds = (
                difficulty + random.normal(0, seeds_differ_by, (repeats, 1)) + random.normal(0, 0.7, (repeats, images))
            )
            models.append(random.random((repeats, images)) < 1 / (1 + np.exp(-odds)))
        false_alarms += any_significant([max(p) for p in p_values(models, np.arange(images), simulation, 400)])
        mcnemar_false_alarms += any_significant([mcnemar(a[0], b[0])[2] for a, b in combinations(models, 2)])
    assert false_alarms / SIMULATIONS <= 0.05 + 3 * ERROR
    if not seeds_differ_by:
        assert mcnemar_false_alarms / SIMULATIONS <= 0.05 + 3 * ERROR


def lucky_models(random, accuracies, repeats, images, deviation, groups=None):
    """Models whose repeats differ by chance, with this standard deviation of the accuracy.

    Images of a group are correct or wrong together, in all models alike.
    """
    draw = (
        random.random if groups is None else lambda shape: random.random((*shape[:-1], groups.max() + 1))[..., groups]
    )
    hard = draw((1, images)) < 0.5  # all models are a little less accurate on them
    models = []
    for accuracy in accuracies:
        probability = accuracy + random.normal(0, deviation, (repeats, 1)) + np.where(hard, -0.1, 0.1)
        models.append(draw((repeats, images)) < probability)
    return models


@pytest.mark.parametrize(("repeats", "group_size"), [(2, 1), (3, 1), (3, 4)])
def test_a_lucky_seed_is_not_significant(repeats, group_size):
    """With 1,000 groups of images the seeds decide, and there are few seeds: the bootstrap alone errs too often."""
    random = np.random.default_rng(repeats)
    groups = np.repeat(np.arange(1000), group_size)
    false_alarms = bootstrap_false_alarms = 0
    for simulation in range(SIMULATIONS):
        models = lucky_models(random, [0.8, 0.8], repeats, len(groups), 0.05, groups if group_size > 1 else None)
        ((bootstrap, permutation, student_p),) = p_values(models, groups, simulation, 200)
        false_alarms += max(bootstrap, permutation, student_p) < 0.05
        bootstrap_false_alarms += max(bootstrap, permutation) < 0.05
    assert false_alarms / SIMULATIONS <= 0.05 + 3 * ERROR
    assert bootstrap_false_alarms / SIMULATIONS > 0.05 + 3 * ERROR


@pytest.mark.parametrize("repeats", [2, 3])
def test_unequal_spread_adds_few_false_alarms(repeats):
    """One of two models varies six times as much; with equally many repeats Student's test is robust to that."""
    random = np.random.default_rng(repeats)
    false_alarms = 0
    for simulation in range(SIMULATIONS):
        a, b = (lucky_models(random, [0.8], repeats, 1000, deviation)[0] for deviation in (0.01, 0.06))
        false_alarms += max(p_values([a, b], np.arange(1000), simulation, 200)[0]) < 0.05
    assert false_alarms / SIMULATIONS <= 0.1


@pytest.mark.parametrize("deviation", [0, 0.03])
def test_the_standard_error_matches_the_spread_over_studies(deviation):
    """The difference of two models over many studies, each with its own images and trainings."""
    random = np.random.default_rng(7)
    differences, variances = [], []
    for _ in range(SIMULATIONS):
        a, b = lucky_models(random, [0.8, 0.7], 3, 400, deviation)
        differences.append(a.mean() - b.mean())
        variances.append(standard_errors({"a": a, "b": b}, np.arange(400))[0][0] ** 2)
    # The relative standard error of a variance of 1,000 values is sqrt(2 / 1,000).
    assert np.mean(variances) == pytest.approx(np.var(differences), rel=4 * np.sqrt(2 / SIMULATIONS))


def test_with_one_repeat_students_test_is_the_paired_test_of_scipy():
    random = np.random.default_rng(2)
    a, b = random.random((2, 1, 50)) < 0.7
    (error,), (degrees,) = standard_errors({"a": a, "b": b}, np.arange(50))
    low, high, p = student(a.mean() - b.mean(), error, degrees)
    expected = ttest_rel(a[0].astype(float), b[0].astype(float))
    assert p == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval()))
    assert standard_errors({"a": a, "b": a}, np.arange(50))[0] == [0]
    assert student(0.0, 0.0, 49) == (0, 0, 1) and student(1.0, 0.0, 49)[2] == 0


def test_if_only_repeats_differ_students_test_is_that_of_scipy():
    """Images are correct or wrong independently in every training, so that only the repeats remain."""
    random = np.random.default_rng(3)
    a = random.permuted(np.arange(1000) < np.array([[800], [830], [850]]), axis=1)
    b = random.permuted(np.arange(1000) < np.array([[700], [790], [730]]), axis=1)
    errors, degrees = standard_errors({"a": a, "b": b}, np.arange(1000))
    expected = ttest_ind(a.mean(axis=1), b.mean(axis=1), equal_var=True)
    p = student(a.mean() - b.mean(), errors[0], degrees[0])[2]
    assert p == pytest.approx(expected.pvalue, abs=0.02)


@pytest.mark.parametrize(("repeats", "deviation"), [(1, 0), (3, 0.01)])
def test_a_real_difference_is_significant(repeats, deviation):
    """A test that never finds a difference would keep its level too."""
    random = np.random.default_rng(1)
    significant = 0
    for simulation in range(200):
        models = lucky_models(random, [0.85, 0.75], repeats, 500, deviation)
        significant += max(p_values(models, np.arange(500), simulation, 400)[0]) < 0.05
    assert significant / 200 > 0.9


# Unknown values


def test_what_needs_probabilities_is_unknown_if_a_repeat_diverged():
    labels = np.array([0, 1, 2, 0])
    probabilities = np.stack([np.eye(3)[labels], np.full((4, 3), np.nan)]).astype(np.float32)
    predictions = split_predictions(labels, probabilities, np.arange(4))
    metrics = compute_metrics(predictions, seed=0)
    for name in ("loss", "roc_auc", "calibration_error"):
        assert np.isnan(metrics[name]).all() and np.isnan(metrics[f"class_{name}_low"]).all()
    assert metrics["accuracy"] == [0.5] and metrics["macro_f1"] == [0.5]
    table = class_metrics(predictions, metrics, ["x", "y", "z"])
    assert list(table["class"]) == ["x", "y", "z"] and list(table["images"]) == [2, 1, 1]
    assert table["loss"].isna().all() and (table["recall"] == 0.5).all()


def test_perfect_predictions_have_an_accuracy_interval_and_no_bootstrap_interval():
    labels = np.arange(100) % 2
    metrics = compute_metrics(
        split_predictions(labels, np.eye(2, dtype=np.float32)[labels][None], np.arange(100)), seed=0
    )
    assert metrics["accuracy_low"] == pytest.approx(proportion_confint(100, 100, method="wilson")[0])
    for name in ("roc_auc", "macro_f1", "balanced_accuracy"):
        assert metrics[name] == [1]
        assert np.isnan(metrics[f"{name}_low"]) and np.isnan(metrics[f"{name}_high"])


def test_one_group_has_only_wilson_intervals():
    labels = np.array([0, 1, 2, 0])
    metrics = compute_metrics(
        split_predictions(labels, np.eye(3, dtype=np.float32)[[0, 1, 2, 1]][None], np.zeros(4, int)), seed=0
    )
    assert np.isnan(metrics["macro_f1_low"]) and np.isnan(metrics["roc_auc_low"])
    assert metrics["accuracy_low"] < 0.2 and metrics["accuracy_high"] > 0.9


def test_resamples_without_a_class_are_ignored_for_that_class():
    """Three images of a class among 200, always correct."""
    labels = np.r_[np.zeros(197, int), 1, 1, 1]
    confidence = np.r_[np.linspace(0.6, 0.9, 197), 0.7, 0.8, 0.9]
    probabilities = np.where(labels[:, None] == [0, 1], confidence[:, None], 1 - confidence[:, None]).astype(np.float32)
    metrics = compute_metrics(split_predictions(labels, probabilities[None], np.arange(200)), seed=0)
    assert -np.log(0.91) < metrics["class_loss_low"][1] < metrics["class_loss_high"][1] < -np.log(0.69)
    assert np.isnan(metrics["class_f1_low"][1])  # always 1 if the resample has the class


def test_a_class_without_images_is_unknown_and_not_part_of_means():
    labels = np.array([0, 1, 0, 1])
    metrics = compute_metrics(
        split_predictions(labels, np.eye(3, dtype=np.float32)[labels][None], np.arange(4)), seed=0
    )
    assert np.isnan(metrics["class_recall"][2]) and np.isnan(metrics["class_f1"][2])
    assert metrics["macro_recall"] == metrics["balanced_accuracy"] == [1]


def test_roc_auc_of_two_classes_is_that_of_the_second():
    labels = np.arange(40) % 2
    scores = np.clip(np.random.default_rng(0).normal(labels, 2), 0, 1).astype(np.float32)
    probabilities = np.stack([1 - scores * np.float32(0.999), scores], axis=1)  # as if rounded: the order differs
    probabilities[:5, 0] = 0.5
    metrics = compute_metrics(split_predictions(labels, probabilities[None], np.arange(40)))
    assert metrics["roc_auc"] == metrics["class_roc_auc"][1] == pytest.approx(sk.roc_auc_score(labels, scores))
    assert metrics["class_roc_auc"][0] != metrics["class_roc_auc"][1]
