import base64
import html
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from stages import compare, evaluate, report
from stages.artifacts.models import Candidate, Predictions, read_result
from stages.artifacts.tasks import read_task, write_task
from stages.core.errors import UserError
from stages.core.params import Params
from stages.evaluation.candidates import describe_candidates
from stages.evaluation.comparisons import bootstrap_interval, compare_models, mcnemar, resampled_accuracies
from stages.evaluation.costs import Lineage, images_used, lineage
from stages.evaluation.folds import Outcomes
from stages.evaluation.metrics import compute_metrics, split_metrics
from stages.evaluation.predictions import SplitPredictions
from stages.evaluation.sanity import permutation_moments, shuffled_labels_p, split_mismatch
from stages.evaluation.tables import mean_curves
from stages.reporting.figures import draw_accuracy, recommendation, stacked
from stages.reporting.model_figures import draw_reliability
from stages.reporting.page import CALIBRATION, LEGENDS, cell, markdown, more_columns
from stages.reporting.point_labels import CHARACTER, LINE, RADIUS, Size, place_labels
from stages.reporting.sentences import calibration_sentence, split_sentence
from stages.reporting.style import TaskModels, line_style, line_styles
from stages.splitting.summary import split_warnings, summary_sentences
from tests.example_results import (
    CLASSES,
    NASTY,
    NO_NEAR_DUPLICATES,
    change_test_predictions,
    copy_model,
    features_record,
    fine_tune_record,
    head_record,
    make_result,
    make_task,
    records,
    report_files,
    split_predictions,
    write_result,
    write_study,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_study()


def evaluate_and_compare(params):
    evaluate.main(params)
    compare.main(params)


def read(name):
    return json.loads(Path(f"reports/{name}.json").read_text(encoding="utf-8"))


def read_page():
    return Path("reports/report.html").read_text(encoding="utf-8")


def read_markdown():
    return Path("reports/report.md").read_text(encoding="utf-8")


# Metrics


def metrics_of(labels, probabilities, seed=None):
    predictions = split_predictions(labels, probabilities)
    return split_metrics(predictions, compute_metrics(predictions, seed))


def predictions_with(correct) -> SplitPredictions:
    """Predictions for images of one class of two; correct: (repeats, n) bool."""
    return split_predictions(np.zeros(correct.shape[1], int), np.stack([correct, ~correct], axis=2).astype(np.float32))


def compare_correct(correct, best_repeat=0, seed=0):
    """Compare models; correct: model -> (repeats, n) bool."""
    outcomes = {
        name: Outcomes(values, np.ones(values.shape, bool), np.arange(values.shape[1]), best_repeat)
        for name, values in correct.items()
    }
    return compare_models(outcomes, seed)


def bootstrap_difference(a, b, seed, resamples=10_000):
    accuracies = resampled_accuracies({"a": a, "b": b}, np.arange(a.shape[1]), seed, resamples)
    return bootstrap_interval(accuracies["a"] - accuracies["b"])


def candidate(**values) -> Candidate:
    return Candidate(epochs=3, **values)


def test_what_a_model_was_chosen_from_is_one_sentence():
    candidates = [
        candidate(learning_rate=rate, l2=l2, validation_loss=loss, validation_accuracy=0.5, chosen=loss == 0.5)
        for rate, l2, loss in ((0.01, 0.001, 0.75), (0.1, 0.001, 0.5), (1.0, 0.1, None))
    ]
    assert describe_candidates("my-head", candidates) == (
        "my-head uses learning rate 0.1 and l2 0.001: of 3 pairs, this had the lowest validation loss in the first "
        "repeat (0.500; the others 0.750, 1 not finite)."
    )


@pytest.mark.parametrize(
    ("losses", "chosen", "shown", "edge"),
    [
        ({0.1: 0.3, 1: 0.2, 10: 0.25, 100: 0.5}, 1, "0.200; the others 0.250 to 0.500", ""),
        ({1: 1.0, 2: 1.5}, 1, "1.000; the other 1.500", ""),
        ({1: 1.0, 2: 1.5, 3: 1.5}, 1, "1.000; the others 1.500", "lowest l2 of the list: lower"),
        ({1: 3.0, 2: 2.0, 3: 1.0}, 3, "1.000; the others 2.000 to 3.000", "highest l2 of the list: higher"),
        ({0: 1.0, 2: 2.0, 3: 3.0}, 0, "1.000; the others 2.000 to 3.000", ""),
        ({1: None, 2: None}, 1, "not finite; the other not finite", ""),
    ],
)
def test_a_chosen_value_at_the_edge_of_its_list_is_reported(losses, chosen, shown, edge):
    solved = [
        candidate(learning_rate=None, l2=l2, validation_loss=loss, validation_accuracy=1, chosen=l2 == chosen)
        for l2, loss in losses.items()
    ]
    assert describe_candidates("probe", solved) == (
        f"probe uses l2 {chosen}: of {len(losses)} values, this had the lowest validation loss in the first repeat "
        f"({shown})." + (f" This is the {edge} ones may be better." if edge else "")
    )


@pytest.mark.parametrize(("chosen", "edge"), [(1, False), (5, False), (10, True)])
def test_one_neighbor_is_no_edge_of_a_list(chosen, edge):
    solved = [
        candidate(
            learning_rate=None,
            l2=None,
            neighbors=number,
            validation_loss=0.1 if number == chosen else 0.2,
            validation_accuracy=1,
            chosen=number == chosen,
        )
        for number in (1, 5, 10)
    ]
    sentence = describe_candidates("probe", solved)
    assert sentence.startswith(f"probe uses number of neighbors {chosen}: of 3 values, ")
    assert ("highest number of neighbors of the list" in sentence) == edge and "lowest number" not in sentence


@pytest.mark.parametrize("classes", [2, 5, 7])
def test_metrics_agree_with_scikit_learn(classes):
    random = np.random.default_rng(classes)
    labels = np.r_[np.arange(classes), random.integers(0, classes, 80)]
    probabilities = random.dirichlet(np.ones(classes), (3, len(labels))).astype(np.float32)
    metrics = metrics_of(labels, probabilities)
    predicted = probabilities.argmax(2)
    accuracies = [sk.accuracy_score(labels, repeat) for repeat in predicted]
    assert metrics["accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert metrics["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1), abs=1e-6)
    for key, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        expected = np.mean([score(labels, repeat, average="macro", zero_division=0) for repeat in predicted])
        assert metrics[f"macro_{key}"] == pytest.approx(expected, abs=1e-6)
    assert metrics["loss"] == pytest.approx(
        np.mean([sk.log_loss(labels, repeat) for repeat in probabilities]), abs=1e-5
    )
    assert metrics["majority_rate"] == pytest.approx(np.bincount(labels).max() / len(labels), abs=1e-6)
    if classes > 5:
        expected = np.mean([sk.top_k_accuracy_score(labels, repeat, k=5) for repeat in probabilities])
        assert metrics["top5_accuracy"] == pytest.approx(expected, abs=1e-6)
    else:
        assert "top5_accuracy" not in metrics


