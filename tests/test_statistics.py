"""The statistics of the report against scikit-learn, SciPy and statsmodels, and in simulated studies of known truth."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, ttest_ind, ttest_rel
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
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
from stages.evaluation.intervals import effective_images, resampled_groups, wilson
from stages.evaluation.metrics import SplitPredictions, class_metrics, compute_metrics
from stages.evaluation.roc_auc import class_roc_aucs
from stages.evaluation.sufficient_statistics import group_statistics

SIMULATIONS = 1_000
ERROR = np.sqrt(0.05 * 0.95 / SIMULATIONS)  # standard error of a share of 5 % or 95 % over the simulations


@st.composite
def answered(draw):
    """Answers of one to three repeats to images of two to seven classes, each of which is there; also tied ones."""
    classes = draw(st.integers(2, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.permutation(np.r_[np.arange(classes), random.integers(0, classes, draw(st.integers(2, 80)))])
    scores = random.normal(size=(draw(st.integers(1, 3)), len(labels), classes))
    scores[:, np.arange(len(labels)), labels] += draw(st.floats(-1, 3))
    if draw(st.booleans()):
        scores = scores.round()  # ties
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    return SplitPredictions(labels, probabilities.astype(np.float32), np.arange(len(labels)))


def summing_to_1(probabilities):
    """In float64, as scikit-learn wants them."""
    return probabilities.astype(float) / probabilities.astype(float).sum(axis=1, keepdims=True)


def mean_over_repeats(score, answers):
    return np.mean([score(*each) for each in zip(answers.predicted, answers.probabilities, strict=True)], axis=0)


@given(answered())
def test_figures_agree_with_scikit_learn(answers):
    labels, classes = answers.labels, range(answers.classes)
    found = compute_metrics(answers)
    expected = {
        "accuracy": lambda predicted, _: sk.accuracy_score(labels, predicted),
        "balanced_accuracy": lambda predicted, _: sk.balanced_accuracy_score(labels, predicted),
        "loss": lambda _, probabilities: sk.log_loss(labels, summing_to_1(probabilities), labels=classes),
    }
    for place, score in enumerate(("precision", "recall", "f1")):
        for average in ("macro", "weighted", None):
            expected[f"{average or 'class'}_{score}"] = lambda predicted, _, place=place, average=average: (
                sk.precision_recall_fscore_support(labels, predicted, labels=classes, average=average, zero_division=0)[
                    place
                ]
            )
    if len(classes) > 5:
        expected["top5_accuracy"] = lambda _, probabilities: sk.top_k_accuracy_score(
            labels, probabilities, k=5, labels=classes
        )
    for name, score in expected.items():
        assert found[name] == pytest.approx(np.atleast_1d(mean_over_repeats(score, answers)), abs=1e-5), name


@given(answered())
def test_areas_agree_with_scikit_learn(answers):
    found = compute_metrics(answers)
    own = [
        mean_over_repeats(lambda _, scores, c=c: sk.roc_auc_score(answers.labels == c, scores[:, c]), answers)
        for c in range(answers.classes)
    ]
    assert found["class_roc_auc"] == pytest.approx(np.array(own), abs=1e-9)
    assert found["roc_auc"] == pytest.approx([own[1] if answers.classes == 2 else np.mean(own)], abs=1e-9)


@given(answered())
def test_the_variance_of_an_area_is_delongs(answers):
    """By the definition: over all pairs of an image of the class and another, 1 where it is higher, 1/2 if level."""
    labels, scores = answers.labels, answers.probabilities[0]
    for label, area in enumerate(class_roc_aucs(labels, scores, answers.groups)):
        own, others = scores[labels == label, label], scores[labels != label, label]
        above = (own[:, None] > others) + 0.5 * (own[:, None] == others)
        if len(own) < 2 or len(others) < 2:
            assert np.isnan(area.interval(answers.groups)).all()
            continue
        variance = above.mean(axis=1).var(ddof=1) / len(own) + above.mean(axis=0).var(ddof=1) / len(others)
        assert (area.influence**2).sum() == pytest.approx(variance, abs=1e-12)
        assert area.influence.sum() == pytest.approx(0, abs=1e-9)


@given(answered())
def test_the_calibration_error_is_that_of_its_definition(answers):
    confidence, right = answers.probabilities[0].max(axis=1), answers.correct[0]
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (confidence.astype(float) > low) & (confidence.astype(float) <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    one = SplitPredictions(answers.labels, answers.probabilities[:1], answers.groups)
    assert compute_metrics(one)["calibration_error"] == pytest.approx([expected], abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(answered(), st.integers(1, 9))
def test_weighting_images_is_the_same_as_repeating_them(answers, seed):
    """What a bootstrap does in one product of matrices, done by drawing the images themselves."""
    images = len(answers.labels)
    parts = group_statistics(answers.labels, answers.predicted[0], answers.probabilities[0], answers.groups)
    weights = next(resampled_groups(images, seed))[:, :3]
    found = parts.sums(weights).figures()
    for column, times in enumerate(weights.T.astype(int)):
        rows = np.repeat(np.arange(images), times)
        drawn = SplitPredictions(answers.labels[rows], answers.probabilities[:1, rows], np.arange(images))
        for name, values in compute_metrics(drawn).items():
            if name in found:
                assert found[name][:, column] == pytest.approx(values, abs=1e-9, nan_ok=True), name


@given(st.integers(2, 300), st.floats(0, 1))
def test_wilson_agrees_with_statsmodels_where_images_are_alone(images, share):
    right = (np.arange(images) < share * images).astype(float)
    expected = proportion_confint(right.sum(), images, method="wilson")
    assert wilson(right, np.arange(images)) == pytest.approx(expected)


@given(st.integers(2, 40), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_groups_never_tell_more_than_their_images_and_equal_images_no_more_than_their_groups(groups, size, seed):
    number = np.repeat(np.arange(groups), size)
    random = np.random.default_rng(seed)
    assert effective_images(random.random(groups * size), number) <= groups * size
    assert effective_images(random.random(groups)[number], number) <= groups + 1e-9
    assert effective_images(np.ones(groups * size), number) <= groups + 1e-9


def p_values(models, groups, seed, resamples):
    """Of every pair of models, (repeats, n) bool each: p of the bootstrap, the permutation test, Student's."""
    correct = dict(zip("abcdef", models, strict=False))
    drawn = resampled_accuracies(correct, groups, seed, resamples)
    signed = signed_sums(correct, groups, seed, resamples)
    return [
        (
            bootstrap_interval(drawn[a] - drawn[b])[2],
            permutation_p((correct[a].mean() - correct[b].mean()) * len(groups), signed[a] - signed[b]),
            student(correct[a].mean() - correct[b].mean(), error, degrees)[2],
        )
        for (a, b), error, degrees in zip(combinations(correct, 2), *standard_errors(correct, groups), strict=True)
    ]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20))
