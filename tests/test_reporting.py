import base64
import html
import io
import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from stages import evaluate, report
from stages.artifacts.costs import Cost, write_cost
from stages.artifacts.models import (
    Candidate,
    ModelRecord,
    ModelResult,
    PcaProjection,
    Predictions,
    cross_entropy,
    read_result,
    write_result,
)
from stages.artifacts.tasks import NEAR_COLUMNS, SPLITS, SplitSummary, Task, read_task, write_task
from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER, Tile, write_tiles
from stages.config.augmentation import AugmentationConfig
from stages.core.errors import UserError
from stages.evaluation.candidates import describe_candidates
from stages.evaluation.comparisons import Comparison, bootstrap_interval, compare_models, mcnemar, resampled_accuracies
from stages.evaluation.costs import built_on, images_used
from stages.evaluation.metrics import SplitPredictions, compute_metrics, split_metrics
from stages.evaluation.sanity import better_than_shuffled, far_apart, of_all_orders
from stages.evaluation.verdict import choose, contradiction, sentence
from stages.reporting.figures import leader
from stages.reporting.page import markdown
from stages.splitting.sentences import summary_sentences
from stages.validation.study import validate_study

ROOT = Path(__file__).parents[1]
NASTY = "<script>alert(1)</script>|x"
CLASSES = ["plain", NASTY, "$_*a*^$\nb"]  # the last is not a formula
ACCURACY = {"a-net": 0.95, "b-net": 0.9, "b-head": 0.4, "b-tune": 0.9}
SECONDS = {"a-net": 10.0, "b-net": 5.0, "b-head": 2.0, "b-tune": 3.0}


def sound_study(**sections):
    """A study of these sections, on the digits."""
    study, problems = validate_study(
        {
            "seed": 3,
            "training": {
                "epochs": 3, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.001, "early_stopping": None,
                "repeats": 2, "max_train_per_class": None,
            },
            "datasets": {"d": {"source": "digits", "image_size": 32}},
            "folders": {},
            **sections,
        }
    )  # fmt: skip
    assert problems == []
    return study


def make_study():
    model = {"task": "b"}
    return sound_study(
        **{
            "tasks": {
                "a": {"dataset": "d", "include": [0, 1, 2], "validation": 0.2, "test": 0.4},
                "b": {"dataset": "d", "include": [3, 4, 5], "validation": 0.2, "test": 0.4},
            },
            "backbones": {"blank": {"architecture": "four_conv", "weights": "random"}},
            "networks": {
                "a-net": {"dataset": "d", "task": "a", "backbone": "blank"},
                "b-net": {"dataset": "d", "backbone": "blank", **model},
            },
            "features": {"f": {"dataset": "d", "backbone": "a-net", "cut": "flatten"}},
            "heads": {"b-head": {"features": "f", **model}},
            "fine_tunes": {
                "b-tune": {
                    "dataset": "d", "backbone": "a-net", "head": "b-head", "features": "f", "unfreeze": "conv4",
                    **model,
                }
            },
        }
    )  # fmt: skip


NO_NEAR_DUPLICATES = pd.DataFrame(columns=NEAR_COLUMNS)


def make_task(name, first_row):
    labels = np.tile(np.arange(3), 200)
    splits = np.repeat(SPLITS, [240, 120, 240])
    table = pd.DataFrame({"index": first_row + np.arange(600), "label": labels, "class": [CLASSES[i] for i in labels]})
    table["group_id"] = np.arange(600)
    table = table.assign(
        sha256="0", split=splits, order=np.arange(600) // 3 + 1, name=[f"image-{row}" for row in table["index"]]
    )
    summary = SplitSummary(
        near_duplicates=3, unreadable=1, first_unreadable=[{"name": "a/x|y.jpg", "reason": "<empty>"}]
    )
    return Task(name, "d", CLASSES, "0" * 64, table, summary=summary)


def predict(random, labels, accuracy, repeats=2):
    """Probabilities (repeats, n, 3) whose most probable class is the label in `accuracy` of the cases."""
    wrong = random.random((repeats, len(labels))) > accuracy
    predicted = (labels + wrong * random.integers(1, 3, wrong.shape)) % 3
    probabilities = np.eye(3)[predicted] + random.random((*wrong.shape, 3)) * 0.5
    return (probabilities / probabilities.sum(-1, keepdims=True)).astype(np.float32)