def test_the_accuracy_interval_is_wilsons():
    """7 of 10 correct: 0.397 to 0.892 (Wilson 1927)."""
    labels = np.zeros(10, int)
    probabilities = np.where(np.arange(10)[:, None] < 7, [0.9, 0.1], [0.1, 0.9])[None]
    metrics = metrics_of(labels, probabilities)
    assert (metrics["accuracy_low"], metrics["accuracy_high"]) == (
        pytest.approx(0.3968, abs=1e-4), pytest.approx(0.8922, abs=1e-4),
    )  # fmt: skip
    assert metrics["accuracy_std"] is None


def test_a_repeat_without_finite_probabilities_counts_as_wrong():
    labels = np.array([0, 1, 2, 0])
    metrics = metrics_of(labels, np.stack([np.eye(3)[labels], np.full((4, 3), np.nan)]))
    assert metrics["accuracy"] == 0.5
    assert metrics["macro_recall"] == 0.5
    assert metrics["loss"] is None


# Comparisons


def test_the_bootstrap_does_not_distinguish_a_model_from_itself():
    correct = np.random.default_rng(0).random((3, 200)) < 0.8
    low, high, p = bootstrap_difference(correct, correct, seed=0)
    assert low <= 0 <= high
    assert p > 0.5


def test_the_bootstrap_interval_of_one_repeat_agrees_with_the_normal_interval():
    random = np.random.default_rng(1)
    a, b = random.random((1, 2000)) < 0.8, random.random((1, 2000)) < 0.75
    low, high, _ = bootstrap_difference(a, b, seed=0)
    difference = a[0].astype(float) - b[0]
    half = 1.96 * difference.std() / np.sqrt(2000)
    assert low == pytest.approx(difference.mean() - half, abs=0.002)
    assert high == pytest.approx(difference.mean() + half, abs=0.002)


def test_the_bootstrap_interval_widens_with_the_spread_over_repeats():
    """One repeat is always correct and one always wrong: the difference could be anything."""
    a = np.stack([np.ones(500, bool), np.zeros(500, bool)])
    low, high, p = bootstrap_difference(a, np.arange(500)[None] % 2 == 0, seed=0)
    assert low < -0.4
    assert high > 0.4
    assert p > 0.05


def test_the_bootstrap_draws_one_repeat_less_than_there_are():
    """Repeats differ, images do not. Of 3 repeats 2 are drawn; both are correct with probability (2 / 3)**2."""
    a = np.repeat([[True], [True], [False]], 50, axis=1)
    b = np.ones((1, 50), bool)
    low, high, p = bootstrap_difference(a, b, seed=0, resamples=20_000)
    assert (low, high) == (-1.0, 0.0)
    assert p == pytest.approx(2 * 4 / 9, abs=0.02)


def test_a_comparison_does_not_depend_on_other_models():
    random = np.random.default_rng(5)
    correct = {name: random.random((repeats, 100)) < 0.7 for name, repeats in (("x", 2), ("y", 3), ("z", 1))}
    expected = bootstrap_difference(correct["x"], correct["y"], seed=4)
    accuracies = resampled_accuracies({"z": correct["z"], "b": correct["y"], "a": correct["x"]}, np.arange(100), 4)
    assert bootstrap_interval(accuracies["a"] - accuracies["b"]) == expected