def test_mcnemar_agrees_with_statsmodels_and_scipy(only_a, only_b, both):
    a = np.repeat([True, False, True], [only_a, only_b, both])
    b = np.repeat([False, True, True], [only_a, only_b, both])
    found = mcnemar(a, b)
    assert found[:2] == (only_a, only_b)
    assert found[2] == pytest.approx(reference_mcnemar([[both, only_a], [only_b, 0]], exact=True).pvalue)
    if only_a + only_b:
        assert found[2] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 9))
def test_the_permutation_test_of_one_repeat_is_mcnemars(only_a, only_b, seed):
    a = np.repeat([[True, False, True]], [only_a, only_b, 30], axis=1)
    b = np.repeat([[False, True, True]], [only_a, only_b, 30], axis=1)
    p = mcnemar(a[0], b[0])[2]
    found = p_values([a, b], np.arange(a.shape[1]), seed, 10_000)[0][1]
    assert found == pytest.approx(p, abs=5 * 0.5 / np.sqrt(10_000))  # five standard errors


def test_the_permutation_test_of_repeats_and_groups_agrees_with_scipy():
    random = np.random.default_rng(4)
    groups = np.repeat(np.arange(9), 3)
    a, b = random.random((2, 27)) < 0.8, random.random((3, 27)) < 0.6
    of_groups = [np.bincount(groups, each.mean(axis=0)) for each in (a, b)]
    exact = permutation_test(
        of_groups, lambda x, y: (x - y).sum(), permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert p_values([a, b], groups, 0, 40_000)[0][1] == pytest.approx(exact.pvalue, abs=0.01)


@settings(deadline=None, max_examples=8)  # statsmodels collects garbage in each call
@given(st.lists(st.integers(1, 60), min_size=2, max_size=4), st.integers(0, 99))
def test_both_p_values_are_corrected_as_statsmodels_does(wrong, seed):
    random = np.random.default_rng(seed)
    labels = np.zeros(80, int)
    answers = {}
    for number, count in enumerate(wrong):
        correct = (random.permutation(80) >= count)[None]
        answers[str(number)] = SplitPredictions(
            labels, np.stack([correct, ~correct], axis=2).astype(np.float32), np.arange(80)
        )
    pairs = compare_models(answers, dict.fromkeys(answers, 0), seed)
    for p, corrected in (("p", "p_holm"), ("p_mcnemar", "p_mcnemar_holm")):
        expected = multipletests([getattr(pair, p) for pair in pairs], method="holm")[1]
        assert [getattr(pair, corrected) for pair in pairs] == pytest.approx(expected, abs=1e-5)


# Simulated studies


def overconfident(random, images, of_group=1):
    """Answers of a model, too sure of itself, to images of three unequal classes; groups have something in common."""
    groups = images // of_group
    labels = np.repeat(random.choice(3, groups, p=[0.5, 0.3, 0.2]), of_group)
    scores = random.normal(size=(images, 3))
    if of_group > 1:
        scores = 0.6 * scores + 0.8 * np.repeat(random.normal(size=(groups, 3)), of_group, axis=0)
    scores[np.arange(images), labels] += 1.5
    probabilities = np.exp(2 * scores) / np.exp(2 * scores).sum(axis=1, keepdims=True)
    return SplitPredictions(labels, probabilities[None].astype(np.float32), np.repeat(np.arange(groups), of_group))


@pytest.mark.parametrize("of_group", [1, 4])
def test_intervals_cover_the_truth(of_group):
    """Every figure, over 1,000 test splits of 400 images or 400 groups; truth from a million images.

    0.01 beside three standard errors: bootstrap intervals, and those that hold for many images, are a little short with
    few. Of single classes, of which there are but 80 images or groups, twice that.
    """
    random = np.random.default_rng(of_group)
    truth = compute_metrics(overconfident(random, 1_000_000, of_group))
    names = [name for name in truth if f"{name}_std" in truth]
    covered = dict.fromkeys(names, 0)
    for simulation in range(SIMULATIONS):
        found = compute_metrics(overconfident(random, 400 * of_group, of_group), seed=simulation)
        for name in names:
            covered[name] += (found[f"{name}_low"] <= truth[name]) & (truth[name] <= found[f"{name}_high"])
    for name, times in covered.items():
        slack = 0.02 if name.startswith("class_") else 0.01
        assert (times / SIMULATIONS >= 0.95 - 3 * ERROR - slack).all(), (name, times)
        assert (times / SIMULATIONS <= 0.95 + 3 * ERROR + slack).all(), (name, times)


def test_intervals_that_know_nothing_of_groups_are_too_short():
    """What the test above could not see, if groups made no difference."""
    random = np.random.default_rng(0)
    truth = compute_metrics(overconfident(random, 1_000_000, 4))["accuracy"]
    covered = 0
    for _ in range(SIMULATIONS):
        found = overconfident(random, 400, 4)
        low, high = wilson(found.correct[0].astype(float), np.arange(400))
        covered += low <= truth[0] <= high
    assert covered / SIMULATIONS < 0.9


def told_apart(found):
    """Whether Holm's correction leaves any below 0.05: its first step; statsmodels collects garbage in each call."""
    return min(found) * len(found) < 0.05


@pytest.mark.parametrize(("images", "repeats", "seeds_differ_by"), [(60, 1, 0), (200, 1, 0), (120, 3, 0.3)])
def test_corrected_tests_hold_their_level(images, repeats, seeds_differ_by):
    """Studies of three models that are equally good: in at most 5 % of them any two are told apart.

    Images differ in how hard they are. `seeds_differ_by`: how good a repeat is, in log odds; McNemar's test, which
    knows one repeat alone, is asked only where they do not differ.
    """
    random = np.random.default_rng(images)
    wrong = wrong_of_mcnemar = 0
    for simulation in range(SIMULATIONS):
        hard = random.normal(1.5, 1.0, images)
        models = []
        for _ in range(3):
            odds = hard + random.normal(0, seeds_differ_by, (repeats, 1)) + random.normal(0, 0.7, (repeats, images))
            models.append(random.random((repeats, images)) < 1 / (1 + np.exp(-odds)))
        wrong += told_apart([max(each) for each in p_values(models, np.arange(images), simulation, 400)])
        wrong_of_mcnemar += told_apart([mcnemar(a[0], b[0])[2] for a, b in combinations(models, 2)])
    assert wrong / SIMULATIONS <= 0.05 + 3 * ERROR
    if not seeds_differ_by:
        assert wrong_of_mcnemar / SIMULATIONS <= 0.05 + 3 * ERROR


def of_seeds(random, accuracies, repeats, images, deviation, groups=None):
    """Models of which every training is good by chance, with that standard deviation of the accuracy.

    Where images hang together in groups, those of a group are right or wrong together, in all models alike.
    """
    draw = (
        random.random if groups is None else lambda shape: random.random((*shape[:-1], groups.max() + 1))[..., groups]
    )
    hard = draw((1, images)) < 0.5  # of these, all models have a little fewer right
    models = []
    for accuracy in accuracies:
        of_repeats = accuracy + random.normal(0, deviation, (repeats, 1)) + np.where(hard, -0.1, 0.1)
        models.append(draw((repeats, images)) < of_repeats)
    return models


@pytest.mark.parametrize(("repeats", "of_group"), [(2, 1), (3, 1), (3, 4)])
def test_a_lucky_seed_is_no_difference(repeats, of_group):
    """With 1,000 groups of images the seeds decide, and two or three are few: the bootstrap alone errs too often."""
    random = np.random.default_rng(repeats)
    groups = np.repeat(np.arange(1000), of_group)
    wrong, of_bootstrap = 0, 0
    for simulation in range(SIMULATIONS):
        models = of_seeds(random, [0.8, 0.8], repeats, len(groups), 0.05, groups if of_group > 1 else None)
        ((bootstrap, permutation, student_p),) = p_values(models, groups, simulation, 200)
        wrong += max(bootstrap, permutation, student_p) < 0.05
        of_bootstrap += max(bootstrap, permutation) < 0.05
    assert wrong / SIMULATIONS <= 0.05 + 3 * ERROR
    assert of_bootstrap / SIMULATIONS > 0.05 + 3 * ERROR


@pytest.mark.parametrize("repeats", [2, 3])
def test_models_that_vary_unequally_are_told_apart_hardly_more_often(repeats):
    """One of the two varies six times as much; of equally many repeats Student's test loses little by that."""
    random = np.random.default_rng(repeats)
    wrong = 0
    for simulation in range(SIMULATIONS):
        a, b = (of_seeds(random, [0.8], repeats, 1000, deviation)[0] for deviation in (0.01, 0.06))
        wrong += max(p_values([a, b], np.arange(1000), simulation, 200)[0]) < 0.05
    assert wrong / SIMULATIONS <= 0.1


@pytest.mark.parametrize("deviation", [0, 0.03])
def test_the_standard_error_is_that_of_trainings_and_images(deviation):
    """Of the difference of two models over many studies, each with images and trainings of its own."""
    random = np.random.default_rng(7)
    differences, variances = [], []
    for _ in range(SIMULATIONS):
        a, b = of_seeds(random, [0.8, 0.7], 3, 400, deviation)
        differences.append(a.mean() - b.mean())
        variances.append(standard_errors({"a": a, "b": b}, np.arange(400))[0][0] ** 2)
    # The standard error of a variance of so many is a share of sqrt(2 / 1,000) of it.
    assert np.mean(variances) == pytest.approx(np.var(differences), rel=4 * np.sqrt(2 / SIMULATIONS))


def test_of_one_repeat_students_is_the_paired_test_of_scipy():
    random = np.random.default_rng(2)
    a, b = random.random((2, 1, 50)) < 0.7
    (error,), (degrees,) = standard_errors({"a": a, "b": b}, np.arange(50))
    low, high, p = student(a.mean() - b.mean(), error, degrees)
    expected = ttest_rel(a[0].astype(float), b[0].astype(float))
    assert p == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval()))
    assert standard_errors({"a": a, "b": a}, np.arange(50))[0] == [0]
    assert student(0.0, 0.0, 49) == (0, 0, 1) and student(1.0, 0.0, 49)[2] == 0


