"""What the settings of a training do, each by itself on small models."""

import contextlib
import copy
import math
import multiprocessing
import os
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.utils.class_weight import compute_sample_weight
from stages.training.solving import solve_head
from stages.training.trainers import Batches, KerasTrainer, LoopTrainer, StackedTrainer, make_trainers

from stages.artifacts.models import Provenance
from stages.backbones.augmentation import Augment, with_augmentation
from stages.backbones.runtime import make_deterministic
from stages.config.augmentation import AugmentationConfig
from stages.config.heads import HeadConfig
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.probes.ridge import calibrate, probe_scores, solve_ridge
from stages.probes.standardization import channel_statistics
from stages.training import fitting, optimizers, trainers
from stages.training.batches import Examples, class_weights, mixup
from stages.training.fitting import TrainingRun, fit_runs
from stages.training.heads import build_head, set_statistics
from stages.training.optimizers import compile_model, learning_rate_factors
from stages.training.repeats import BuiltModel, train_repeats
from stages.training.schedules import learning_rate_at

ROOT = Path(__file__).parents[1]
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def training(**changes) -> TrainingConfig:
    given = {"epochs": 3, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.01, "early_stopping": None}
    return TrainingConfig(**{**given, "repeats": 1, "max_train_per_class": None, **changes})


def examples(count: int = 40, classes: int = 2, seed: int = 0, channels: int = 4) -> Examples:
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.int32)
    centres = np.random.default_rng(9).normal(size=(classes, channels))
    array = (random.normal(size=(count, channels)) + 2 * centres[labels]).astype(np.float32)
    return Examples(array, np.arange(count), labels, np.arange(count), classes)


def small_model(classes: int = 2, channels: int = 4, l2: float = 0.0) -> keras.Model:
    inputs = keras.Input((channels,))
    x = keras.layers.Dropout(0.2)(keras.layers.Dense(6, activation="relu", name="lower")(inputs))
    penalty = keras.regularizers.L2(l2) if l2 else None
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax", kernel_regularizer=penalty, name="upper")(x))


def run_of(settings: TrainingConfig, **options) -> TrainingRun:
    make_deterministic(0)
    model = small_model(**options)
    compile_model(model, settings)
    return TrainingRun(model, settings)


# The learning rate.


def rates(settings: TrainingConfig, steps_per_epoch: int = 10) -> list[float]:
    return [learning_rate_at(settings, step, steps_per_epoch) for step in range(settings.epochs * steps_per_epoch)]


def test_the_exponential_schedule_is_that_of_keras():
    found = rates(training(schedule="exponential", decay=0.5, decay_steps=7))
    keras_rates = keras.optimizers.schedules.ExponentialDecay(0.01, 7, 0.5)
    np.testing.assert_allclose(found, [float(keras_rates(step)) for step in range(30)], rtol=1e-5)


def test_the_cosine_schedule_is_that_of_keras():
    keras_rates = keras.optimizers.schedules.CosineDecay(0.01, 30)
    found = rates(training(schedule="cosine"))
    np.testing.assert_allclose(found, [float(keras_rates(step)) for step in range(30)], rtol=1e-4, atol=1e-8)


def test_the_warm_up_rises_to_the_full_rate_and_the_schedule_begins_after_it():
    found = rates(training(epochs=4, warm_up=1, schedule="cosine"))
    np.testing.assert_allclose(found[:10], 0.01 * np.arange(1, 11) / 11, rtol=1e-9)
    assert found[10] == 0.01 and found == [*sorted(found[:11]), *sorted(found[11:], reverse=True)]


@given(st.sampled_from(["constant", "exponential", "cosine"]), st.integers(0, 3), st.integers(4, 9), st.integers(1, 50))
def test_a_learning_rate_is_never_above_the_full_one_nor_below_zero(schedule, warm_up, epochs, trainers):
    settings = training(schedule=schedule, warm_up=warm_up, epochs=epochs)
    assert all(0 <= rate <= 0.01 for rate in rates(settings, trainers))