def test_different_models_are_distinguishable_and_equal_ones_are_not():
    random = np.random.default_rng(2)
    correct = {name: random.random((2, 400)) < accuracy for name, accuracy in (("x", 0.9), ("y", 0.5), ("z", 0.9))}
    pairs = {(pair.a, pair.b): pair for pair in compare_correct(correct)}
    assert pairs["x", "y"].distinguishable
    assert pairs["x", "y"].difference > 0.3
    assert pairs["y", "z"].distinguishable
    assert pairs["y", "z"].difference < 0
    assert not pairs["x", "z"].distinguishable


def test_holm_correction_by_hand_is_monotone():
    random = np.random.default_rng(3)
    correct = {name: random.random((2, 300)) < 0.6 + 0.04 * number for number, name in enumerate("abcd")}
    pairs = sorted(compare_correct(correct, best_repeat=1), key=lambda pair: pair.p)
    running = 0.0
    for rank, pair in enumerate(pairs):
        running = max(running, min(1, (len(pairs) - rank) * pair.p))
        assert pair.p_holm == pytest.approx(running, abs=1e-5)
        assert pair.p_holm >= pair.p


def test_differences_of_many_models_can_be_significant():
    """Holm over 780 pairs needs p values far below 2 / 10,001."""
    perfect = np.ones((1, 60), bool)
    correct = {f"m{number}": perfect if number else ~perfect for number in range(40)}
    pairs = compare_correct(correct)
    assert all(pair.distinguishable == (pair.a == "m0") for pair in pairs)


def test_mcnemar_by_hand():
    """Only a is correct on 8 images, only b on 2: p = 2 * (45 + 10 + 1) / 2**10."""
    a = np.r_[np.ones(8, bool), np.zeros(2, bool), np.ones(5, bool)]
    b = np.r_[np.zeros(8, bool), np.ones(2, bool), np.ones(5, bool)]
    assert mcnemar(a, b) == (8, 2, pytest.approx(112 / 1024))
    assert mcnemar(a, a) == (0, 0, 1.0)


# Sanity


def test_two_groups_of_which_one_is_correct_are_compared():
    """Less than one effective image: neither a division by zero nor a warning."""
    labels = np.repeat([0, 1], 20)
    predictions = split_predictions(labels, np.tile(np.float32([1, 0]), (1, 40, 1)), groups=labels)
    metrics = split_metrics(predictions, compute_metrics(predictions))
    assert 0 < metrics["effective_images"] < 0.1
    assert split_mismatch(metrics, metrics) == []