def test_where_only_repeats_differ_students_is_that_of_scipy():
    """Of so many images, each right or wrong by itself in every training, nothing is left but the repeats."""
    random = np.random.default_rng(3)
    a = random.permuted(np.arange(1000) < np.array([[800], [830], [850]]), axis=1)
    b = random.permuted(np.arange(1000) < np.array([[700], [790], [730]]), axis=1)
    errors, degrees = standard_errors({"a": a, "b": b}, np.arange(1000))
    expected = ttest_ind(a.mean(axis=1), b.mean(axis=1), equal_var=True)
    p = student(a.mean() - b.mean(), errors[0], degrees[0])[2]
    assert p == pytest.approx(expected.pvalue, abs=0.02)


@pytest.mark.parametrize(("repeats", "deviation"), [(1, 0), (3, 0.01)])
def test_a_real_difference_is_found(repeats, deviation):
    """As many images as tell 80 from 90 % apart: a test that always says no would hold its level too."""
    random = np.random.default_rng(1)
    found = 0
    for simulation in range(200):
        models = of_seeds(random, [0.85, 0.75], repeats, 500, deviation)
        found += max(p_values(models, np.arange(500), simulation, 400)[0]) < 0.05
    assert found / 200 > 0.9


# What is not known


def test_a_repeat_that_diverged_leaves_what_needs_its_probabilities_open():
    labels = np.array([0, 1, 2, 0])
    probabilities = np.stack([np.eye(3)[labels], np.full((4, 3), np.nan)]).astype(np.float32)
    answers = SplitPredictions(labels, probabilities, np.arange(4))
    found = compute_metrics(answers, seed=0)
    for name in ("loss", "roc_auc", "calibration_error"):
        assert np.isnan(found[name]).all() and np.isnan(found[f"class_{name}_low"]).all()
    assert found["accuracy"] == [0.5] and found["macro_f1"] == [0.5]
    table = class_metrics(answers, found, ["x", "y", "z"])
    assert list(table["class"]) == ["x", "y", "z"] and list(table["images"]) == [2, 1, 1]
    assert table["loss"].isna().all() and (table["recall"] == 0.5).all()