def deep_model(l2: float = 0.0) -> keras.Model:
    """With all that a head of dense layers may have."""
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization(center=False, scale=False, trainable=False)(inputs)
    # Without a bias: before a batch normalization its gradient is nothing but rounding, which Adam would blow up.
    x = keras.layers.Dense(6, use_bias=False, kernel_regularizer=keras.regularizers.L2(l2) if l2 else None)(x)
    x = keras.layers.Dropout(0.2)(keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x)))
    return keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))


def deep_run(settings: TrainingConfig, l2: float = 0.0) -> TrainingRun:
    make_deterministic(0)
    model = deep_model(l2)
    compile_model(model, settings)
    return TrainingRun(model, settings)


def weights_of(run: TrainingRun) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in run.model.get_weights()])


EVERY_OPTIMIZER = pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "class_weights": "balanced"},
        {"optimizer": "adam", "weight_decay": 0.1, "mixup": 0.4},
        {"optimizer": "adamw", "label_smoothing": 0.1},
        {"optimizer": "rmsprop", "momentum": 0.5},
        {"optimizer": "sgd", "momentum": 0.9, "schedule": "exponential", "decay": 0.9, "decay_steps": 1},
    ],
    ids=lambda changes: "-".join(changes),
)


@pytest.mark.numeric
@EVERY_OPTIMIZER
def test_many_steps_in_one_call_are_those_that_keras_takes(changes, monkeypatch):
    settings = training(**changes)
    found, expected = deep_run(settings), deep_run(settings)
    histories, _ = fit_runs([found], examples(43), examples(seed=1), 0, "test")
    seen, step = [], expected.model.train_on_batch
    monkeypatch.setattr(
        expected.model,
        "train_on_batch",
        lambda *args, **options: seen.append(float(expected.model.optimizer.learning_rate)) or step(*args, **options),
    )
    monkeypatch.setattr(fitting, "trainers_of", lambda models: [KerasTrainer(model) for model in models])
    of_keras, _ = fit_runs([expected], examples(43), examples(seed=1), 0, "test")
    np.testing.assert_allclose(weights_of(found), weights_of(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(histories[0], of_keras[0], rtol=1e-4)
    np.testing.assert_allclose(seen, rates(settings, 6), rtol=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_in_one_operation_is_that_of_keras(optimizer, monkeypatch):
    settings = training(optimizer=optimizer, epochs=5)
    found = deep_run(settings)
    monkeypatch.setattr(optimizers, "_fused", lambda kind: kind)
    expected = deep_run(settings)
    assert type(found.model.optimizer) is not type(expected.model.optimizer)
    for run in (found, expected):
        fit_runs([run], examples(43), examples(seed=1), 0, "test")
    for one, other in zip(found.state()[1]["optimizer"], expected.state()[1]["optimizer"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(weights_of(found), weights_of(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.numeric
@EVERY_OPTIMIZER
def test_models_that_are_trained_as_one_train_as_each_alone(changes):
    """Also where most end earlier, so that the last goes on by itself, in the middle of its optimizer's work."""
    each = [
        (training(**changes, epochs=9, learning_rate=rate, early_stopping=stop), l2)
        for rate, l2, stop in ((0.001, 0.0, 9), (0.02, 0.01, 1), (0.05, 0.1, 1))
    ]
    # Labeled wrongly: the loss rises while the models learn.
    validation = replace(examples(seed=1), labels=1 - examples(seed=1).labels)
    runs = [deep_run(settings, l2) for settings, l2 in each]
    assert [type(trainer) for trainer in make_trainers([run.model for run in runs])] == [StackedTrainer]
    histories, _ = fit_runs(runs, examples(43), validation, 0, "test")
    assert len(histories[0]) == 9 and min(map(len, histories)) < 9
    for (settings, l2), run, history in zip(each, runs, histories, strict=True):
        alone = deep_run(settings, l2)
        expected, _ = fit_runs([alone], examples(43), validation, 0, "test")
        np.testing.assert_allclose(weights_of(run), weights_of(alone), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(history, expected[0], rtol=1e-3)


class InMemory:
    """Checkpoints of every epoch."""

    def __init__(self, start=None):
        self.start, self.saved = start, {}

    def due(self):
        return True

    def save(self, name, state, arrays):
        self.saved[state["epoch"]] = copy.deepcopy((state, arrays))

    def load(self, name):
        return copy.deepcopy(self.start)


@pytest.mark.numeric
def test_models_trained_as_one_end_with_the_same_bytes_when_training_goes_on_from_any_epoch(monkeypatch):
    monkeypatch.setattr(trainers, "MOST_STACKED", 10**6)  # of these, sums differ with the number of models
    data, validation = examples(128, channels=1024), examples(40, seed=1, channels=1024)
    validation = replace(validation, labels=1 - validation.labels)

    def runs() -> list[TrainingRun]:
        found = []
        for rate, stop in ((1e-5, 9), (1e-5, 9), (1e-3, 4), (1e-3, 2), (1e-3, 1)):
            make_deterministic(0)
            inputs = keras.Input((1024,))
            x = keras.layers.Activation("relu")(keras.layers.Dense(256)(inputs))
            model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
            settings = training(epochs=7, batch_size=128, learning_rate=rate, early_stopping=stop)
            compile_model(model, settings)
            found.append(TrainingRun(model, settings))
        return found

    straight, checkpoints = runs(), InMemory()
    histories, _ = fit_runs(straight, data, validation, 0, "test", checkpoints)
    lengths = list(map(len, histories))
    assert lengths[:2] == [7, 7] and len(set(lengths[2:])) == 3 and max(lengths[2:]) < 7
    for epoch in sorted({*lengths} - {7}):
        resumed = runs()
        again, _ = fit_runs(resumed, data, validation, 0, "test", InMemory(checkpoints.saved[epoch]))
        for one, other, history, same in zip(straight, resumed, histories, again, strict=True):
            np.testing.assert_array_equal(weights_of(one), weights_of(other))
            assert history.equals(same)


def test_models_with_other_layers_are_trained_side_by_side():
    models = [keras.Sequential([keras.Input((4,)), small_model()]) for _ in range(2)]
    for model in models:
        compile_model(model, training())
    assert [type(trainer) for trainer in make_trainers(models)] == [LoopTrainer, LoopTrainer]


def test_large_models_are_trained_side_by_side(monkeypatch):
    models = [run_of(training()).model for _ in range(2)]
    assert [type(trainer) for trainer in make_trainers(models)] == [StackedTrainer]
    monkeypatch.setattr(trainers, "MOST_STACKED", models[0].count_params() - 1)
    assert [type(trainer) for trainer in make_trainers(models)] == [LoopTrainer, LoopTrainer]


def epochs_with(run: TrainingRun, losses: list[float]) -> None:
    for epoch, loss in enumerate(losses, start=1):
        if not run.ended:
            run.end_epoch({"epoch": epoch, "train_loss": 1.0, "validation_loss": loss})


def test_the_learning_rate_falls_on_a_plateau_and_again_on_the_next():
    run = run_of(training(epochs=99, reduce_on_plateau=2))
    epochs_with(run, [1.0, 0.9, 0.95])
    assert run.reduction == 1
    epochs_with(run, [1.0, 0.9, 0.95, 0.93])
    run = run_of(training(epochs=99, reduce_on_plateau=2))
    epochs_with(run, [1.0, 0.9, 0.95, 0.93, 0.91])
    assert run.reduction == pytest.approx(0.2)
    run = run_of(training(epochs=99, reduce_on_plateau=2))
    epochs_with(run, [1.0, 0.9, 0.95, 0.93, 0.91, 0.92])
    assert run.reduction == pytest.approx(0.04)


def test_training_stops_when_the_generalisation_loss_exceeds_alpha_with_the_best_weights():
    run = run_of(training(epochs=99, generalization_loss=0.5))
    epochs_with(run, [1.0, 0.8, 1.1])
    assert not run.ended
    best = run.best_weights
    run.model.set_weights([weight + 1 for weight in run.model.get_weights()])
    run.end_epoch({"epoch": 4, "train_loss": 1.0, "validation_loss": 1.21})
    assert run.ended and run.best["epoch"] == 2
    run.restore_best()
    for kept, now in zip(best, run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)


@pytest.mark.numeric
def test_layers_further_down_learn_more_slowly():
    make_deterministic(0)
    inputs = keras.Input((4,))
    x = inputs
    for number in range(3):
        x = keras.layers.Dense(4, name=f"layer{number}")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax", name="head")(x))
    factors = learning_rate_factors(model.layers[:-1], 0.1)
    before = {layer.name: np.asarray(layer.kernel) for layer in model.layers[1:]}
    compile_model(model, training(optimizer="adam"), factors)
    model.train_on_batch(examples().array, examples().targets())
    # The first step of Adam is as long as the learning rate, whatever the gradient.
    moved = {layer.name: np.abs(np.asarray(layer.kernel) - before[layer.name]).max() for layer in model.layers[1:]}
    expected = {"layer0": 1e-5, "layer1": 1e-4, "layer2": 1e-3, "head": 1e-2}
    assert moved == pytest.approx(expected, rel=0.02)


@pytest.mark.numeric
@pytest.mark.parametrize(("optimizer", "momentum"), [("adam", 0.0), ("adamw", 0.0), ("sgd", 0.9), ("rmsprop", 0.5)])
def test_every_optimizer_learns(optimizer, momentum):
    settings = training(optimizer=optimizer, momentum=momentum, weight_decay=0.001, epochs=30)
    run = run_of(settings)
    (history,), _ = fit_runs([run], examples(), examples(seed=1), 0, "test")
    assert run.model.optimizer.weight_decay == 0.001
    assert getattr(run.model.optimizer, "momentum", 0.0) == momentum
    assert history["validation_accuracy"].iloc[-1] > 0.9


# What is trained on.


def taken(monkeypatch) -> list[Batches]:
    """What training takes from now on, in its order."""
    found = []

    class Noted(KerasTrainer):
        def trainers(self, batches, rates):
            found.append(batches)
            return super().steps(batches, rates)

    monkeypatch.setattr(fitting, "trainers_of", lambda models: [Noted(model) for model in models])
    return found


def test_class_weights_are_those_of_scikit_learn_and_reach_the_training(monkeypatch):
    labels = np.array([0] * 30 + [1] * 10, np.int32)
    np.testing.assert_allclose(class_weights(labels), compute_sample_weight("balanced", labels))
    data = Examples(examples().array, np.arange(40), labels, np.arange(40), 2)
    seen = taken(monkeypatch)
    fit_runs([run_of(training(class_weights="balanced", epochs=1))], data, data, 0, "test")
    (batches,) = seen
    np.testing.assert_allclose(batches.weights, np.where(batches.targets.argmax(axis=1) == 0, 40 / 60, 40 / 20))


def test_label_smoothing_spreads_the_target():
    run = run_of(training(label_smoothing=0.2))
    probabilities = np.array([[0.9, 0.1]], np.float32)
    found = float(run.model.loss(np.array([[1.0, 0.0]], np.float32), probabilities))
    assert found == pytest.approx(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)), rel=1e-5)


def test_mixup_mixes_inputs_and_targets_by_the_same_share():
    data = examples(10, classes=10)
    inputs, targets = mixup(data.array, data.targets(), 0.4, np.random.default_rng(3))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    # The targets of ten classes say which examples were mixed, and how.
    np.testing.assert_allclose(inputs, targets @ data.array, rtol=1e-4, atol=1e-5)
    pixels = RANDOM.integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    assert mixup(pixels, np.eye(4, dtype=np.float32), 0.4, np.random.default_rng(3))[0].dtype == np.uint8


def test_views_are_for_training_and_stand_for_the_same_images():
    data = examples(6)
    shown = data.with_views(3, images=100)
    np.testing.assert_array_equal(shown.rows, [*range(6), *range(100, 106), *range(200, 206)])
    np.testing.assert_array_equal(shown.index, np.tile(np.arange(6), 3))
    np.testing.assert_array_equal(shown.labels, np.tile(data.labels, 3))


CHANGES = [
    {"rotation": 30.0},
    {"shift": 0.2},
    {"zoom": 0.3},
    {"shear": 20.0},
    {"flip": "horizontal"},
    {"flip": "vertical"},
    {"noise": 0.1},
    {"brightness": 0.2},
    {"contrast": 0.5},
    {"rotation": 30.0, "fill": "constant"},
]


@pytest.mark.numeric
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_augmentation_changes_images_in_training_only_and_each_time_anew(change):
    make_deterministic(1)
    pixels = RANDOM.integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)
    images = keras.Input((12, 12, 3), dtype="uint8")
    model = with_augmentation(keras.Model(images, keras.layers.Identity()(images)), AugmentationConfig(**change))
    np.testing.assert_array_equal(model(pixels), pixels)
    np.testing.assert_array_equal(model.predict_on_batch(pixels), pixels)
    once, twice = (np.asarray(model(pixels, training=True)) for _ in range(2))
    assert once.dtype == np.uint8 and once.shape == pixels.shape
    assert not np.array_equal(once, pixels) and not np.array_equal(once, twice)


@pytest.mark.numeric
@pytest.mark.parametrize(("flip", "axes"), [("horizontal", 2), ("vertical", 1), ("both", (1, 2))])
def test_a_view_that_is_flipped_is_flipped_for_certain(flip, axes):
    pixels = RANDOM.integers(0, 256, (9, 5, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Augment(AugmentationConfig(flip=flip), always=True)(pixels), np.flip(pixels, axes))


def test_rotation_is_in_degrees_and_noise_a_share_of_the_range():
    make_deterministic(0)
    gray = np.full((64, 32, 32, 3), 128, np.uint8)
    noisy = np.asarray(Augment(AugmentationConfig(noise=0.1), always=True)(gray)).astype(float)
    assert noisy.std() == pytest.approx(25.5, rel=0.05)
    # A line through the middle, turned by up to 10 degrees, stays within that cone.
    line = np.zeros((64, 65, 65, 3), np.uint8)
    line[:, 32] = 255
    turned = np.asarray(Augment(AugmentationConfig(rotation=10.0, fill="constant"), always=True)(line))[..., 0]
    ys, xs = np.nonzero(turned.max(axis=0) > 100)
    far = np.abs(xs - 32) > 20
    angles = np.degrees(np.arctan2(np.abs(ys[far] - 32), np.abs(xs[far] - 32)))
    assert 6 < angles.max() < 12.5


# A choice of settings, and the linear head that is solved.


@pytest.mark.numeric
def test_of_several_candidates_each_trains_as_alone_and_the_best_on_validation_is_kept():
    parts = {split: examples(seed=seed) for seed, split in enumerate(("train", "validation", "test"))}
    origin = Provenance(kind="head", task="t", backbone="b", weights_sha256=None)

    def build(l2: float) -> BuiltModel:
        model = small_model(l2=l2)
        return BuiltModel(model, model)

    def trained(name, candidates):
        return train_repeats(name, build, candidates, parts, parts["train"], 0, origin, name)

    candidates = [(training(learning_rate=rate, repeats=2), l2) for rate in (1e-5, 0.03) for l2 in (0.0, 5.0)]
    _, result = trained("all", candidates)
    tried = result.record.candidates
    assert [(each.learning_rate, each.l2) for each in tried] == [(1e-5, 0.0), (1e-5, 5.0), (0.03, 0.0), (0.03, 5.0)]
    best = min(tried, key=lambda each: each.validation_loss)
    assert [each for each in tried if each.chosen] == [best]
    for candidate, each in zip(candidates, tried, strict=True):
        _, alone = trained(f"{each.learning_rate}-{each.l2}", [candidate])
        of_first = alone.history[alone.history["repeat"] == 0]
        assert of_first["validation_loss"].iloc[-1] == pytest.approx(each.validation_loss, rel=1e-4)
        if each.chosen:
            first, second = (found.predictions["test"].probabilities for found in (alone, result))
            np.testing.assert_allclose(first[0], second[0], rtol=1e-4)
            np.testing.assert_array_equal(first[1], second[1])  # in the second repeat nothing else is trained


@pytest.mark.parametrize(("count", "channels"), [(60, 5), (20, 50)])
def test_the_solved_head_is_ridge_regression(count, channels):
    data = examples(count, classes=3, channels=channels)
    weights = RANDOM.uniform(0.5, 1.5, count)
    statistics = channel_statistics(data.array, data.rows)
    strengths = [1e-3, 0.1, 10.0]
    scaled = (data.array - statistics[0]) / np.sqrt(statistics[1])
    for probe in solve_ridge(data.array, data.rows, data.targets(), weights, statistics, strengths):
        # scikit-learn sums the squared errors, here they are averaged.
        expected = Ridge(alpha=probe.l2 * weights.sum()).fit(scaled, data.targets(), sample_weight=weights)
        np.testing.assert_allclose(probe.kernel, expected.coef_.T, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(probe.bias, expected.intercept_, rtol=1e-5, atol=1e-8)


def test_calibration_lowers_the_loss_and_keeps_the_order():
    data, other = examples(60, classes=3), examples(60, classes=3, seed=1)
    statistics = channel_statistics(data.array, data.rows)
    (probe,) = solve_ridge(data.array, data.rows, data.targets(), np.ones(60), statistics, [0.1])
    raw = probe_scores(probe, other.array, other.rows, statistics)
    scaled = calibrate(probe, raw, other.labels)
    factor = (scaled.kernel / probe.kernel).mean()
    np.testing.assert_allclose(scaled.kernel, factor * probe.kernel, rtol=1e-9)

    def loss(scale):
        exponentials = np.exp(scale * raw)
        return -np.log((exponentials / exponentials.sum(axis=1, keepdims=True))[np.arange(60), other.labels]).mean()

    assert factor > 0 and loss(factor) <= min(loss(factor * 1.1), loss(factor / 1.1), loss(1.0))


ORIGIN = Provenance(kind="head", task="t", backbone="b", weights_sha256=None)


def solved(parts: dict[str, Examples], strengths: list[float], **settings):
    train = parts["train"]
    statistics = channel_statistics(train.array, train.rows)

    def build() -> keras.Model:
        head = build_head(HeadConfig(task="t", features="f", kind="ridge"), train.classes, [4], "four_conv", 32, "fc1")
        set_statistics(head, *statistics)
        return head

    return solve_head("probe", build, strengths, parts, train, statistics, training(**settings), ORIGIN)


def test_the_strength_of_a_solved_head_is_chosen_on_validation_images():
    parts = {split: examples(40, 3, seed) for seed, split in enumerate(("train", "validation", "test"))}
    head, result = solved(parts, [1e-6, 1e-2, 1e6])
    tried = result.record.candidates
    assert [each.l2 for each in tried] == [1e-6, 1e-2, 1e6] and {each.learning_rate for each in tried} == {None}
    (chosen,) = [each for each in tried if each.chosen]
    assert chosen.validation_loss == min(each.validation_loss for each in tried) and chosen.l2 != 1e6
    found = head.predict_on_batch(parts["test"].array)
    np.testing.assert_allclose(found, result.predictions["test"].probabilities[0], rtol=1e-5, atol=1e-7)
    assert (found.argmax(axis=1) == parts["test"].labels).mean() > 0.9
    assert len(result.history) == 1 and result.record.repeats == 1


def test_a_head_that_cannot_be_solved_is_an_error(monkeypatch):
    monkeypatch.setattr("stages.training.solving.LARGEST", 3)
    parts = {split: examples(40) for split in ("train", "validation", "test")}
    with pytest.raises(UserError, match=r"^heads\.probe\.kind: ridge would decompose a matrix of 4 x 4, .* max_train"):
        solved(parts, [0.1])


def test_a_head_on_frozen_features_learns_a_hundred_classes():
    """Raw activations of very different sizes, as those of a deep network: the published head got 4 % right here."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(100, 64))
    sizes = 10 ** random.uniform(-1, 3.5, 64)
    parts = {}
    for split, count in (("train", 2000), ("validation", 500), ("test", 500)):
        labels = (np.arange(count) % 100).astype(np.int32)
        array = (np.maximum(centres[labels] + 0.4 * random.normal(size=(count, 64)), 0) * sizes).astype(np.float16)
        parts[split] = Examples(array, np.arange(count), labels, np.arange(count), 100)
    statistics = channel_statistics(parts["train"].array, parts["train"].rows)

    def build(l2: float) -> BuiltModel:
        head = build_head(HeadConfig(task="t", features="f"), 100, [64], "four_conv", 32, "fc1", l2)
        set_statistics(head, *statistics)
        return BuiltModel(head, head)

    settings = training(epochs=40, batch_size=32, learning_rate=0.003)
    _, result = train_repeats("many", build, [(settings, 0.0)], parts, parts["train"], 0, ORIGIN, None)
    test = result.predictions["test"]
    assert (test.probabilities[0].argmax(axis=1) == parts["test"].labels).mean() > 0.95


# Going on after a kill.


def train_slowly(folder: Path, epochs: Connection) -> None:
    """Train in a folder and write there what comes of it; every epoch is told when it has ended, and waits a little."""
    end_epoch = TrainingRun.end_epoch

    def slow(self, row):
        end_epoch(self, row)
        epochs.send(row["epoch"])
        time.sleep(0.05)

    def build(l2: float) -> BuiltModel:
        model = small_model()
        return BuiltModel(model, model)

    os.chdir(folder)
    TrainingRun.end_epoch = slow
    parts = {split: examples(seed=seed) for seed, split in enumerate(("train", "validation", "test"))}
    settings = training(epochs=8, repeats=2, schedule="cosine", reduce_on_plateau=2, mixup=0.2, early_stopping=6)
    model, result = train_repeats("killed", build, [(settings, 0.0)], parts, parts["train"], 0, ORIGIN, "test")
    np.savez("out.npz", *model.get_weights(), result.predictions["test"].probabilities)
    result.history.to_csv("out.csv")


def start(folder: Path) -> tuple[BaseProcess, Connection]:
    """`train_slowly` in a process of its own; the epochs that have ended can be received."""
    # A server that has imported all this forks the processes: importing TensorFlow takes longer than the training.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=train_slowly, args=(folder, sender))
    process.start()
    sender.close()
    return process, receiver


def test_a_training_that_is_killed_ten_times_ends_as_one_that_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where the server finds this module
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    process, _ = start(straight)
    process.join()
    assert process.exitcode == 0
    epochs, random = [], np.random.default_rng(int(time.time()))
    for _ in range(10):
        process, ended = start(killed)
        with contextlib.suppress(EOFError):  # it came to its end
            for _ in range(random.integers(1, 4)):
                epochs.append(ended.recv())
        time.sleep(random.uniform(0, 0.15))
        process.kill()
        process.join()
    process, _ = start(killed)
    process.join()
    assert process.exitcode == 0
    # It went on: with 8 epochs of each of 2 repeats, ten starts from nothing would never come past the second.
    assert max(epochs) > 4
    for file in ("out.npz", "out.csv"):
        assert (straight / file).read_bytes() == (killed / file).read_bytes()


def test_what_was_saved_of_another_training_is_not_taken_up():
    parts = {split: examples(seed=seed) for seed, split in enumerate(("train", "validation", "test"))}

    def build(l2: float) -> BuiltModel:
        model = small_model()
        return BuiltModel(model, model)

    def losses(fingerprint: str, rate: float) -> list[float]:
        candidates = [(training(learning_rate=rate), 0.0)]
        _, result = train_repeats("same", build, candidates, parts, parts["train"], 0, ORIGIN, fingerprint)
        return result.history["train_loss"].tolist()

    first = losses("one", 0.01)
    assert losses("one", 0.03) == first  # the very same training is not done again
    assert losses("two", 0.03) != first