def write_model(name, task, repeats=2):
    random = np.random.default_rng(len(name) + ord(name[2]))
    predictions = {}
    for split in SPLITS:
        rows = task.rows(split)
        predictions[split] = Predictions(
            rows["index"].to_numpy(), predict(random, rows["label"].to_numpy(), ACCURACY[name], repeats)
        )
    history = pd.DataFrame(
        [[repeat, epoch, 1 / epoch, 0.5, 1.5 / epoch, 0.4] for repeat in range(repeats) for epoch in (1, 2, 3)],
        columns=["repeat", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"],
    )
    validation = task.rows("validation")["label"].to_numpy()
    for repeat in range(repeats):  # the weights of the last epoch are those that predict
        loss = cross_entropy(predictions["validation"].probabilities[repeat], validation)
        history.loc[(history["repeat"] == repeat) & (history["epoch"] == 3), "validation_loss"] = loss
    kind = {"head": "head", "tune": "fine-tune"}.get(name[-4:], "network")
    head = kind == "head"
    record = ModelRecord(
        kind=kind, task=task.name, backbone="blank", weights_sha256=None,
        cut=None if kind == "network" else "flatten", train_images=240, repeats=repeats,
        best_repeat=0, epochs=[3] * repeats, trained_parameters=10, total_parameters=20,
    )  # fmt: skip
    rows = task.rows("validation").head(20)["index"].to_numpy()
    feature_map = PcaProjection(rows, random.normal(size=(20, 2)).astype(np.float32), np.array([0.5, 0.2]))
    cost = Cost(SECONDS[name], 100.0, "test machine")
    write_result(name, ModelResult(record, cost, history, predictions, feature_map if head else None))
    Path("models", f"{name}.weights.h5").write_bytes(b"weights of " + name.encode())


def write_study():
    """Write into this folder what the stages before evaluate make of the study; returns it."""
    study = make_study()
    for name, first_row in (("a", 0), ("b", 1000)):
        write_task(make_task(name, first_row), NO_NEAR_DUPLICATES)
    for name, entry in study.models.items():
        write_model(name, read_task(entry.task))
    write_cost("features", "f", Cost(20.0, 50.0, "test machine"))
    for name in study.tasks:
        write_galleries(name)
    return study


def write_galleries(name):
    """A picture of every image that a model may mistake, one of a training image, and one changed."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(file, "PNG")
    task = read_task(name)
    train, title = task.rows("train").head(2), "rotation 15 (of a-net)"
    shown = [("sample", "", train), ("augmented", title, train), ("mistake", "", task.rows("test"))]
    tiles = [
        Tile(f"{role}-{row}.png", role, title, row, label, file.getvalue())
        for role, title, rows in shown
        for row, label in zip(rows["index"], rows["class"], strict=True)
    ]
    for folder, shown in ((GALLERY_FOLDER, ("sample", "augmented")), (MISTAKES_FOLDER, ("mistake",))):
        write_tiles(folder / name, [tile for tile in tiles if tile.role in shown])


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_study()


def read(tmp_path, name):
    return json.loads((tmp_path / f"reports/{name}.json").read_text(encoding="utf-8"))


def change(name, **changes):
    """Rewrite the test predictions of a model."""
    result = read_result(name)
    test = replace(result.predictions["test"], **changes)
    write_result(name, replace(result, predictions={**result.predictions, "test": test}))


# Metrics


def answers_to(labels, probabilities, groups=None) -> SplitPredictions:
    return SplitPredictions(labels, probabilities, np.arange(len(labels)) if groups is None else groups)


def metrics_of(labels, probabilities, seed=None):
    answers = answers_to(labels, probabilities)
    return split_metrics(answers, compute_metrics(answers, seed))


def answers_that(correct) -> SplitPredictions:
    """Answers to one class of two, right where `correct`, (repeats, n) bool, says."""
    return answers_to(np.zeros(correct.shape[1], int), np.stack([correct, ~correct], axis=2).astype(np.float32))


def compare(correct, kept=0, seed=0):
    """Compare models of which model -> (repeats, n) bool says where they are right."""
    return compare_models(
        {name: answers_that(each) for name, each in correct.items()}, dict.fromkeys(correct, kept), seed
    )


def bootstrap_difference(a, b, seed, resamples=10_000):
    drawn = resampled_accuracies({"a": a, "b": b}, np.arange(a.shape[1]), seed, resamples)
    return bootstrap_interval(drawn["a"] - drawn["b"])


def candidate(**values) -> Candidate:
    return Candidate(epochs=3, **values)


def test_the_settings_a_head_chose_from_are_all_reported():
    tried = [
        candidate(learning_rate=rate, l2=0.001, validation_loss=loss, validation_accuracy=0.5, chosen=rate == 0.1)
        for rate, loss in ((0.01, 0.75), (0.1, 0.5), (1.0, None))
    ]
    assert describe_candidates("my-head", tried) == (
        "my-head: of 3 settings the one of the lowest validation loss was taken, learning rate 0.1 and l2 0.001 "
        "(50.0 %, 0.500); the others (validation accuracy, loss): learning rate 0.01 and l2 0.001 (50.0 %, 0.750), "
        "learning rate 1 and l2 0.001 (50.0 %, not finite)"
    )
    solved = [
        candidate(learning_rate=None, l2=l2, validation_loss=l2, validation_accuracy=1, chosen=l2 == 1) for l2 in (1, 2)
    ]
    assert "taken, l2 1 (100.0 %, 1.000); the others (validation accuracy, loss): l2 2 (" in describe_candidates(
        "probe", solved
    )


@pytest.mark.parametrize("classes", [2, 5, 7])
def test_metrics_agree_with_scikit_learn(classes):
    random = np.random.default_rng(classes)
    labels = np.r_[np.arange(classes), random.integers(0, classes, 80)]
    probabilities = random.dirichlet(np.ones(classes), (3, len(labels))).astype(np.float32)
    found = metrics_of(labels, probabilities)
    predicted = probabilities.argmax(2)
    accuracies = [sk.accuracy_score(labels, each) for each in predicted]
    assert found["accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert found["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1), abs=1e-6)
    for key, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        expected = np.mean([score(labels, each, average="macro", zero_division=0) for each in predicted])
        assert found[f"macro_{key}"] == pytest.approx(expected, abs=1e-6)
    assert found["loss"] == pytest.approx(np.mean([sk.log_loss(labels, each) for each in probabilities]), abs=1e-5)
    assert found["majority_rate"] == pytest.approx(np.bincount(labels).max() / len(labels), abs=1e-6)
    if classes > 5:
        expected = np.mean([sk.top_k_accuracy_score(labels, each, k=5) for each in probabilities])
        assert found["top5_accuracy"] == pytest.approx(expected, abs=1e-6)
    else:
        assert "top5_accuracy" not in found


def test_interval_is_wilsons():
    """7 of 10 right: 0.397 to 0.892 (Wilson 1927)."""
    labels = np.zeros(10, int)
    probabilities = np.where(np.arange(10)[:, None] < 7, [0.9, 0.1], [0.1, 0.9])[None]
    found = metrics_of(labels, probabilities)
    assert (found["accuracy_low"], found["accuracy_high"]) == (
        pytest.approx(0.3968, abs=1e-4), pytest.approx(0.8922, abs=1e-4),
    )  # fmt: skip
    assert found["accuracy_std"] is None


def test_repeat_without_finite_probabilities_counts_as_wrong():
    labels = np.array([0, 1, 2, 0])
    probabilities = np.stack([np.eye(3)[labels], np.full((4, 3), np.nan)])
    found = metrics_of(labels, probabilities)
    assert found["accuracy"] == 0.5
    assert found["macro_recall"] == 0.5
    assert found["loss"] is None


# Comparisons


def test_bootstrap_does_not_distinguish_a_model_from_itself():
    right = np.random.default_rng(0).random((3, 200)) < 0.8
    low, high, p = bootstrap_difference(right, right, seed=0)
    assert low <= 0 <= high
    assert p > 0.5


def test_bootstrap_interval_of_one_repeat_agrees_with_the_normal_one():
    random = np.random.default_rng(1)
    a, b = random.random((1, 2000)) < 0.8, random.random((1, 2000)) < 0.75
    low, high, _ = bootstrap_difference(a, b, seed=0)
    difference = a[0].astype(float) - b[0]
    half = 1.96 * difference.std() / np.sqrt(2000)
    assert low == pytest.approx(difference.mean() - half, abs=0.002)
    assert high == pytest.approx(difference.mean() + half, abs=0.002)


def test_bootstrap_widens_with_the_spread_over_repeats():
    """Two repeats that are always right and always wrong: the difference could be anything."""
    a = np.stack([np.ones(500, bool), np.zeros(500, bool)])
    low, high, p = bootstrap_difference(a, np.arange(500)[None] % 2 == 0, seed=0)
    assert low < -0.4
    assert high > 0.4
    assert p > 0.05


def test_one_repeat_less_is_drawn_than_there_are():
    """Repeats that differ and images that do not: of 3 repeats 2 are drawn, both of the right ones with (2 / 3)**2."""
    a = np.repeat([[True], [True], [False]], 50, axis=1)
    b = np.ones((1, 50), bool)
    low, high, p = bootstrap_difference(a, b, seed=0, resamples=20_000)
    assert (low, high) == (-1.0, 0.0)
    assert p == pytest.approx(2 * 4 / 9, abs=0.02)


def test_what_a_pair_gets_does_not_depend_on_the_other_models():
    """That the order of the images does not either is held by `test_order_of_the_predictions_does_not_matter`."""
    random = np.random.default_rng(5)
    correct = {name: random.random((repeats, 100)) < 0.7 for name, repeats in (("x", 2), ("y", 3), ("z", 1))}
    alone = bootstrap_difference(correct["x"], correct["y"], seed=4)
    drawn = resampled_accuracies({"z": correct["z"], "b": correct["y"], "a": correct["x"]}, np.arange(100), 4)
    assert bootstrap_interval(drawn["a"] - drawn["b"]) == alone


def test_different_models_are_distinguishable_and_equal_ones_are_not():
    random = np.random.default_rng(2)
    correct = {name: random.random((2, 400)) < accuracy for name, accuracy in (("x", 0.9), ("y", 0.5), ("z", 0.9))}
    pairs = {(pair.a, pair.b): pair for pair in compare(correct)}
    assert pairs["x", "y"].distinguishable
    assert pairs["x", "y"].difference > 0.3
    assert pairs["y", "z"].distinguishable
    assert pairs["y", "z"].difference < 0
    assert not pairs["x", "z"].distinguishable


def test_holm_by_hand_and_monotone():
    random = np.random.default_rng(3)
    correct = {name: random.random((2, 300)) < 0.6 + 0.04 * number for number, name in enumerate("abcd")}
    pairs = sorted(compare(correct, kept=1), key=lambda pair: pair.p)
    running = 0.0
    for place, pair in enumerate(pairs):
        running = max(running, min(1, (len(pairs) - place) * pair.p))
        assert pair.p_holm == pytest.approx(running, abs=1e-5)
        assert pair.p_holm >= pair.p


def test_many_models_leave_room_below_the_level():
    """Holm over 780 pairs needs p values far below 2 / 10,001."""
    perfect = np.ones((1, 60), bool)
    correct = {f"m{number}": perfect if number else ~perfect for number in range(40)}
    pairs = compare(correct)
    assert all(pair.distinguishable == (pair.a == "m0") for pair in pairs)


def test_mcnemar_by_hand():
    """8 images only a has right, 2 only b: p = 2 * (45 + 10 + 1) / 2**10."""
    a = np.r_[np.ones(8, bool), np.zeros(2, bool), np.ones(5, bool)]
    b = np.r_[np.zeros(8, bool), np.ones(2, bool), np.ones(5, bool)]
    assert mcnemar(a, b) == (8, 2, pytest.approx(112 / 1024))
    assert mcnemar(a, b)[2] == pytest.approx(reference_mcnemar([[5, 8], [2, 0]], exact=True).pvalue)
    assert mcnemar(a, a) == (0, 0, 1.0)


# Sanity


def test_two_groups_of_which_one_is_right_are_compared(study):
    """Half an image's worth of knowledge: neither a division by zero nor a warning."""
    labels = np.repeat([0, 1], 20)
    answers = answers_to(labels, np.tile(np.float32([1, 0]), (1, 40, 1)), groups=labels)
    found = split_metrics(answers, compute_metrics(answers))
    assert 0 < found["effective_images"] < 0.1
    assert far_apart(found, found) == []


def test_labels_are_shuffled_in_whole_groups():
    """Guesses of which the images of a group share one: with 20 images each they look like knowledge half the time."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 20)
    taken_for_knowledge = 0
    for seed in range(100):
        labels = np.repeat(random.permutation(np.arange(10) % 2), 20)
        answers = answers_to(
            labels, np.eye(2, dtype=np.float32)[np.repeat(random.integers(0, 2, 10), 20)][None], groups
        )
        taken_for_knowledge += better_than_shuffled(answers, answers.predicted, seed) <= 0.01
    assert taken_for_knowledge <= 5
    known = answers_to(labels, np.eye(2, dtype=np.float32)[labels][None], groups)
    assert better_than_shuffled(known, known.predicted, 0) <= 0.02


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2), st.integers(-1, 2)), min_size=2, max_size=6))
def test_mean_and_variance_over_all_orders_of_the_labels(images):
    labels, predicted = np.array(images)[:, 0], np.array(images)[:, 1:].T
    share = np.array([1.0, 0.5, 0.25])
    found = [
        ((predicted == shuffled) * share[shuffled]).sum() for shuffled in map(np.array, itertools.permutations(labels))
    ]
    np.testing.assert_allclose(of_all_orders(labels, predicted, share), (np.mean(found), np.var(found)), atol=1e-12)


@pytest.mark.parametrize(("classes", "of_each", "repeats"), [(2, 3, 1), (2, 47, 3), (2, 53, 1), (3, 2, 1), (3, 16, 1)])
def test_one_class_for_all_images_is_no_knowledge(classes, of_each, repeats):
    labels = np.repeat(np.arange(classes), of_each)
    answers = answers_to(labels, np.tile(np.eye(classes, dtype=np.float32)[0], (repeats, len(labels), 1)))
    assert better_than_shuffled(answers, answers.predicted, 0) > 0.01


@pytest.mark.parametrize("right", [0.1, 0.15, 0.2, 0.9])
def test_what_is_known_without_shuffling_is_what_shuffling_shows(right, monkeypatch):
    random = np.random.default_rng(1)
    labels = random.integers(0, 10, 2000)
    told = np.where(random.random(2000) < right, labels, random.integers(0, 10, 2000))
    answers = answers_to(labels, np.eye(10, dtype=np.float32)[told][None])
    p = better_than_shuffled(answers, answers.predicted, 0)
    monkeypatch.setattr("stages.evaluation.sanity.of_all_orders", lambda *_: (np.inf, 0.0))
    shuffled = better_than_shuffled(answers, answers.predicted, 0)
    assert shuffled == pytest.approx(1 / 1001)
    assert p <= shuffled
    assert (p < shuffled) == (right > 0.5)


# Verdict


def pair(a, b, difference, distinguishable):
    p = 0.001 if distinguishable else 0.4
    return Comparison(a, b, difference, difference - 0.02, difference + 0.03, p, p, distinguishable, 0, 0, 1.0, 1.0)


def of_models(**models):
    return {
        name: {"validation": {"accuracy": accuracy}, "cost": {"total_seconds": cost}}
        for name, (accuracy, cost) in models.items()
    }


def test_the_cheapest_not_distinguishable_from_the_best_is_recommended():
    metrics = of_models(best=(0.9, 70.0), near=(0.89, 10.0), far=(0.5, 1.0))
    pairs = [pair("best", "near", 0.01, False), pair("best", "far", 0.4, True), pair("near", "far", 0.39, False)]
    choice = choose(metrics, pairs)
    assert (choice.best, choice.recommended, choice.candidates) == ("best", "near", ["best", "near"])


def test_sentences_name_the_better_model_first():
    cost = {"x": 10.0, "y": 70.0}
    assert sentence(pair("x", "y", -0.173, True), cost) == (
        "y is better than x by 17.3 points [14.3, 19.3] on the test images: distinguishable (Holm-corrected p = 0.001)"
        ", at 7 times the cost."
    )
    assert "x is ahead of y by 1.0 points [-1.0, 4.0]" in sentence(pair("x", "y", 0.01, False), cost)
    assert "not distinguishable" in sentence(pair("x", "y", 0.01, False), cost)
    assert sentence(pair("x", "y", 0.0, False), cost).startswith("x is level with y [-2.0, 3.0] on the test images")


def test_a_better_model_on_the_test_images_is_a_warning():
    choice = choose(of_models(x=(0.9, 1.0), y=(0.9, 2.0)), [pair("x", "y", 0.0, False)])
    assert choice.recommended == "x"
    assert contradiction(choice, [pair("x", "y", -0.2, True)])[0].startswith("y is distinguishably better than")
    assert contradiction(choice, [pair("x", "y", 0.2, True)]) == []
    assert contradiction(choice, [pair("x", "y", -0.2, False)]) == []


# The stage evaluate


def test_total_cost_counts_a_shared_part_once(study, tmp_path):
    assert built_on(study, "b-tune") == [
        ("fine_tunes", "b-tune"), ("networks", "a-net"), ("heads", "b-head"), ("features", "f"),
    ]  # fmt: skip
    evaluate.main(study)
    metrics = read(tmp_path, "metrics")
    assert {name: metrics[name]["cost"]["total_seconds"] for name in metrics} == {
        "a-net": 10.0, "b-net": 5.0, "b-head": 2.0 + 7.2 + 10.0, "b-tune": 3.0 + 2.0 + 7.2 + 10.0,
    }  # fmt: skip


def test_of_a_cache_of_features_the_images_count_that_a_model_takes(study):
    """240 training and 120 validation images; the head sees its training images in as many views as it asks for."""
    results = {name: read_result(name) for name in study.models}
    flips = [AugmentationConfig(flip="horizontal")] * 3
    wide = replace(study, features={"f": study.features["f"].model_copy(update={"views": flips})})
    fewer = replace(wide, heads={"b-head": study.heads["b-head"].model_copy(update={"views": 2})})
    other = replace(wide, features={**wide.features, "g": study.features["f"]})
    other = replace(other, fine_tunes={"b-tune": study.fine_tunes["b-tune"].model_copy(update={"features": "g"})})
    assert images_used(study, "f", built_on(study, "b-head"), results) == 240 + 120
    assert images_used(wide, "f", built_on(wide, "b-head"), results) == 4 * 240 + 120
    assert images_used(fewer, "f", built_on(fewer, "b-tune"), results) == 2 * 240 + 120
    assert images_used(other, "f", built_on(other, "b-tune"), results) == 4 * 240 + 120
    assert images_used(other, "g", built_on(other, "b-tune"), results) == 0  # a cut above conv4: from the images


def test_a_fine_tune_pays_for_a_cache_only_where_it_starts_from_it(study):
    """A head of 30 images on the flattened features; the fine-tune sees 240, in a cache with a lower cut or without."""
    results = {name: read_result(name) for name in study.models}
    few = results["b-head"]
    results["b-head"] = replace(few, record=replace(few.record, train_images=30))
    results["b-tune"] = replace(results["b-tune"], record=replace(results["b-tune"].record, cut="flatten"))
    flips = [AugmentationConfig(flip="horizontal")] * 3
    from_images = replace(study, features={"f": study.features["f"].model_copy(update={"views": flips})})
    from_cache = replace(
        study, features={"f": from_images.features["f"].model_copy(update={"cut": ["flatten", "pool1"]})}
    )
    changed = from_cache.fine_tunes["b-tune"].model_copy(update={"augmentation": AugmentationConfig(flip="horizontal")})
    augmented = replace(from_cache, fine_tunes={"b-tune": changed})
    assert images_used(from_images, "f", built_on(from_images, "b-tune"), results) == 4 * 30 + 120
    assert images_used(from_cache, "f", built_on(from_cache, "b-tune"), results) == 240 + 3 * 30 + 120
    assert images_used(augmented, "f", built_on(augmented, "b-tune"), results) == 4 * 30 + 120


def test_evaluate_writes_equal_bytes_and_no_stale_model(study, tmp_path):
    write_model("b-net", read_task("b"))
    (tmp_path / "models/b-net").rename(tmp_path / "models/stale")
    write_model("b-net", read_task("b"))
    names = [
        "metrics.json",
        "comparisons.json",
        "study.json",
        "history.csv",
        "curves.csv",
        "models.csv",
        "confusion/b-tune.csv",
        "classes/b-tune.csv",
        "summary/b-tune.json",
    ]
    evaluate.main(study)
    first = {name: (tmp_path / "reports" / name).read_bytes() for name in names}
    evaluate.main(study)
    for name in names:
        assert (tmp_path / "reports" / name).read_bytes() == first[name]
        assert b"stale" not in first[name]
    assert list(json.loads(first["metrics.json"])) == list(study.models)


def test_what_removed_entries_left_is_dropped_and_nothing_else(study, tmp_path):
    write_model("b-net", read_task("b"))
    (tmp_path / "models/b-net").rename(tmp_path / "models/gone")
    write_model("b-net", read_task("b"))
    # A removed task with the name of a model of the study.
    write_task(replace(make_task("b-net", 0), name="b-net"), NO_NEAR_DUPLICATES)
    write_cost("features", "gone", Cost(1.0, 1.0, "test machine"))
    for name in ("gone", "b-net", "mine"):
        (tmp_path / f"models/{name}.weights.h5").touch()
    (tmp_path / "models/notes").mkdir()
    for folder, file in (
        ("data/gallery", "tiles.csv"),
        ("data/mistakes", "tiles.csv"),
        ("exports/recommended", "model.json"),
    ):
        for name in ("a", "gone", ".partial-b"):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name / file).touch()
        (tmp_path / folder / "mine").mkdir()
    evaluate.main(study)
    assert {path.name for path in (tmp_path / "models").iterdir()} == {
        *study.models, *(f"{model}.weights.h5" for model in study.models), "mine.weights.h5", "notes",
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "data/tasks").iterdir()} == {"a", "b"}
    assert {path.name for path in (tmp_path / "data/costs/features").iterdir()} == {"f.json"}
    for folder in ("data/gallery", "data/mistakes", "exports/recommended"):
        assert {path.name for path in (tmp_path / folder).iterdir()} - {"b"} == {"a", ".partial-b", "mine"}


@pytest.mark.parametrize(("file", "content"), [("history.csv", ""), ("study.json", "{}"), ("metrics.json", "<<<<")])
def test_damaged_tables_are_answered_with_the_way_out(study, tmp_path, file, content):
    evaluate.main(study)
    (tmp_path / "reports" / file).write_text(content)
    with pytest.raises(UserError, match=r"^reports.* is damaged \(.*\). Delete it and run `dvc repro`\.$"):
        report.main(study)


def test_the_headline_claims_no_more_than_the_comparisons():
    def pair(a, b, distinguishable):
        return {"a": a, "b": b, "distinguishable": distinguishable}

    clear = [pair("x", "y", True), pair("z", "x", True), pair("y", "z", False)]
    assert leader("x", clear) == "x is right most often"
    assert leader("y", clear) == "y leads, another model cannot be told apart from it"
    assert leader("z", [pair("x", "z", False), pair("z", "y", False)]) == (
        "z leads, 2 others cannot be told apart from it"
    )


def test_order_of_the_predictions_does_not_matter(study, tmp_path):
    evaluate.main(study)
    before = (tmp_path / "reports/comparisons.json").read_bytes()
    found = read_result("b-head").predictions["test"]
    change("b-head", index=found.index[::-1], probabilities=found.probabilities[:, ::-1])
    evaluate.main(study)
    assert (tmp_path / "reports/comparisons.json").read_bytes() == before


@pytest.mark.parametrize("how", ["missing", "foreign", "twice", "validation"])
def test_predictions_of_other_images_are_refused(study, how):
    found = read_result("b-head").predictions["test"]
    index, probabilities = found.index.copy(), found.probabilities
    if how == "missing":
        index, probabilities = index[1:], probabilities[:, 1:]
    elif how == "foreign":
        index[0] = 5
    elif how == "twice":
        index[0] = index[1]
    else:
        index[0] = read_task("b").rows("validation")["index"].iloc[0]
    change("b-head", index=index, probabilities=probabilities)
    with pytest.raises(UserError, match=r"models/b-head: the test predictions are not of the test images of task 'b'"):
        evaluate.main(study)


def test_predictions_with_other_classes_are_refused(study):
    change("b-head", probabilities=read_result("b-head").predictions["test"].probabilities[:, :, :2])
    with pytest.raises(UserError, match="has 3 classes"):
        evaluate.main(study)


def test_a_part_of_the_training_images_is_accepted(study, tmp_path):
    result = read_result("b-net")
    train = result.predictions["train"]
    part = Predictions(train.index[:30], train.probabilities[:, :30])
    write_result("b-net", replace(result, predictions={**result.predictions, "train": part}))
    evaluate.main(study)
    assert read(tmp_path, "metrics")["b-net"]["train"]["images"] == 30


def test_warnings_make_themselves_heard(study, tmp_path, capsys):
    found = read_result("b-head").predictions["test"]
    constant = np.zeros_like(found.probabilities)
    constant[:, :, 0] = 1
    change("b-head", probabilities=constant)
    diverged = read_result("b-net").predictions["test"].probabilities.copy()
    diverged[1] = np.nan
    change("b-net", probabilities=diverged)
    result = read_result("b-tune")
    result.history.loc[1, "train_loss"] = np.nan
    write_result("b-tune", result)

    evaluate.main(study)
    warnings = "\n".join(read(tmp_path, "comparisons")["b"]["warnings"])
    assert (
        "b-head: the test accuracy 33.3 % is not above the 33.3 % of always naming the largest class by more"
        in warnings
    )
    assert "b-head: its test predictions fit the labels no better than they fit shuffled labels" in warnings
    assert "b-head: no test image is ever taken for" in warnings
    assert "b-net: training diverged in repeat 2" in warnings
    assert "b-net: validation accuracy" in warnings  # half of its test answers count as wrong
    assert "b-tune: the loss was not finite at some epoch of repeat 1" in warnings
    assert "b-tune: validation accuracy" not in warnings
    assert warnings.splitlines()[0] in capsys.readouterr().out
    assert read(tmp_path, "comparisons")["a"]["warnings"] == []
    metrics = read(tmp_path, "metrics")["b-net"]
    assert (metrics["test"]["loss"], metrics["training"]["diverged_repeats"]) == (None, 1)
    report.main(study)


def test_tables_hold_the_answers_and_the_curves_of_every_model(study, tmp_path):
    evaluate.main(study)
    assert {path.stem for path in (tmp_path / "reports/confusion").iterdir()} == set(study.models)
    confusion = pd.read_csv(tmp_path / "reports/confusion/b-tune.csv")
    assert list(confusion.columns) == ["actual", "predicted"]
    kept = read(tmp_path, "study")["models"]["b-tune"]["accuracies"]["test"][0]
    assert (confusion["actual"] == confusion["predicted"]).mean() == pytest.approx(kept, abs=1e-6)
    assert set(confusion["actual"]) == set(CLASSES)
    models = pd.read_csv(tmp_path / "reports/models.csv").set_index("model")
    assert list(models.index) == list(study.models)
    assert models.loc["b-tune", "kind"] == read_result("b-tune").record.kind
    assert models.loc["b-tune", "test_accuracy"] == read(tmp_path, "summary/b-tune")["test_accuracy"]
    curves = pd.read_csv(tmp_path / "reports/curves.csv")
    assert len(curves) == len(study.models) * 3
    history = pd.read_csv(tmp_path / "reports/history.csv")
    assert list(history.columns) == [
        "model", "repeat", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
    ]  # fmt: skip
    assert len(history) == len(study.models) * 2 * 3


def test_mean_curves_end_where_the_first_repeat_ends():
    history = pd.DataFrame({"repeat": [0, 0, 0, 1, 1], "epoch": [1, 2, 3, 1, 2], "train_loss": [4.0, 2, 1, 6, 4]})
    assert evaluate.mean_curves(history).to_dict("list") == {"epoch": [1, 2], "train_loss": [5.0, 3.0]}


# The stage report


def test_report_end_to_end_reads_only_what_evaluate_wrote(study, tmp_path):
    evaluate.main(study)
    for folder in ("models", "data/tasks", "data/costs"):
        (tmp_path / folder).rename(tmp_path / f"away-{Path(folder).name}")
    report.main(study)
    page = (tmp_path / "reports/report.html").read_text(encoding="utf-8")
    text = (tmp_path / "reports/report.md").read_text(encoding="utf-8")
    comparisons = read(tmp_path, "comparisons")
    for sentence_ in comparisons["b"]["verdict"]:
        assert sentence_ in html.unescape(page)
    pictures = {path.name for path in (tmp_path / "reports/figures").iterdir()}
    assert pictures == {
        "accuracy-b.png", "cost-b.png", "curves-b.png", "maps-b.png",
        *(f"{kind}-{model}.png" for model in study.models for kind in ("training", "confusion")),
    }  # fmt: skip
    assert set(re.findall(r"\]\(figures/([^)]*)\)", text)) == pictures
    shown = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]+)">', page)
    assert {base64.b64decode(png) for png, _ in shown} == {
        path.read_bytes() for path in (tmp_path / "reports/figures").iterdir()
    }
    assert len(page) < 2_000_000


def test_report_shows_what_the_split_came_upon_and_the_unreadable_files(study, tmp_path):
    evaluate.main(study)
    report.main(study)
    page = (tmp_path / "reports/report.html").read_text(encoding="utf-8")
    text = (tmp_path / "reports/report.md").read_text(encoding="utf-8")
    for sentence_ in summary_sentences(make_task("b", 0).summary):
        assert f"<li>{sentence_}</li>" in page
        assert f"- {markdown(sentence_)}\n" in text
    assert "validation and test images that look like an image of another side: 3, see" in page
    assert "unreadable files of the dataset: 1, see quarantine.csv" in page
    assert '<div class="wrap">a/x|y.jpg</div></th><td class="word">&lt;empty&gt;</td>' in page


def test_the_page_shows_the_classes_as_every_model_sees_them(study, tmp_path):
    evaluate.main(study)
    report.main(study)
    page = (tmp_path / "reports/report.html").read_text(encoding="utf-8")
    for model in study.models:
        assert f'<a href="#model-{model}">{model}</a>' in page
        details = page[page.index(f'id="model-{model}"') :]
        table = details[details.index("<table") : details.index("</table>")]
        shown = [float(value) for value in re.findall(r'data-value="([^"]*)"', table)]
        figures = pd.read_csv(tmp_path / f"reports/classes/{model}.csv", keep_default_na=False)
        columns = ["images", "precision", "recall", "f1", "roc_auc", "calibration_error"]
        assert shown == pytest.approx(figures[columns].to_numpy().ravel())
        assert html.escape(NASTY) in table


def test_report_writes_equal_bytes(study, tmp_path):
    evaluate.main(study)
    files = ["report.html", "report.md", "figures/accuracy-b.png"]
    report.main(study)
    first = [(tmp_path / "reports" / file).read_bytes() for file in files]
    report.main(study)
    assert [(tmp_path / "reports" / file).read_bytes() for file in files] == first


def test_page_loads_nothing_and_class_names_are_only_text(study, tmp_path):
    change("b-head", probabilities=np.tile(np.float32([1, 0, 0]), (2, 240, 1)))  # a warning that names the class
    evaluate.main(study)
    report.main(study)
    page = (tmp_path / "reports/report.html").read_text(encoding="utf-8")
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"<link|<iframe|@import|url\(", page)
    assert page.count("<script") == 1  # that of the page, which the policy knows by its hash
    assert "&lt;script&gt;alert(1)&lt;/script&gt;|x" in page
    text = (tmp_path / "reports/report.md").read_text(encoding="utf-8")
    assert "no test image is ever taken for" in text
    assert "<script" not in text
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;\|x" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_stays_on_its_line():
    assert markdown("a|b\nc <i> `x` [t](u)") == r"a\|b c &lt;i&gt; \`x\` \[t\](u)"
    assert markdown("a]b [c") == r"a\]b \[c"  # in the text of a picture


def test_missing_results_are_explained(study, tmp_path):
    with pytest.raises(UserError, match=r"reports/study.json is missing"):
        report.main(study)


def test_neither_stage_imports_tensorflow_or_keras():
    code = (
        "import sys, stages.evaluate, stages.report; "
        "print([name for name in ('keras', 'tensorflow', 'matplotlib.pyplot') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