def test_labels_are_shuffled_in_whole_groups():
    """Guesses that the 20 images of a group share: without groups they look like knowledge half the time."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 20)
    false_alarms = 0
    for seed in range(100):
        labels = np.repeat(random.permutation(np.arange(10) % 2), 20)
        guesses = np.eye(2, dtype=np.float32)[np.repeat(random.integers(0, 2, 10), 20)]
        predictions = split_predictions(labels, guesses[None], groups)
        false_alarms += shuffled_labels_p(predictions, predictions.predicted, seed) <= 0.01
    assert false_alarms <= 5
    perfect = split_predictions(labels, np.eye(2, dtype=np.float32)[labels][None], groups)
    assert shuffled_labels_p(perfect, perfect.predicted, 0) <= 0.02


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2), st.integers(-1, 2)), min_size=2, max_size=6))
def test_mean_and_variance_over_all_orders_of_the_labels(images):
    labels, predicted = np.array(images)[:, 0], np.array(images)[:, 1:].T
    share = np.array([1.0, 0.5, 0.25])
    sums = [
        ((predicted == shuffled) * share[shuffled]).sum() for shuffled in map(np.array, itertools.permutations(labels))
    ]
    expected = np.mean(sums), np.var(sums)
    np.testing.assert_allclose(permutation_moments(labels, predicted, share), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("classes", "per_class", "repeats"), [(2, 3, 1), (2, 47, 3), (2, 53, 1), (3, 2, 1), (3, 16, 1)]
)
def test_a_constant_prediction_has_learned_nothing(classes, per_class, repeats):
    labels = np.repeat(np.arange(classes), per_class)
    probabilities = np.tile(np.eye(classes, dtype=np.float32)[0], (repeats, len(labels), 1))
    predictions = split_predictions(labels, probabilities)
    assert shuffled_labels_p(predictions, predictions.predicted, 0) > 0.01


@pytest.mark.parametrize("accuracy", [0.1, 0.15, 0.2, 0.9])
def test_the_bound_without_shuffling_agrees_with_shuffling(accuracy, monkeypatch):
    random = np.random.default_rng(1)
    labels = random.integers(0, 10, 2000)
    predicted = np.where(random.random(2000) < accuracy, labels, random.integers(0, 10, 2000))
    predictions = split_predictions(labels, np.eye(10, dtype=np.float32)[predicted][None])
    p = shuffled_labels_p(predictions, predictions.predicted, 0)
    monkeypatch.setattr("stages.evaluation.sanity.permutation_moments", lambda *_: (np.inf, 0.0))
    shuffled = shuffled_labels_p(predictions, predictions.predicted, 0)
    assert shuffled == pytest.approx(1 / 1001)
    assert p <= shuffled
    assert (p < shuffled) == (accuracy > 0.5)


# Costs


def test_a_lineage_names_everything_once():
    study = records()
    study["b-tune"] = fine_tune_record("b-tune", study["b-head"], "conv4", features_record(cut="pool1"))
    parts = lineage("b-tune", study)
    assert parts == Lineage(["b-tune", "a-net", "b-head"], ["f"])
    assert parts.ancestors == ["a-net", "b-head", "f"]
    assert lineage("b-net", study) == Lineage(["b-net"], [])


def test_total_seconds_count_a_shared_part_once(params):
    evaluate.main(params)
    metrics = read("metrics")
    assert {name: metrics[name]["cost"]["total_seconds"] for name in metrics} == {
        "a-net": 10.0, "b-net": 5.0, "b-head": 2.0 + 7.2 + 10.0, "b-tune": 3.0 + 2.0 + 7.2 + 10.0,
    }  # fmt: skip


FLIPS = [{"flip": "horizontal"}] * 3


@pytest.mark.parametrize(
    ("cache", "views", "head_images", "tune_cache", "expected"),
    [
        ([], None, 240, None, 240 + 120),
        (FLIPS, None, 240, None, 4 * 240 + 120),
        (FLIPS, 2, 240, None, 2 * 240 + 120),
        (FLIPS, None, 240, "g", 4 * 240 + 120),
        (FLIPS, None, 30, None, 4 * 30 + 120),  # the fine-tune starts from images
        (FLIPS, None, 30, "f", 240 + 3 * 30 + 120),
    ],
)
def test_features_cost_as_much_as_the_images_that_a_model_takes_from_them(
    params, cache, views, head_images, tune_cache, expected
):
    """Training images in all views that the head trains on, and 120 validation images; the fine-tune has one view."""
    features = features_record(views=cache)
    head = head_record("b-head", features, train_images=head_images)
    head = replace(head, settings={**head.settings, "views": views})
    start = features_record(name=tune_cache, cut="pool1") if tune_cache else None
    study = {**records(), "b-head": head, "b-tune": fine_tune_record("b-tune", head, "conv4", start)}
    results = {name: make_result(record, 0.9, 1.0) for name, record in study.items()}
    assert images_used("f", lineage("b-tune", study), results) == expected
    if tune_cache == "g":
        assert images_used("g", lineage("b-tune", study), results) == 240 + 120


# The stages evaluate and compare


def test_evaluate_and_compare_write_equal_bytes_and_ignore_a_copied_model(params):
    evaluate_and_compare(params)
    first = report_files()
    assert {"reports/metrics.json", "reports/comparisons.json", "reports/pca.csv", "reports/summary/b-tune.json"} <= {
        *first
    }
    shutil.copytree("models/b-net", "models/copied-by-the-user")
    evaluate_and_compare(params)
    assert report_files() == first
    assert list(read("metrics")) == ["a-net", "b-net", "b-head", "b-tune"]


def test_a_model_of_a_removed_task_is_refused(params):
    without = Params({**params.content, "tasks": {"a": {}}})
    for folder in ("tasks", "gallery", "mistakes"):
        shutil.rmtree(f"data/{folder}/b")
    with pytest.raises(UserError, match=r"models/b-net: it was trained for task 'b', which is not in params.yaml"):
        evaluate.main(without)


def test_a_task_without_models_has_no_recommendation(params):
    evaluate_and_compare(Params({**params.content, "tasks": {"a": {}, "b": {}, "c": {}}}))
    assert read("recommended/c") == {"model": None, "sha256": {}}
    assert len(pd.read_csv("reports/mistakes/c.csv")) == 0
    recommended = read("recommended/b")
    assert recommended["model"] == read("comparisons")["b"]["recommended"]
    assert {*recommended["sha256"]} == {
        f"models/{recommended['model']}/{file}" for file in ("record.json", "weights/repeat-0.weights.h5")
    }


@pytest.mark.parametrize(("file", "content"), [("history.csv", ""), ("study.json", "{}"), ("metrics.json", "<<<<")])
def test_an_error_about_a_damaged_table_says_how_to_repair_it(params, file, content):
    evaluate_and_compare(params)
    Path("reports", file).write_text(content)
    with pytest.raises(UserError, match=r"^reports.* is damaged \(.*\)[;.] [dD]elete it and run `dvc repro`\.$"):
        report.main(params)


def test_evaluate_refuses_what_removed_entries_have_left_behind(params):
    copy_model("b-net", "stale")
    with pytest.raises(
        UserError,
        match=r"^data/costs/models/stale\.json and 1 other belong to entries that are no longer in params\.yaml \(",
    ):
        evaluate.main(params)


def test_compare_needs_metrics_of_all_models(params):
    evaluate_and_compare(params)
    Path("reports/metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"reports/metrics.json is damaged"):
        compare.main(params)


def task_models(accuracies, recommended, majority_rate=0.5) -> TaskModels:
    """Heads with a validation and a test accuracy each, with intervals of 2 points."""
    metrics = {
        name: {
            split: {
                "accuracy": value, "accuracy_low": value - 0.01, "accuracy_high": value + 0.01,
                "majority_rate": majority_rate,
            }
            for split, value in zip(("validation", "test"), values, strict=True)
        }
        for name, values in accuracies.items()
    }  # fmt: skip
    return TaskModels("b", line_styles([*metrics]), dict.fromkeys(metrics, "head"), metrics, recommended)


def test_the_figure_of_accuracy_is_about_the_recommended_model_in_the_order_of_the_table():
    models = task_models({"high": (0.9, 0.8), "cheap": (0.89, 0.95), "low": (0.6, 0.99)}, "cheap")
    repeats = {name: {split: [0.9, 0.9, 0.8] for split in ("validation", "test")} for name in models.styles}
    picture = draw_accuracy(models, repeats)
    validation, test = picture.figure.axes
    assert (validation.get_title(), test.get_title()) == ("validation accuracy", "test accuracy")
    labels = validation.get_yticklabels()
    assert [label.get_text() for label in labels] == ["cheap ✓", "high", "low"]
    assert validation.yaxis_inverted()
    assert picture.figure.get_suptitle() == "b: accuracy; cheap is recommended"
    assert "cheap 89.0 % and 95.0 %; high 90.0 % and 80.0 %" in picture.alt
    dots = [line.get_xydata() for line in validation.lines if line.get_marker() == "."]
    assert all(len(np.unique(points, axis=0)) == 3 for points in dots)  # equal values are stacked
    assert recommendation(task_models({"a": (0.5, 0.9), "b": (0.4, 0.9)}, "a")) == ""


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0, 0.5))
def test_stacked_values_on_one_level_keep_their_distance(values, width):
    values = sorted(values)
    levels = stacked(values, width)
    assert stacked(values, width) == levels
    for level in range(max(levels, default=-1) + 1):
        same = [value for value, its in zip(values, levels, strict=True) if its == level]
        assert same and all(after - before > width for before, after in itertools.pairwise(same))


@given(st.lists(st.tuples(st.floats(0.1, 3.7), st.floats(0.1, 1.9)), min_size=1, max_size=8))
def test_labels_of_points_overlap_neither_each_other_nor_a_point(points):
    size, labels = Size(3.8, 2.0), [f"model-{number}" for number in range(len(points))]
    boxes = [(x - RADIUS, x + RADIUS, y - RADIUS, y + RADIUS) for x, y in points]
    for (x, y), label in zip(place_labels(points, labels, size), labels, strict=True):
        width, height = CHARACTER * len(label) / 2, LINE / 2
        assert width <= x <= size.width - width + 1e-6 and height <= y <= size.height - height + 1e-6
        for left, right, bottom, top in boxes:
            overlap = min(x + width, right) - max(x - width, left), min(y + height, top) - max(y - height, bottom)
            assert min(overlap) < 1e-3
        boxes.append((x - width, x + width, y - height, y + height))


def test_reliability_has_no_points_of_few_images_and_the_same_axes_for_every_model():
    bins = pd.DataFrame(
        {"calibrated": [0, 0, 1, 1], "confidence": [0.35, 0.95] * 2, "accuracy": [1.0, 0.9] * 2, "images": [9, 91] * 2,
         "center": [0.35, 0.95] * 2}
    )  # fmt: skip
    picture = draw_reliability("m", bins, (0.031, None), line_style(0))
    accuracy, share = picture.figure.axes
    drawn = [line for line in accuracy.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in drawn] == [[0.95], [0.95]]
    assert drawn[0].get_markersize() > drawn[1].get_markersize() and drawn[0].get_markerfacecolor() == "none"
    assert [bar.get_height() for bar in share.patches] == pytest.approx([0.09, 0.91] * 2)
    for axes in (accuracy, share):
        assert axes.get_xlim() == (-0.02, 1.02) and axes.get_ylim()[1] == 1.02
    assert picture.alt == (
        "Reliability of m on the test images: calibration error 3.1 % before and unknown after calibration."
    )


def errors_of(**models):
    return {
        name: {"test": {"calibration_error": before, "calibrated_error": after}}
        for name, (before, after) in models.items()
    }


def test_the_page_says_which_models_calibration_made_worse():
    assert calibration_sentence(errors_of(a=(0.04, 0.02), b=(None, None))) == ""
    assert calibration_sentence(errors_of(a=(0.02, 0.04), b=(0.0401, 0.04), c=(0.05, 0.04))) == (
        "Calibration raised the calibration error of a on the test images, by 2.0 points."
    )
    many = errors_of(**{f"m{number}": (0.1, 0.2) for number in range(6)}, better=(0.2, 0.1))
    assert "of 6 of 7 models on the test images, by at most 10.0 points." in calibration_sentence(many)
    assert calibration_sentence(errors_of(a=(0.0401, 0.04), b=(None, None))) == (
        "Calibration changed nothing: the validation images do not show that the probabilities need it."
    )
    assert calibration_sentence(errors_of(a=(0.0401, 0.04), b=(0.05, 0.04))) == ""
    better = [cell(errors_of(a=(0.02, 0.04))["a"], f"test.{name}", "calibration").better for name in CALIBRATION]
    assert better == [True, False]
    assert not cell(errors_of(a=(0.0401, 0.04))["a"], "test.calibrated_error", "calibration").better


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ({"a": ([0], 89, 359, {})}, "359 train images, 89 validation images and 448 test images."),
        (
            {"a": ([0, 1, 2], 267, 50, {"max_train_per_class": 10}), "b": ([0], 89, 50, {"max_train_per_class": 10})},
            "3 folds of 89 validation images; 359 images outside a fold and the test part, of which 50 are used "
            "(max_train_per_class: 10); 448 test images.",
        ),
        (
            {"a": ([0, 1, 0], 177, 50, {"max_train_per_class": 10}), "b": ([0], 89, 359, {})},
            "2 folds of about 88 validation images; 359 images outside a fold and the test part, of which 50 to 359 "
            "are used; 448 test images.",
        ),
    ],
)
def test_the_page_says_how_many_images_are_used(models, sentence):
    task = {"images": {"train": [200, 159], "validation": [45, 44], "test": [224, 224]}}
    metrics = {
        name: {"validation": {"images": images}, "training": {"images": used}}
        for name, (_, images, used, _) in models.items()
    }
    facts = [{"folds": folds, "limits": limits} for folds, _, _, limits in models.values()]
    assert split_sentence(task, facts, metrics) == sentence


def test_the_order_of_the_predictions_does_not_matter(params):
    evaluate_and_compare(params)
    before = read("comparisons")
    test = read_result("b-head").predictions["test"]
    change_test_predictions("b-head", index=test.index[::-1], probabilities=test.probabilities[:, ::-1])
    evaluate_and_compare(params)
    assert read("comparisons") == before


@pytest.mark.parametrize("how", ["missing", "foreign", "twice", "validation"])
def test_predictions_of_the_wrong_images_are_refused(params, how):
    test = read_result("b-head").predictions["test"]
    index, probabilities, predicts = test.index.copy(), test.probabilities, test.predicts
    if how == "missing":
        index, probabilities, predicts = index[1:], probabilities[:, 1:], predicts[:, 1:]
    elif how == "foreign":
        index[0] = 5
    elif how == "twice":
        index[0] = index[1]
    else:
        index[0] = read_task("b").rows("validation")["index"].iloc[0]
    change_test_predictions("b-head", index=index, probabilities=probabilities, predicts=predicts)
    with pytest.raises(
        UserError, match=r"models/b-head: the test predictions do not belong to the current test images of task 'b'"
    ):
        evaluate.main(params)


def test_predictions_of_the_wrong_classes_are_refused(params):
    probabilities = read_result("b-head").predictions["test"].probabilities
    change_test_predictions("b-head", probabilities=probabilities[:, :, :2])
    with pytest.raises(UserError, match="task 'b' has 3 classes"):
        evaluate.main(params)


def test_a_subset_of_the_training_images_is_accepted(params):
    result = read_result("b-net")
    train = result.predictions["train"]
    subset = Predictions(train.index[:30], train.predicts[:, :30], train.probabilities[:, :30])
    write_result(replace(result, predictions={**result.predictions, "train": subset}))
    evaluate.main(params)
    assert read("metrics")["b-net"]["train"]["images"] == 30


def test_problems_of_the_split_are_warnings_at_the_top(params):
    task = read_task("b")
    summary = replace(
        task.summary,
        contradictions=2,
        first_contradictions=[{"name": "x/<1>.png", "class": NASTY}, {"name": "y/1.png", "class": "plain"}],
        unused={"test": [20, 13]},
    )
    write_task(replace(task, summary=summary), NO_NEAR_DUPLICATES)
    evaluate_and_compare(params)
    report.main(params)
    assert read("comparisons")["b"]["warnings"][:2] == split_warnings("b", summary)
    page = read_page().split('class="warning"')[1].split("</ul>")[0]
    for top in (page, read_markdown().split("## Task")[0]):
        assert "2 images have the same content as an image of another class" in top
        assert "13 of its 20 images are in other splits" in top
        assert "<script>alert" not in top


def test_problems_of_models_become_warnings(params, capsys):
    constant = np.zeros_like(read_result("b-head").predictions["test"].probabilities)
    constant[:, :, 0] = 1
    change_test_predictions("b-head", probabilities=constant)
    diverged = read_result("b-net").predictions["test"].probabilities.copy()
    diverged[1] = np.nan
    change_test_predictions("b-net", probabilities=diverged)
    result = read_result("b-tune")
    result.history.loc[1, "train_loss"] = np.nan
    write_result(result)

    evaluate_and_compare(params)
    warnings = "\n".join(read("comparisons")["b"]["warnings"])
    assert (
        "b-head: the test accuracy 33.3 % (95 % interval 27.7 to 39.5) is not significantly above 33.3 %, the accuracy "
        "of always predicting the largest class."
    ) in warnings
    assert "b-head: the test predictions fit the labels no better than shuffled labels" in warnings
    assert "b-head: it never predicts classes " in warnings
    assert "b-net: training diverged in repeat 2" in warnings
    assert "b-net: validation accuracy" in warnings  # half of its test predictions count as wrong
    assert "b-tune: the loss was not finite in some epoch of repeat 1" in warnings
    assert "b-tune: validation accuracy" not in warnings
    assert warnings.splitlines()[0] in capsys.readouterr().out
    assert read("comparisons")["a"]["warnings"] == []
    metrics = read("metrics")["b-net"]
    assert (metrics["test"]["loss"], metrics["training"]["diverged_repeats"]) == (None, 1)
    report.main(params)


def test_tables_have_the_predictions_and_training_curves_of_every_model(params):
    evaluate.main(params)
    models = ["a-net", "b-net", "b-head", "b-tune"]
    assert {path.stem for path in Path("reports/confusion").iterdir()} == set(models)
    confusion = pd.read_csv("reports/confusion/b-tune.csv")
    assert list(confusion.columns) == ["actual", "predicted"]
    best = read("study")["models"]["b-tune"]["accuracies"]["test"][0]
    assert (confusion["actual"] == confusion["predicted"]).mean() == pytest.approx(best, abs=1e-6)
    assert set(confusion["actual"]) == set(CLASSES)
    table = pd.read_csv("reports/models.csv").set_index("model")
    assert list(table.index) == models
    assert table.loc["b-tune", "kind"] == "fine-tune"
    assert table.loc["b-tune", "accuracy"] == read("summary/b-tune")["accuracy"]
    assert len(pd.read_csv("reports/curves.csv")) == len(models) * 3
    history = pd.read_csv("reports/history.csv")
    assert list(history.columns) == [
        "model", "repeat", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
    ]  # fmt: skip
    assert len(history) == len(models) * 2 * 3
    pca = pd.read_csv("reports/pca.csv")
    assert list(pca[["task", "features", "cut"]].drop_duplicates().iloc[0]) == ["b", "f", "flatten"]
    assert len(pca) == 20


def test_mean_curves_end_with_the_shortest_repeat():
    history = pd.DataFrame({"repeat": [0, 0, 0, 1, 1], "epoch": [1, 2, 3, 1, 2], "train_loss": [4.0, 2, 1, 6, 4]})
    assert mean_curves(history).to_dict("list") == {"epoch": [1, 2], "train_loss": [5.0, 3.0]}


# The stage report


def test_why_backbones_are_not_ranked_is_in_the_log_and_in_both_reports(params, monkeypatch, capsys):
    sentence = "The backbones are not ranked, because their probes are of different kinds (...)."
    monkeypatch.setattr(compare, "screen", lambda *_: {"screen": [], "screen_sentences": [sentence]})
    evaluate_and_compare(params)
    tasks = [*read("comparisons")]
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if sentence in line] == [f"{task}: {sentence}" for task in tasks]
    report.main(params)
    for page in (read_page(), read_markdown()):
        assert "Which backbone first" in page
        assert page.count(sentence) == len(tasks)
        assert LEGENDS["screen"] not in page


def test_the_report_reads_only_what_evaluate_and_compare_wrote(params):
    evaluate_and_compare(params)
    for folder in ("models", "data/tasks", "data/costs"):
        Path(folder).rename(f"away-{Path(folder).name}")
    report.main(params)
    page, text = read_page(), read_markdown()
    comparison = read("comparisons")["b"]
    for sentence in (*comparison["verdict"], *comparison["verdict_on_test"]):
        assert sentence in html.unescape(page)
    pictures = {path.name: path.read_bytes() for path in Path("reports/figures").iterdir()}
    assert {*pictures} == {
        "accuracy-b.png", "cost-b.png", "time-b.png", "curves-b.png", "pca-b.png",
        *(f"{kind}-{model}.png" for model in records() for kind in ("training", "confusion", "reliability")),
    }  # fmt: skip
    assert {*re.findall(r"\]\(figures/([^)]*)\)", text)} == {*pictures}
    embedded = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]+)">', page)
    assert {base64.b64decode(png) for png, _ in embedded} == {*pictures.values()}
    assert len(page) < 2_000_000


def test_the_report_has_the_notes_of_the_split_and_the_unreadable_files(params):
    evaluate_and_compare(params)
    report.main(params)
    page, text = read_page(), read_markdown()
    sentences = summary_sentences(make_task("b", 0).summary, "b", make_task("b", 0).dataset)
    assert len(sentences) == 2
    for sentence in sentences:
        assert f"<li>{sentence}</li>" in page
        assert f"- {markdown(sentence)}\n" in text
    assert '<div class="wrap">a/x|y.jpg</div></th><td class="word">&lt;empty&gt;</td>' in page


def test_the_page_has_the_metrics_of_each_class_for_every_model(params):
    evaluate_and_compare(params)
    report.main(params)
    page = read_page()
    for model in records():
        assert f'<a href="#model-{model}">{model}</a>' in page
        details = page[page.index(f'id="model-{model}"') :]
        table = details[details.index("<table") : details.index("</table>")]
        values = [float(value) for value in re.findall(r'data-value="([^"]*)"', table)]
        metrics = pd.read_csv(f"reports/classes/{model}.csv", keep_default_na=False)
        columns = ["images", "precision", "recall", "f1", "roc_auc", "calibration_error"]
        assert values == pytest.approx(metrics[columns].to_numpy().ravel())
        assert html.escape(NASTY) in table


def headers(table):
    return re.findall(r'<th scope="col"[^>]*><span[^>]*>([^<]*)</span>', table)


def test_the_main_table_is_narrow_and_no_table_repeats_a_column(params):
    evaluate_and_compare(params)
    report.main(params)
    page, text = read_page(), read_markdown()
    tables = [
        page[page.index(f'aria-label="{label} of b"') :].split("</table>")[0]
        for label in ("All models", "More metrics", "Cost of the models")
    ]
    main, more, costs = map(headers, tables)
    assert main == [
        "model", "kind", "test accuracy", "total time", "time per image", "size",
    ]  # fmt: skip
    assert {"validation accuracy", "calibration error", "after calibration"} < {*more}
    assert {"training throughput", "throughput in use"} < {*costs}
    main_table = page.index('aria-label="All models of b"')
    for label in ("More metrics", "Cost of the models"):  # behind a control
        assert page.rindex("<details>", 0, page.index(f'aria-label="{label} of b"')) > main_table
    columns = main + more[2:] + costs[2:]
    assert len({*columns}) == len(columns)
    for table in (main, more, costs):
        assert f"| {' | '.join(table)} |\n" in text
    recommended, *rest = re.findall(r'<a href="#model-([^"]*)"', tables[0])
    validation = [read("metrics")[model]["validation"]["accuracy"] for model in rest]
    assert recommended == read("comparisons")["b"]["recommended"]
    assert validation == sorted(validation, reverse=True) and len(rest) == 2
    for legend in (LEGENDS[key] for key in LEGENDS if key != "screen"):  # the study has one backbone with probes
        assert html.escape(legend) in page and markdown(legend) in text


@pytest.mark.parametrize(("classes", "has_top_5"), [(2, False), (6, False), (10, False), (11, True), (100, True)])
def test_top_5_accuracy_is_shown_with_more_than_ten_classes(classes, has_top_5):
    assert ("test top-5" in [header for header, *_ in more_columns(classes)]) == has_top_5


def test_the_pages_explain_their_words(params):
    evaluate_and_compare(params)
    report.main(params)
    page, text = (" ".join(content.split()) for content in (read_page(), read_markdown()))
    for content in (page, text):
        assert "best repeat" not in content
        assert content.index("Expected shortfall: how far a model is below") < content.index("total time")
        assert "Each p value is the largest of three: bootstrap, t test and permutation test" in content
        assert "Repeats differ in their seed and in the fold that they hold out." in content
        assert "if no other model is both cheaper and more accurate on the test images" in content
    pictures = re.findall(r"!\[([^]]*)\]\(figures/[^)]*\)\n\n(.*)\n", read_markdown())
    assert len(pictures) == len([*Path("reports/figures").iterdir()])
    assert all(len(caption) > 50 and not re.search(r"\d%", alt + caption) for alt, caption in pictures)


def test_the_report_writes_equal_bytes(params):
    evaluate_and_compare(params)
    report.main(params)
    first = report_files()
    report.main(params)
    assert report_files() == first


def test_the_page_loads_nothing_and_class_names_stay_text(params):
    constant = np.tile(np.float32([1, 0, 0]), (2, 240, 1))
    change_test_predictions("b-head", probabilities=constant)  # a warning that names the class
    evaluate_and_compare(params)
    report.main(params)
    page, text = read_page(), read_markdown()
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"<link|<iframe|@import|url\(", page)
    assert page.count("<script") == 1  # that of the page, which the policy allows by its hash
    assert "&lt;script&gt;alert(1)&lt;/script&gt;|x" in page
    assert "it never predicts classes" in text
    assert "<script" not in text
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;\|x" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_is_escaped_and_on_one_line():
    assert markdown("a|b\nc <i> `x` [t](u)") == r"a\|b c &lt;i&gt; \`x\` \[t\](u)"
    assert markdown("a]b [c") == r"a\]b \[c"  # in the text of a picture


def test_missing_results_are_explained(params):
    with pytest.raises(UserError, match=r"reports/study.json is missing"):
        report.main(params)


def test_no_reading_stage_imports_a_deep_learning_framework_and_numbers_need_no_drawing():
    code = (
        "import sys, stages.evaluate, stages.compare; before = 'matplotlib' in sys.modules; import stages.report; "
        "print(before, [name for name in ('keras', 'tensorflow', 'matplotlib.pyplot') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "False []"