def test_answers_that_are_all_right_have_intervals_that_say_how_many_they_are():
    labels = np.arange(100) % 2
    found = compute_metrics(SplitPredictions(labels, np.eye(2, dtype=np.float32)[labels][None], np.arange(100)), seed=0)
    assert found["accuracy_low"] == pytest.approx(proportion_confint(100, 100, method="wilson")[0])
    for name in ("roc_auc", "macro_f1", "balanced_accuracy"):
        assert found[name] == [1]
        assert np.isnan(found[f"{name}_low"]) and np.isnan(found[f"{name}_high"])  # of which nothing is known


def test_of_one_group_no_interval_is_known_but_that_of_shares():
    labels = np.array([0, 1, 2, 0])
    found = compute_metrics(
        SplitPredictions(labels, np.eye(3, dtype=np.float32)[[0, 1, 2, 1]][None], np.zeros(4, int)), seed=0
    )
    assert np.isnan(found["macro_f1_low"]) and np.isnan(found["roc_auc_low"])
    assert found["accuracy_low"] < 0.2 and found["accuracy_high"] > 0.9


def test_a_class_that_a_resample_lacks_says_nothing_of_it():
    """Three images of a class among 200, always right with the same probability."""
    labels = np.r_[np.zeros(197, int), 1, 1, 1]
    right = np.r_[np.linspace(0.6, 0.9, 197), 0.7, 0.8, 0.9]
    probabilities = np.where(labels[:, None] == [0, 1], right[:, None], 1 - right[:, None]).astype(np.float32)
    found = compute_metrics(SplitPredictions(labels, probabilities[None], np.arange(200)), seed=0)
    assert -np.log(0.91) < found["class_loss_low"][1] < found["class_loss_high"][1] < -np.log(0.69)
    assert np.isnan(found["class_f1_low"][1])  # always 1 where the class is there


def test_a_class_without_images_is_unknown_and_counts_in_no_mean():
    labels = np.array([0, 1, 0, 1])
    found = compute_metrics(SplitPredictions(labels, np.eye(3, dtype=np.float32)[labels][None], np.arange(4)), seed=0)
    assert np.isnan(found["class_recall"][2]) and np.isnan(found["class_f1"][2])
    assert found["macro_recall"] == found["balanced_accuracy"] == [1]


def test_of_two_classes_the_area_is_that_of_the_second():
    labels = np.arange(40) % 2
    scores = np.clip(np.random.default_rng(0).normal(labels, 2), 0, 1).astype(np.float32)
    probabilities = np.stack([1 - scores * np.float32(0.999), scores], axis=1)  # as if rounded: the order differs
    probabilities[:5, 0] = 0.5
    found = compute_metrics(SplitPredictions(labels, probabilities[None], np.arange(40)))
    assert found["roc_auc"] == found["class_roc_auc"][1] == pytest.approx(sk.roc_auc_score(labels, scores))
    assert found["class_roc_auc"][0] != found["class_roc_auc"][1]
