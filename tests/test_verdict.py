"""The recommendation: its rule in simulated studies with known truth, its sentences, and what it must not depend on."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages import compare, evaluate, report
from stages.artifacts.costs import FeaturesCost, InferenceTime, write_cost
from stages.artifacts.margin import write_margin
from stages.artifacts.models import read_result
from stages.artifacts.tasks import read_task, write_task
from stages.core.errors import UserError
from stages.evaluation.compared_folds import compared_folds, left_out_sentences, limiting_sentences
from stages.evaluation.comparisons import Comparison, compare_models, resampled_accuracies, standard_errors, student
from stages.evaluation.cost_sentences import base_network_sentences, is_cheaper, none_is_cheaper, relative_cost
from stages.evaluation.folds import Outcomes, common_outcomes, fold_variances, images_needed
from stages.evaluation.shortfall import MultiplyAdds, cheapest, choose, joint_accuracies
from stages.evaluation.verdict import Evidence, contradictions, sentences_on_test, verdict
from tests.example_results import (
    MACHINE,
    NO_NEAR_DUPLICATES,
    make_result,
    model_record,
    records,
    report_files,
    split_predictions,
    write_result,
    write_study,
)
from tests.simulated_studies import Kind, simulate

MOST_BELOW = {60: 0.25, 100: 0.18, 300: 0.09, 1000: 0.05}  # validation images -> share of studies
HIGHEST_COST = {100: 0.8, 300: 0.75, 1000: 0.6}  # validation images -> cost relative to the most accurate model


def outcomes_of(folds=None, **models) -> dict[str, Outcomes]:
    """Outcomes of models, each (repeats, n) or (n,) of 0 and 1. folds: (n,) the repeat that predicts an image."""
    outcomes = {}
    for model, correct in models.items():
        correct = np.atleast_2d(np.array(correct)).astype(bool)
        predicts = np.ones(correct.shape, bool)
        if folds is not None:
            predicts = np.arange(len(correct))[:, None] == folds
        outcomes[model] = Outcomes(correct & predicts, predicts, np.arange(correct.shape[1]))
    return outcomes


def right(count, images=200) -> np.ndarray:
    """The first `count` images of some are correct."""
    return np.arange(images) < count


def costs_of(**costs) -> dict[str, MultiplyAdds]:
    return {model: MultiplyAdds(*cost) for model, cost in costs.items()}


def metrics_of(outcomes, costs, majority=0.1) -> dict:
    """The part of metrics.json that a verdict reads."""
    metrics = {}
    for model, part in outcomes.items():
        accuracy = part.by_image.mean()
        split = {"accuracy": accuracy, "accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.05}
        cost = {"multiply_adds": costs[model].in_use, "total_training_multiply_adds": costs[model].training}
        cost |= {"seconds": 9.6, "total_seconds": 10.3, "milliseconds_per_image": 4.48}
        validation = {**split, "accuracy": 0.123, "majority_rate": majority}
        training = {"repeats": len(part.predicts)}
        metrics[model] = {"validation": validation, "test": split, "cost": cost, "training": training}
    return metrics


def verdict_of(outcomes, costs, margin=1.0, majority=0.1, **others) -> list[str]:
    choice = choose(outcomes, costs, margin / 100, seed=0, resamples=500)
    metrics = metrics_of(outcomes, costs, majority)
    return verdict(choice, Evidence(metrics, outcomes, compare_models(outcomes, 0), margin, **others))


# The rule


@pytest.mark.parametrize("images", MOST_BELOW)
def test_the_recommended_model_is_rarely_far_below_the_best_one(images):
    """Over 600 studies of eight models, with a standard error of 0.017 or less."""
    assert simulate(images, Kind()).missed(points=2) <= MOST_BELOW[images]


@pytest.mark.parametrize("images", HIGHEST_COST)
def test_of_equally_good_models_a_cheap_one_is_recommended(images):
    """Four of eight models are within 0.3 points; relative to always taking the best on the validation images."""
    assert simulate(images, Kind(equal=4)).mean_cost <= HIGHEST_COST[images]


@pytest.mark.parametrize(
    "kind",
    [
        Kind(repeats=3, training=(0.3, 0.05)),
        Kind(repeats=3, training=(0.3, 0.05), folds=True),
        Kind(models=2),
        Kind(models=30),
        Kind(correlation=0.3),
        Kind(correlation=0.9),
    ],
    ids=["repeats", "folds", "two models", "thirty models", "correlation 0.3", "correlation 0.9"],
)
def test_a_cheap_model_costs_little_accuracy_and_the_stated_probability_is_honest(kind):
    """In other studies: on average less than the margin, and not more often beyond it than stated."""
    studies = 150
    decisions, best = (simulate(200, kind, studies, resamples=100, margin=margin) for margin in (0.01, 0))
    assert decisions.below.mean() - best.below.mean() < 0.005
    hits = 1 - decisions.missed(points=1)
    assert hits > decisions.probability.mean() - 3 * np.sqrt(0.25 / studies)
    assert decisions.probability.mean() > hits - 0.2  # nor is it far too modest


def test_the_margin_trades_accuracy_for_cost():
    outcomes = outcomes_of(best=right(180), near=right(178), far=right(170), poor=right(100))
    costs = costs_of(best=(900, 9), near=(300, 9), far=(100, 9), poor=(1, 1))
    chosen = {margin: choose(outcomes, costs, margin / 100, 0, 100) for margin in (0, 0.9, 1, 5, 50)}
    assert [choice.recommended for choice in chosen.values()] == ["best", "best", "near", "far", "poor"]
    assert chosen[1].candidates == ["best", "near"] and chosen[1].best == "best"


def test_the_shortfall_is_the_mean_distance_to_the_best_model_of_each_resample():
    random = np.random.default_rng(0)
    outcomes = outcomes_of(**{name: random.random((2, 300)) < 0.8 for name in "abc"})
    choice = choose(outcomes, costs_of(a=(1, 1), b=(1, 1), c=(1, 1)), 0.01, seed=5, resamples=4000)
    drawn = resampled_accuracies({name: part.correct for name, part in outcomes.items()}, np.arange(300), 5, 4000)
    highest = np.max([*drawn.values()], axis=0)
    for name, accuracies in drawn.items():
        assert choice.shortfalls[name] == pytest.approx((highest - accuracies).mean(), abs=0.002)
    within = (highest - drawn[choice.recommended] <= 0.01 + 1e-9).mean()
    assert choice.probability == pytest.approx(within)


def test_costs_in_use_come_first_then_those_of_training_then_accuracy():
    shortfalls = dict.fromkeys("abcd", 0.0)
    assert cheapest("ab", costs_of(a=(100, 900), b=(121, 1)), shortfalls) == "a"
    assert cheapest("ab", costs_of(a=(100, 900), b=(120, 1)), shortfalls) == "b"
    assert cheapest("ab", costs_of(a=(100, 10), b=(120, 12)), {"a": 0.01, "b": 0.0}) == "b"
    assert cheapest("ab", costs_of(a=(100, 10), b=(120, 12)), shortfalls) == "a"
    # Costs are compared with the lowest, not with each other in pairs: d is far from a, though close to c.
    chain = costs_of(a=(100, 90), b=(115, 80), c=(132, 1), d=(150, 1))
    assert {cheapest(order, chain, shortfalls) for order in ("abcd", "dcab", "cdab")} == {"a"}


def test_a_diverged_repeat_costs_a_model_the_recommendation():
    diverged = np.stack([right(190), np.zeros(200, bool)])
    outcomes = outcomes_of(diverged=diverged, steady=np.stack([right(170), right(170)]))
    assert choose(outcomes, costs_of(diverged=(1, 1), steady=(9, 9)), 0.01, 0, 100).recommended == "steady"


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_diverged_repeat_of_another_model_leaves_the_choice_certain(lost):
    """300 images in three folds; the third model has lost its training of one fold."""
    random, fold = np.random.default_rng(0), np.arange(300) % 3
    models = {name: random.random((3, 300)) < share for name, share in (("a", 0.93), ("b", 0.81), ("c", 0.80))}
    models["c"][lost] = False
    outcomes = outcomes_of(fold, **models)
    choice = choose(outcomes, costs_of(a=(1, 1), b=(1, 1), c=(1, 1)), 0.01, 0, 2000)
    assert choice.recommended == "a" and choice.probability > 0.99
    spread = joint_accuracies(outcomes, 0, 2000).std(axis=0)
    assert spread[2] > 0.15 and spread[:2].max() < 0.04


def test_training_effects_have_the_spread_of_the_trainings():
    """Of eight models with three folds of 200 images, on average over 60 studies; the folds differ in difficulty."""
    random, fold = np.random.default_rng(0), np.arange(600) % 3
    variances = []
    for _ in range(60):
        easier = random.normal(0, 0.05, 3)
        ability = 0.8 + easier + random.normal(0, 0.05, (8, 3))
        correct = random.random((8, 1, 600)) < ability[:, :, None]
        outcomes = outcomes_of(fold, **{f"m{number}": part for number, part in enumerate(correct)})
        with_training = joint_accuracies(outcomes, 0, 400).var(axis=0)
        images = [part.by_image.var() / 600 for part in outcomes.values()]
        variances.append((with_training - images).mean())
    assert np.mean(variances) == pytest.approx(0.05**2 / 3, rel=0.3)


# Folds


def fold_study(random, images, deviation, folds=3) -> dict[str, Outcomes]:
    """Two equally good models whose repeats validate on different folds; deviation: of the accuracy over trainings."""
    difficulty = random.random(images)
    fold = np.arange(images) % folds
    models = {}
    for model in "ab":
        ability = 0.8 + random.normal(0, deviation, (folds, 1))
        models[model] = random.random((folds, images)) < ability + np.where(difficulty < 0.5, 0.1, -0.1)
    return outcomes_of(fold, **models)


@pytest.mark.parametrize("deviation", [0, 0.05])
def test_intervals_of_differences_are_honest_with_folds(deviation):
    """Three folds of 100 images: the true difference is within the 95 % interval often enough, and a tight one."""
    random = np.random.default_rng(1)
    covered, widths, differences = 0, [], []
    for _ in range(600):
        outcomes = fold_study(random, 300, deviation)
        a, b = outcomes.values()
        correct = {model: part.by_image for model, part in outcomes.items()}
        (error,), (degrees,) = standard_errors(correct, a.groups, a.folds)
        difference = a.by_image.mean() - b.by_image.mean()
        low, high, _ = student(difference, error, degrees)
        covered += low <= 0 <= high
        widths.append(high - low)
        differences.append(difference)
    assert covered / 600 >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 600)
    if not deviation:  # training adds nothing, so that three folds are worth more than one of them
        assert np.median(widths) < 1.6 * 2 * 1.96 * np.std(differences)


def test_without_the_trainings_of_the_folds_intervals_are_too_short():
    """Otherwise the test above would prove nothing about trainings."""
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        outcomes = fold_study(random, 300, 0.05)
        a, b = (part.by_image for part in outcomes.values())
        (error,), (degrees,) = standard_errors({"a": a, "b": b}, np.arange(300))
        low, high, _ = student(a.mean() - b.mean(), error, degrees)
        covered += low <= 0 <= high
    assert covered / 300 < 0.9


def test_variances_within_and_between_folds():
    """The first value differs only within folds, the second only between them."""
    folds, groups = np.repeat([0, 1, 2], 40), np.arange(120)
    within = np.tile([0.0, 1.0], 60)
    images, between = fold_variances(np.stack([within, folds / 2.0]), groups, folds)
    assert images == pytest.approx([0.25 / 120 * 120 / 117, 0])
    assert between == pytest.approx([0, np.var([0, 0.5, 1], ddof=1) / 3])
    grouped, _ = fold_variances(within[None], np.arange(120) // 2, folds)  # a group has one of each
    assert grouped == pytest.approx([0])


def test_a_fold_is_the_images_of_the_same_repeats():
    """Repeats 0 and 2 hold out the same fold: an image has the mean of their predictions."""
    predicts = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
    outcomes = Outcomes(np.array([[1, 0, 0], [0, 0, 1], [1, 1, 0]], bool), predicts, np.arange(3))
    assert outcomes.by_image.tolist() == [[1, 0.5, 1]]
    assert len(set(outcomes.folds[:2])) == 1 and outcomes.folds[2] != outcomes.folds[0]
    everything = replace(outcomes, predicts=np.ones((3, 3), bool))
    assert everything.by_image is outcomes.correct and not everything.folds.any()


def test_models_are_compared_on_the_folds_that_all_of_them_have():
    def predictions(repeats):
        """Of repeats that validate on folds of two images each."""
        probabilities = np.tile(np.float32([1, 0]), (repeats, 2 * repeats, 1))
        predicts = np.arange(2 * repeats) // 2 == np.arange(repeats)[:, None]
        groups = np.array([0, 0, 1, 1, 2, 2])[: 2 * repeats]
        return split_predictions(np.zeros(2 * repeats, int), probabilities, groups, predicts)

    common = common_outcomes(
        {"three": predictions(3), "two": predictions(2)},
        {"three": np.arange(6), "two": np.arange(2, 6)},
        {"three": 0, "two": 1},
    )
    assert [part.correct.shape for part in common.values()] == [(2, 4), (2, 4)]
    assert common["three"].groups.tolist() == common["two"].groups.tolist() == [0, 0, 1, 1]
    assert (common["three"].best_repeat, common["two"].best_repeat) == (0, 1)


def folds_of(**folds) -> dict:
    """Records of models with these folds, a repeat for each."""
    return {
        model: model_record(model, "network", folds=of_model, repeats=len(of_model))
        for model, of_model in folds.items()
    }


@pytest.mark.parametrize(
    ("folds", "models", "chosen"),
    [
        ({"a": [0, 1, 2], "b": [0, 1, 2], "c": [0, 1, 2]}, "abc", [0, 1, 2]),
        ({"a": [0, 1, 2], "b": [0, 1, 2], "c": [0]}, "ab", [0, 1, 2]),
        ({"a": [0, 1, 2], "b": [0]}, "ab", [0]),
        ({"a": [0, 1, 2], "b": [1, 2, 1], "c": [2, 1, 2]}, "abc", [1, 2]),
        ({"a": [0, 1], "b": [1, 2], "c": [0, 2]}, "ac", [0]),
        ({"a": [0], "b": [1]}, "a", [0]),
        ({"a": [0], "b": [1], "c": [1]}, "bc", [1]),
        ({"a": [0, 0, 0]}, "a", [0]),
    ],
)
def test_models_are_compared_on_the_folds_with_the_most_comparisons(folds, models, chosen):
    compared = compared_folds(folds_of(**folds), [200, 200, 200])
    assert (compared.models, compared.folds) == ([*models], chosen)
    assert compared.left_out == [model for model in folds if model not in models]


def test_a_model_that_is_left_out_or_limits_the_others_is_named_with_what_to_do():
    records = folds_of(a=[0, 1, 2], b=[0, 1, 2], scratch=[0], head=[3, 3, 3])
    compared = compared_folds(records, [200] * 4)
    assert left_out_sentences(compared, records) == [
        "scratch validated on 1 of the 3 folds of the other models, so it is not part of the choice. Set the "
        "repeats of scratch to 3 to validate on all of them.",
        "head validated on no fold of the other models, so it is not part of the choice. The backbone of head has "
        "trained on the images of the other folds; use one that has not.",
    ]
    assert limiting_sentences(compared, records) == []
    records = folds_of(a=[0, 1, 2], scratch=[0])
    assert limiting_sentences(compared_folds(records, [200] * 3), records) == [
        "The models are compared on 1 of 3 folds, because scratch did not validate on all of them. Set the "
        "repeats of scratch to 3 to validate on all of them."
    ]


# The sentences


def test_the_verdict_says_what_to_take_how_sure_and_what_others_offer():
    noisy = right(176)
    noisy[[0, 1, 190, 195, 199]] ^= True
    outcomes = outcomes_of(large=right(180), medium=noisy, small=right(120))
    costs = costs_of(large=(900, 60), medium=(100, 60), small=(50, 20))
    assert choose(outcomes, costs, 0.02, 0, 500).recommended == "medium"
    headline, certainty, reason, accurate, alternative = verdict_of(outcomes, costs, margin=2)
    assert headline == (
        "medium is recommended: validation accuracy 88.5 %, test accuracy 88.5 % (95 % interval 78.5 to 93.5), 10.3 s "
        "of training, with what it is built on, 4.5 ms per image."
    )
    assert reason == (
        "medium is the cheapest of the 2 models within 2 points of the highest validation accuracy (large, 90.0 %)."
    )
    assert certainty.startswith(
        "The evidence is moderate: the probability that medium is within 2 points of the best of these models is about "
    )
    assert " %, as far as 200 validation images can tell. Its expected shortfall is 1.8 points; the smallest is " in (
        certainty
    )
    assert certainty.endswith(
        " points, of large. Each model was trained once, so this does not include how another training would change it."
    )
    assert accurate.startswith(
        "The most accurate alternative, large, scored 1.5 points higher than medium on the validation images (95 % "
        "interval -"
    )
    assert "; it needs 9 times as many multiply-adds in use and about as many in training. " in accurate
    assert accurate.endswith(
        "The validation images cannot distinguish the two; to detect a difference of 2 points (80 % power) you would "
        "need about 880 validation images or more."
    )
    assert alternative.startswith(
        "The cheapest alternative, small, scored 28.5 points lower than medium on the validation images (95 % interval "
    )
    assert alternative.endswith("; it needs 50 % as many multiply-adds in use and 33 % as many in training.")


def test_weak_evidence_is_called_weak():
    """Of five equally good models, the cheapest is hardly sure to be within a tenth of a point of the best."""
    random = np.random.default_rng(0)
    outcomes = outcomes_of(**{name: right(160)[random.permutation(200)] for name in "abcde"})
    sentences = verdict_of(outcomes, {name: MultiplyAdds(1, 1) for name in "abcde"}, margin=0.1)
    assert sentences[0].startswith(
        "No model is clearly the best. For now, a is recommended: validation accuracy 80.0 %"
    )
    assert sentences[1].startswith(
        "The evidence is weak: the probability that a is within 0.1 points of the best of these models is only about "
    )
    assert "points, the smallest of all." in sentences[1]


def test_the_cheapest_alternative_has_its_number_of_images_too():
    outcomes = outcomes_of(large=right(180), small=np.roll(right(176), 10))
    costs = costs_of(large=(900, 60), small=(50, 20))
    both = outcomes_of(large=right(180), middle=right(179), small=np.roll(right(176), 10))
    for sentence in (
        verdict_of(outcomes, costs)[3],
        verdict_of(both, {**costs, "middle": MultiplyAdds(900, 60)})[4],
    ):
        assert "heapest alternative, small, scored 2.0 points lower than large" in sentence
        assert sentence.endswith(
            "; to detect this difference (80 % power) you would need about 1,600 validation images or more."
        )


def test_models_with_several_repeats_on_one_common_fold_were_not_trained_once():
    outcomes, costs = outcomes_of(a=right(180), b=right(100)), costs_of(a=(1, 1), b=(1, 1))
    evidence = Evidence(metrics_of(outcomes, costs), outcomes, compare_models(outcomes, 0), 1.0)
    evidence.metrics["a"]["training"]["repeats"] = 3
    sentence = verdict(choose(outcomes, costs, 0.01, 0, 100), evidence)[1]
    assert "trained once" not in sentence
    assert sentence.endswith(
        " Only one repeat of each model predicted these images, so this does not include how repeats differ."
    )


def test_the_best_model_is_recommended_if_no_other_is_within_the_margin():
    outcomes = outcomes_of(best=right(190), rest=right(150))
    sentences = verdict_of(outcomes, costs_of(best=(5, 5), rest=(5, 5)))
    assert sentences[2] == "best has the highest validation accuracy, and no other model is within 1 point of it."
    assert sentences[1].startswith(
        "The evidence is strong: the probability that best is within 1 point of the best of these models is more than "
        "99 %, "
    )
    assert "Its expected shortfall is 0.0 points, the smallest of all." in sentences[1]
    assert "cannot" not in sentences[3]
    assert sentences[4] == (
        "No other model is cheaper in use; no other model is cheaper to train, with what it is built on."
    )
    cheap = verdict_of(outcomes, costs_of(best=(5, 5), rest=(5, 1)))
    assert (
        cheap[3].startswith("The most accurate and cheapest alternative, rest, scored 20.0 points lower than best")
        and len(cheap) == 4
    )


def test_the_cheapest_model_may_be_the_best_too():
    outcomes = outcomes_of(a=right(181), b=right(180), c=right(180))
    sentences = verdict_of(outcomes, costs_of(a=(1, 1), b=(5, 5), c=(9, 9)))
    assert sentences[2] == (
        "a has the highest validation accuracy, and is the cheapest of the 3 models within 1 point of the highest "
        "validation accuracy."
    )
    assert "cannot distinguish the two" in sentences[3]


@pytest.mark.parametrize(
    ("others", "names", "them"),
    [
        ({"b": right(180), "c": right(100)}, "", ""),
        ({"b": np.roll(right(177), 20), "c": right(100)}, "b", "it"),
        ({"b": np.roll(right(177), 20), "c": np.roll(right(176), 30)}, "b, c", "them"),
        ({name: np.roll(right(177), 20) for name in "bcdefg"}, "6 of the 7 models", "them"),
    ],
)
def test_models_outside_the_margin_that_may_be_as_good_are_named(others, names, them):
    outcomes = outcomes_of(a=right(181), **others)
    sentences = verdict_of(outcomes, {name: MultiplyAdds(1, 1) for name in outcomes})
    expected = (
        f"{names} scored lower than the margin allows, but the validation images cannot distinguish {them} from a."
    )
    assert [sentence for sentence in sentences if "than the margin allows" in sentence] == ([expected] if names else [])


def test_the_folds_that_no_model_has_validated_on_are_advised_if_the_evidence_is_not_strong():
    """With the images of three of five folds."""

    def advice(outcomes, folds):
        evidence = Evidence(metrics_of(outcomes, costs), outcomes, compare_models(outcomes, 0), 1.0, folds)
        sentences = verdict(choose(outcomes, costs, 0.01, 0, 100), evidence)
        return [sentence for sentence in sentences if "More repeats" in sentence]

    costs = costs_of(a=(1, 1), b=(5, 5))
    unsure, sure = outcomes_of(a=right(180), b=np.roll(right(180), 30)), outcomes_of(a=right(190), b=right(100))
    assert advice(unsure, (5, 3)) == [
        "More repeats would make this surer: the models are compared on 3 of the 5 folds of the task. With 5 "
        "repeats there would be about 333 validation images instead of 200."
    ]
    assert advice(unsure, (5, 5)) == advice(sure, (5, 3)) == []


def test_with_margin_0_the_best_is_recommended_whatever_it_costs():
    outcomes = outcomes_of(a=right(181), b=right(180))
    sentences = verdict_of(outcomes, costs_of(a=(900, 900), b=(1, 1)), margin=0)
    assert sentences[0].startswith("a is recommended")
    assert sentences[2] == "a has the highest validation accuracy."
    assert " that a is the best of these models" in sentences[1]
    assert sentences[3].endswith(
        "to detect this difference (80 % power) you would need about 1,600 validation images or more."
    )


@pytest.mark.parametrize("margin", [0, 1])
def test_of_two_equal_models_the_cheaper_one_is_recommended(margin):
    outcomes = outcomes_of(a=right(180), b=right(180))
    sentences = verdict_of(outcomes, costs_of(a=(9, 9), b=(1, 1)), margin=margin)
    assert sentences[0].startswith("b is recommended")
    assert " is more than 99 %, " in sentences[1]
    assert sentences[3].startswith(
        "The most accurate alternative, a, scored the same as b on the validation images (95 % interval 0.0 to 0.0 "
        "points)"
    )


def test_what_images_cannot_tell_is_measured_by_the_margin():
    """A difference of half a point: any within 1 point does not matter, but it may be larger than it looks."""
    random = np.random.default_rng(3)
    first = random.random(200) < 0.8
    second = first.copy()
    second[np.flatnonzero(first)[:12]] = False
    second[np.flatnonzero(~first)[:11]] = True
    outcomes, costs = outcomes_of(a=first, b=second), costs_of(a=(1, 1), b=(9, 9))
    sentence = verdict_of(outcomes, costs)[3]
    assert sentence.endswith(
        "; to detect a difference of 1 point (80 % power) you would need about 9,100 validation images or more."
    )
    assert "distinguish the two, and the difference is within the margin." in verdict_of(outcomes, costs, margin=20)[3]
    assert verdict_of(outcomes_of(a=first, b=first), costs, margin=0)[3].endswith(
        "The validation images cannot distinguish the two."
    )


def test_if_all_models_are_at_chance_none_is_recommended():
    outcomes = outcomes_of(a=right(101), b=right(100))
    sentences = verdict_of(outcomes, costs_of(a=(1, 1), b=(2, 2)), majority=0.5)
    assert sentences[0].startswith(
        "No model can be recommended: the validation images do not show that any is better than always predicting the "
        "largest class. The first choice would be a: "
    )
    assert sentences[1:] == ["Look at the labels, the learning rates and the warnings before you compare costs."]


@pytest.mark.parametrize("majority", [0.1, 0.9])
def test_an_only_model_is_not_compared(majority):
    sentences = verdict_of(outcomes_of(a=right(100)), costs_of(a=(1, 1)), majority=majority)
    assert sentences[0] == (
        "a is the only model of this task: validation accuracy 50.0 %, test accuracy 50.0 % (95 % interval 40.0 to "
        "55.0), 10.3 s of training, with what it is built on, 4.5 ms per image."
    )
    assert len(sentences) == (2 if majority > 0.5 else 1)
    left_out = verdict_of(outcomes_of(a=right(100)), costs_of(a=(1, 1)), majority=majority, left_out=["b"])
    assert left_out[0].startswith(
        "No model can be recommended: no two models of this task validated on the same images. The first choice would "
        "be a: validation accuracy 50.0 %"
    )


@pytest.mark.parametrize(
    ("costs", "sentence"),
    [
        ({"b": (95, 150)}, "In use, the cheapest model is b, within a factor of 1.2 of a, which counts as the same; "
         "no other model is cheaper to train, with what it is built on."),
        ({"b": (100, 100)}, "No other model is cheaper in use; no other model is cheaper to train, with what it is "
         "built on."),
        ({"b": (500, 1)}, "No other model is cheaper in use; to train, b is cheaper, but it needs 5 times as many "
         "multiply-adds in use."),
        ({"b": (90, 99), "c": (95, 98)}, "In use, the cheapest model is b, within a factor of 1.2 of a, which counts "
         "as the same; to train, the cheapest model is c, within a factor of 1.2 of a, which counts as the same."),
    ],
)  # fmt: skip
def test_if_no_model_counts_as_cheaper_those_that_cost_less_are_named(costs, sentence):
    models = costs_of(a=(100, 100), **costs)
    assert not any(is_cheaper(models[other], models["a"]) for other in costs)
    assert none_is_cheaper("a", models) == sentence


def test_base_networks_that_are_most_of_the_training_are_named_once():
    costs = costs_of(scratch=(9, 100), ridge=(9, 1000), head=(9, 1100), small=(9, 1000))
    bases = {"scratch": {}, "ridge": {"base": 990}, "head": {"base": 990}, "small": {"base": 10}}
    assert base_network_sentences(costs, bases) == [
        "Of the training cost of ridge, head, at least 90 % is the base network base, which this study trains anyway."
    ]
    assert base_network_sentences(costs, {"ridge": {"base": 990, "below": 5}}) == [
        "Of the training cost of ridge, 99 % is the base networks base, below, which this study trains anyway."
    ]
    assert base_network_sentences(costs, {"scratch": {}}) == []


def test_the_choice_is_named_that_would_be_made_if_the_base_networks_cost_nothing():
    outcomes = outcomes_of(scratch=right(180), ridge=right(181), head=right(181))
    costs = costs_of(scratch=(9, 100), ridge=(9, 1000), head=(9, 1100))

    def second(bases):
        evidence = Evidence(metrics_of(outcomes, costs), outcomes, compare_models(outcomes, 0), 1.0, bases=bases)
        choice = choose(outcomes, costs, 0.01, 0, 100)
        assert choice.recommended == "scratch"
        return verdict(choice, evidence)[1]

    assert second({"scratch": {}, "ridge": {"base": 995}, "head": {"base": 995}}) == (
        "This depends on the cost of training base, on which other models are built. If you train base anyway, take "
        "ridge: validation accuracy 90.5 %; apart from base, it needs about as many multiply-adds in use and 5 % as "
        "many in training as scratch."
    )
    assert second({"scratch": {}, "ridge": {"base": 500}, "head": {"base": 500}}).startswith("The evidence is ")
    assert second({"scratch": {"base": 90}, "ridge": {"base": 995}}).startswith("The evidence is ")


def test_enough_images_show_a_difference():
    """In 80 % of studies with as many images as needed, by the paired test."""
    random = np.random.default_rng(0)

    def study(images):
        shared = random.random(images)
        return outcomes_of(a=shared + 0.3 * random.random(images) < 1.05, b=shared + 0.3 * random.random(images) < 1.0)

    large = study(200_000)
    difference = large["a"].by_image.mean() - large["b"].by_image.mean()
    needed = images_needed(*large.values(), difference)
    found = 0
    for _ in range(300):
        a, b = (part.by_image for part in study(round(needed)).values())
        (error,), (degrees,) = standard_errors({"a": a, "b": b}, np.arange(round(needed)))
        found += student(a.mean() - b.mean(), error, degrees)[2] < 0.05
    assert found / 300 == pytest.approx(0.8, abs=0.07)
    assert images_needed(*large.values(), difference / 2) == pytest.approx(4 * needed)


def pair(a, b, difference, distinguishable, low=None):
    p = 0.001 if distinguishable else 0.4
    low = difference - 0.02 if low is None else low
    return Comparison(a, b, difference, low, difference + 0.03, p, p, distinguishable, 0, 0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("cost", "other", "words"),
    [
        ((70, 70), (10, 10), "7 times as many multiply-adds in use and in training"),
        ((10, 10), (70, 70), "14 % as many multiply-adds in use and in training"),
        ((11, 1), (10, 10), "about as many multiply-adds in use and 10 % as many in training"),
        ((12_345, 0), (1, 0), "12,345 times as many multiply-adds in use and about as many in training"),
    ],
)
def test_costs_beside_those_of_another_model(cost, other, words):
    assert relative_cost(MultiplyAdds(*cost), MultiplyAdds(*other)) == words


def test_the_sentences_on_the_test_images_compare_with_the_recommended_model():
    outcomes = outcomes_of(v=right(100), w=right(100), x=right(180), y=right(160), z=right(120))
    choice = choose(outcomes, costs_of(v=(1, 1), w=(1, 1), x=(1, 1), y=(2, 2), z=(3, 3)), 0.01, 0, 50)
    assert choice.recommended == "x"
    test = [
        pair("y", "x", -0.1, False), pair("x", "z", 0.05, True), pair("y", "z", 0.3, True), pair("w", "x", 0.021, True),
        pair("v", "x", 0.0, False),
    ]  # fmt: skip
    assert sentences_on_test(choice, test) == [
        "Significantly more accurate than x: w, +2.1 points (95 % interval 0.1 to 5.1).",
        "Significantly less accurate than x: z, -5.0 points (95 % interval -8.0 to -3.0).",
        "Not significantly different from x, with p values corrected for 5 pairs: v, +0.0 points (95 % interval -2.0 "
        "to 3.0); y, -10.0 points (95 % interval -12.0 to -7.0).",
    ]
    assert sentences_on_test(choice, test[2:3]) == []


def test_a_model_that_is_better_on_the_test_images_is_a_warning():
    choice = choose(outcomes_of(x=right(180), y=right(180)), costs_of(x=(1, 1), y=(2, 2)), 0.01, 0, 50)
    assert choice.recommended == "x"
    (warning,) = contradictions(choice, [pair("x", "y", -0.2, True)], 5, 5)
    assert warning.startswith("y is significantly better than the recommended x on the test images. The validation")
    assert warning.endswith(" Give the task a larger share for validation.")
    (warning,) = contradictions(choice, [pair("x", "y", -0.2, True)], 5, 3)
    assert warning.endswith(" Give the models more repeats: they are compared on 3 of the 5 folds of the task.")
    (warning,) = contradictions(choice, [pair("x", "z", -0.2, True)], 5, 3)
    assert warning.endswith("on the test images. It is not part of the choice.")
    assert contradictions(choice, [pair("x", "y", 0.2, True)], 5, 5) == []
    assert contradictions(choice, [pair("x", "y", -0.2, False)], 5, 5) == []


# The stages


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_study()


def results_of(params) -> dict[str, bytes]:
    evaluate.main(params)
    compare.main(params)
    return report_files()


def test_other_seconds_change_no_recommendation_and_no_number_but_seconds(params):
    before = results_of(params)
    for number, name in enumerate(records()):
        result = read_result(name)
        in_use = InferenceTime(9.0 / (1 + number), 0.2)
        cost = replace(result.cost, seconds=1000.0 / (1 + number), images_per_second=0.5 + number, inference=in_use)
        write_result(replace(result, cost=cost))
    write_cost("features", "f", FeaturesCost(1.0, 0.01, MACHINE, {"flatten": InferenceTime(0.3, 0.3)}))
    after = results_of(params)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "reports/metrics.json", "reports/models.csv", *(f"reports/summary/{name}.json" for name in records()),
        "reports/comparisons.json",
    }  # fmt: skip
    old, new = (json.loads(files["reports/comparisons.json"]) for files in (before, after))
    for task in ("a", "b"):
        headlines = [content[task]["verdict"].pop(0) for content in (old, new)]
        assert len({re.sub(r"[\d.]+ \w+ of training.*", "", headline) for headline in headlines}) == 1
    assert old == new
    old, new = (json.loads(files["reports/metrics.json"]) for files in (before, after))
    for model, values in old.items():
        different = {key for key, cost in values["cost"].items() if cost != new[model]["cost"][key]}
        assert different == {
            *("seconds", "total_seconds", "images_per_second"), *("milliseconds_per_image", "batch_images_per_second"),
        }  # fmt: skip
        assert {**values, "cost": None} == {**new[model], "cost": None}


def test_the_margin_of_the_study_decides(params):
    evaluate.main(params)
    tables = {}
    for margin in (1, 0, 100, 1.2345678):
        write_margin(margin)
        compare.main(params)
        tables[margin] = json.loads(Path("reports/comparisons.json").read_text())["b"]
    assert [table["margin"] for table in tables.values()] == [1, 0, 100, 1.2345678]
    assert tables[0]["recommended"] == tables[0]["best_on_validation"]
    assert tables[100]["candidates"] == ["b-net", "b-head", "b-tune"]
    assert {*tables[0]["candidates"]} < {*tables[100]["candidates"]}
    for wrong in ("", "[]", "one"):
        Path("data/margin").write_text(wrong)
        with pytest.raises(UserError, match=r"data/margin is damaged .* Delete it and run `dvc repro`\."):
            compare.main(params)


def test_a_model_on_fewer_folds_is_named_and_does_not_shrink_the_verdict(params):
    """b-net validated on fold 0, the other models of its task on three folds of 120 images."""
    task = read_task("b")
    folds = np.where(task.table["split"] == "train", 1 + np.arange(600) // 120, task.table["fold"])
    write_task(replace(task, table=task.table.assign(fold=folds)), NO_NEAR_DUPLICATES)
    for name, of_model in (("b-net", [0]), ("b-head", [0, 1, 2]), ("b-tune", [0, 1, 2])):
        record = replace(read_result(name).record, folds=of_model, repeats=len(of_model), epochs=[3] * len(of_model))
        write_result(make_result(record, 0.4 if name == "b-head" else 0.9, 1.0))
    files = {Path(name).stem: content for name, content in results_of(params).items()}
    content, metrics = json.loads(files["comparisons"])["b"], json.loads(files["metrics"])
    assert content["recommended"] == "b-tune" and {*content["expected_shortfalls"]} == {"b-head", "b-tune"}
    sentence = (
        "b-net validated on 1 of the 3 folds of the other models, so it is not part of the choice. Set the "
        "repeats of b-net to 3 to validate on all of them."
    )
    assert sentence in content["verdict"] and sentence in content["warnings"]
    assert "as far as 360 validation images can tell" in content["verdict"][1]
    assert sum(json.loads(files["study"])["tasks"]["b"]["images"]["validation"]) == 360
    accuracy = metrics["b-tune"]["validation"]["accuracy"]
    assert f"b-tune is recommended: validation accuracy {100 * accuracy:.1f} %" in content["verdict"][0]
    assert {(pair["a"], pair["b"]) for pair in content["validation"]} == {("b-head", "b-tune")}
    assert len(content["test"]) == len(content["verdict_on_test"]) + 1 == 3
    report.main(params)
    assert sentence in Path("reports/report.md").read_text(encoding="utf-8")
