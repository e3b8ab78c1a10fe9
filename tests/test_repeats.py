"""Repeats that hold out different validation images: no model validates on an image that a model below it has seen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.images import read_images
from stages.artifacts.models import Predictions, read_model_record, read_result, weights_file
from stages.artifacts.tasks import read_task
from stages.evaluation.metrics import compute_metrics
from stages.training.full_model import load_full_model
from stages.training.repeats import best_repeat
from tests.example_results import split_predictions
from tests.tiny_study import ORDER

MODELS = [entry for stage, entry in ORDER if stage in ("train", "head", "probe", "fine_tune")]


def chain(name, repeat):
    """A repeat of a model, and the repeats of the models that it was built on."""
    yield name, repeat
    provenance = read_model_record(name).provenance
    if provenance.head:
        yield from chain(provenance.head.name, repeat % len(provenance.head.folds))
    elif provenance.backbone in MODELS:
        yield from chain(provenance.backbone, read_model_record(provenance.backbone).best_repeat)


def images_of(name, split, repeat):
    """The content of the images of a split that a repeat of a model predicted."""
    result = read_result(name)
    index, _ = result.predictions[split].of_repeat(repeat)
    return set(read_images(result.record.dataset).table["sha256"].loc[index])


@pytest.mark.parametrize("name", MODELS)
def test_no_validation_or_test_image_was_trained_on_by_any_model_of_the_chain(here, name):
    for repeat in range(read_model_record(name).repeats):
        held_out = images_of(name, "validation", repeat) | images_of(name, "test", repeat)
        models = list(chain(name, repeat))
        for below, its_repeat in models:
            assert not held_out & images_of(below, "train", its_repeat), (name, repeat, below, its_repeat)
    assert models[-1][0] in ("base", name)


def test_each_repeat_holds_out_another_fold_and_the_image_sets_are_those_of_the_task(here):
    task = read_task("high")
    assert task.folds >= 2
    for name in ("above", "probe", "cached", "from-probe"):
        result = read_result(name)
        assert result.record.folds == [0, 1]
        for repeat, fold in enumerate(result.record.folds):
            index, probabilities = result.predictions["validation"].of_repeat(repeat)
            assert set(index) == set(task.rows("validation", fold=fold)["index"])
            assert np.isfinite(probabilities).all()
        assert result.predictions["test"].predicts.all()


@pytest.mark.parametrize("name", ["above", "probe", "cached", "from-probe"])
def test_the_weights_of_every_repeat_are_kept(here, name):
    record, images = read_model_record(name), read_images("digits")
    test = read_result(name).predictions["test"]
    for repeat in range(record.repeats):
        assert weights_file(name, repeat).exists()
        model = load_full_model(replace(record, best_repeat=repeat))
        predicted = model.predict(images.pixels[test.index[:30]], verbose=0)
        np.testing.assert_allclose(predicted, test.probabilities[repeat, :30], atol=5e-3)  # features in float16


@given(st.lists(st.sets(st.integers(0, 30), min_size=1), min_size=1, max_size=4))
def test_predictions_of_repeats_are_joined_by_image(sets):
    random = np.random.default_rng(0)
    indices = [random.permutation(sorted(rows)) for rows in sets]
    probabilities = [random.random((len(index), 2)).astype(np.float32) for index in indices]
    joined = Predictions.of_repeats(indices, probabilities)
    assert joined.index.tolist() == sorted(set.union(*sets))
    for repeat, (index, values) in enumerate(zip(indices, probabilities, strict=True)):
        rows, stored = joined.of_repeat(repeat)
        order = np.argsort(index)
        np.testing.assert_array_equal(rows, index[order])
        np.testing.assert_array_equal(stored, values[order])
        assert np.isnan(joined.probabilities[repeat][~joined.predicts[repeat]]).all()


def folded_predictions(random, images=120, folds=3, classes=3):
    """Predictions of as many repeats as folds, each of its own third of the images."""
    labels = np.arange(images) % classes
    scores = random.normal(size=(folds, images, classes))
    scores[:, np.arange(images), labels] += 1
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    predicts = np.arange(images) // classes % folds == np.arange(folds)[:, None]
    probabilities[~predicts] = np.nan
    return split_predictions(labels, probabilities.astype(np.float32), predicts=predicts)


def test_metrics_of_folds_are_the_means_of_the_metrics_of_each_fold():
    predictions = folded_predictions(np.random.default_rng(0))
    metrics = compute_metrics(predictions, seed=0)
    alone = [
        compute_metrics(split_predictions(part.labels, part.probabilities[None])) for part in predictions.repeats()
    ]
    assert predictions.diverged == []
    for name in alone[0]:
        if not name.endswith(("_low", "_high", "_std")):
            np.testing.assert_allclose(metrics[name], np.mean([part[name] for part in alone], axis=0), err_msg=name)
    for name in ("accuracy", "macro_f1", "roc_auc", "loss"):
        assert metrics[f"{name}_low"] < metrics[name] < metrics[f"{name}_high"]


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "roc_auc"])
def test_three_folds_have_narrower_intervals_than_one(name):
    predictions = folded_predictions(np.random.default_rng(1), images=360)
    (first, *_) = predictions.repeats()
    alone = compute_metrics(split_predictions(first.labels, first.probabilities[None]), seed=0)
    together = compute_metrics(predictions, seed=0)
    width = {key: metrics[f"{name}_high"] - metrics[f"{name}_low"] for key, metrics in (("1", alone), ("3", together))}
    assert width["3"] < 0.75 * width["1"]  # 1 / sqrt(3) is 0.58


def losses(random, mean, images=60):
    return random.exponential(mean, images)


def test_with_one_fold_the_repeat_of_the_lowest_loss_is_used():
    random = np.random.default_rng(0)
    assert best_repeat([losses(random, mean) for mean in (2, 1, 3)], [0, 0, 0]) == 1
    assert best_repeat([np.full(5, np.nan), losses(random, 9)], [0, 0]) == 1
    assert best_repeat([np.full(5, np.nan), np.full(5, np.inf)], [0, 1]) is None


def test_an_easy_fold_does_not_choose_the_repeat():
    """Of equally good repeats the first is nearly always used, although another fold has a lower loss."""
    random = np.random.default_rng(0)
    chosen = [best_repeat([losses(random, 1) for _ in range(3)], [0, 1, 2]) for _ in range(300)]
    assert chosen.count(0) > 0.85 * 300
    lowest = [int(np.argmin([losses(random, 1).mean() for _ in range(3)])) for _ in range(300)]
    assert lowest.count(0) < 0.5 * 300


def test_a_repeat_that_failed_is_not_used_although_it_is_the_first():
    random = np.random.default_rng(0)
    assert best_repeat([losses(random, 3), losses(random, 1), losses(random, 1)], [0, 1, 2]) == 1
    assert best_repeat([np.full(60, np.nan), losses(random, 1), losses(random, 1)], [0, 1, 2]) == 1


def test_a_network_is_the_repeat_of_its_first_fold_unless_it_failed_there():
    """Other tasks may lack the later folds. A loss of log 2 is that of equal probabilities for two classes."""
    random = np.random.default_rng(0)
    hard, easy, easier = (losses(random, mean, 2000) for mean in (0.4, 0.2, 0.1))
    assert best_repeat([hard, easier, easy], [0, 1, 2]) == 1
    assert best_repeat([hard, easier, easy], [0, 1, 2], classes=2) == 0
    assert best_repeat([hard, easier, easy], [0, 1, 0], classes=2) == 2
    failed = losses(random, 0.8, 2000)
    assert best_repeat([failed, easier, easy], [0, 1, 2], classes=2) == 1
    assert best_repeat([np.full(60, np.nan), easier], [0, 1], classes=2) == 1
    assert best_repeat([failed, failed], [0, 0], classes=2) == 0
