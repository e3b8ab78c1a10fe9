"""What the settings of a training do, each by itself on small models."""

import contextlib
import copy
import math
import multiprocessing
import os
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from stages.artifacts.models import ModelResult
from stages.backbones.augmentation import Augment, with_augmentation
from stages.backbones.runtime import make_deterministic
from stages.config.augmentation import AugmentationConfig
from stages.config.heads import HeadConfig
from stages.config.training import TrainingConfig
from stages.probes.standardization import channel_statistics
from stages.training import fitting, optimizers, stacked
from stages.training.batches import Examples, TrainingBatches, class_weights, mixup, steps_per_epoch
from stages.training.checkpoints import Checkpoints
from stages.training.fitting import TrainingRun, fit_runs
from stages.training.heads import add_head, set_statistics
from stages.training.optimizers import compile_model, learning_rate_factors
from stages.training.repeats import train_repeats
from stages.training.schedules import TrainingSchedule
from stages.training.specification import BuiltModel, ModelDescription, TrainingData, TrainingSpec
from stages.training.stacked import can_stack
from tests.example_results import model_record

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


def run_of(settings: TrainingConfig, data: Examples | None = None, model=small_model, **options) -> TrainingRun:
    make_deterministic(0)
    built = model(**options)
    compile_model(built, settings, steps_per_epoch(data or examples(), settings))
    return TrainingRun(built, settings)


def trained(
    name: str, candidates: list[tuple[TrainingConfig, float]], parts=None, build=None
) -> tuple[keras.Model, ModelResult]:
    """Train the small model, or the one that `build` makes, with every setting of a stage."""

    def build_small(_: int, l2: float) -> BuiltModel:
        model = small_model(l2=l2)
        return BuiltModel(model, model)

    record = vars(model_record(name, "head")).copy()
    description = ModelDescription(**{key: record[key] for key in ModelDescription.__annotations__ if key in record})
    parts = parts or splits()
    spec = TrainingSpec(description, candidates, [0] * candidates[0][0].repeats)
    result = train_repeats(spec, build or build_small, {0: TrainingData(parts, parts["train"])})
    return result.model, result.result


def splits(**sizes: int) -> dict[str, Examples]:
    return {
        split: examples(sizes.get(split, 40), seed=seed) for seed, split in enumerate(("train", "validation", "test"))
    }


# The learning rate.


def rates(settings: TrainingConfig, steps: int = 10) -> np.ndarray:
    """The rates of all steps, with this many steps in an epoch."""
    return np.asarray(TrainingSchedule(settings, steps)(np.arange(settings.epochs * steps)))


def test_the_exponential_schedule_is_that_of_keras():
    keras_schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 7, 0.5)
    expected = [float(keras_schedule(step)) for step in range(30)]
    np.testing.assert_allclose(rates(training(schedule="exponential", decay=0.5, decay_steps=7)), expected, rtol=1e-5)


def test_the_cosine_schedule_is_that_of_keras():
    keras_schedule = keras.optimizers.schedules.CosineDecay(0.01, 30)
    expected = [float(keras_schedule(step)) for step in range(30)]
    np.testing.assert_allclose(rates(training(schedule="cosine")), expected, rtol=1e-4, atol=1e-8)


def test_the_warm_up_rises_to_the_full_rate_and_the_schedule_starts_after_it():
    rising = rates(training(epochs=4, warm_up=1, schedule="cosine"))
    np.testing.assert_allclose(rising[:10], 0.01 * np.arange(1, 11) / 11, rtol=1e-6)
    assert rising[10] == pytest.approx(0.01)
    assert rising.tolist() == [*sorted(rising[:11]), *sorted(rising[11:], reverse=True)]


@given(st.sampled_from(["constant", "exponential", "cosine"]), st.integers(0, 3), st.integers(4, 9), st.integers(1, 50))
def test_a_learning_rate_is_never_above_the_full_rate_nor_below_zero(schedule, warm_up, epochs, steps):
    settings = training(schedule=schedule, warm_up=warm_up, epochs=epochs)
    # float32 has seven digits.
    assert rates(settings, steps).min() >= 0 and rates(settings, steps).max() <= 0.01 * (1 + 1e-6)


def test_a_schedule_is_built_again_from_its_configuration():
    schedule = TrainingSchedule(training(schedule="cosine", warm_up=1), 10)
    rebuilt = TrainingSchedule.from_config(schedule.get_config())
    np.testing.assert_array_equal(rebuilt(np.arange(30)), schedule(np.arange(30)))


def deep_model(l2: float = 0.0) -> keras.Model:
    """A model with every kind of layer of a dense head."""
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization(center=False, scale=False, trainable=False)(inputs)
    # Without a bias: below a batch normalization its gradient is only rounding error, which Adam would amplify.
    x = keras.layers.Dense(6, use_bias=False, kernel_regularizer=keras.regularizers.L2(l2) if l2 else None)(x)
    x = keras.layers.Dropout(0.2)(keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x)))
    return keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))


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
def test_training_takes_the_steps_of_train_on_batch(changes):
    settings, data = training(**changes), examples(43)
    run, expected = run_of(settings, data, deep_model), run_of(settings, data, deep_model).model
    fit_runs([run], data, examples(seed=1), 0)
    batches = TrainingBatches(data, settings, 0)
    expected_rates, learning_rates = rates(settings, 6), []
    for step in range(18):
        inputs, targets, weights = batches[step]
        learning_rates.append(float(expected.optimizer.learning_rate))
        expected.train_on_batch(inputs, targets, sample_weight=weights)
    # float32 has seven digits, of which the 18 steps may cost three. Statistics of batch normalization are not trained.
    for actual, weight in zip(run.model.trainable_variables, expected.trainable_variables, strict=True):
        np.testing.assert_allclose(actual, weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learning_rates, expected_rates, rtol=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_fused_adam_is_that_of_keras(optimizer, monkeypatch):
    settings, data = training(optimizer=optimizer, epochs=5), examples(43)
    fused = run_of(settings, data, deep_model)
    monkeypatch.setattr(optimizers, "_fused", lambda kind: kind)
    plain = run_of(settings, data, deep_model)
    assert type(fused.model.optimizer) is not type(plain.model.optimizer)
    for run in (fused, plain):
        fit_runs([run], data, examples(seed=1), 0)
    for actual, expected in zip(fused.state()[1]["optimizer"], plain.state()[1]["optimizer"], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(weights_of(fused), weights_of(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.numeric
@EVERY_OPTIMIZER
def test_stacked_models_train_as_each_would_alone(changes):
    """Two of three end early, so the last one continues by itself, in the middle of its optimizer's work."""
    candidates = [
        (training(**changes, epochs=9, learning_rate=rate, early_stopping=stop), l2)
        for rate, l2, stop in ((0.001, 0.0, 9), (0.02, 0.01, 1), (0.05, 0.1, 1))
    ]
    data = examples(43)
    # With wrong labels the loss rises while the models learn.
    validation = replace(examples(seed=1), labels=1 - examples(seed=1).labels)
    runs = [run_of(settings, data, deep_model, l2=l2) for settings, l2 in candidates]
    assert can_stack([run.model for run in runs])
    histories, _ = fit_runs(runs, data, validation, 0)
    assert len(histories[0]) == 9 and min(map(len, histories)) < 9
    for (settings, l2), run, history in zip(candidates, runs, histories, strict=True):
        alone = run_of(settings, data, deep_model, l2=l2)
        expected, _ = fit_runs([alone], data, validation, 0)
        np.testing.assert_allclose(weights_of(run), weights_of(alone), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(history, expected[0], rtol=1e-3)


@pytest.mark.numeric
def test_a_plateau_slows_only_the_stacked_model_that_is_on_it():
    data = examples(43)
    validation = replace(examples(seed=1), labels=1 - examples(seed=1).labels)

    def runs() -> list[TrainingRun]:
        changes = {"epochs": 5, "optimizer": "sgd"}
        return [
            run_of(training(**changes, learning_rate=rate, reduce_on_plateau=wait), data)
            for rate, wait in ((0.05, None), (0.1, 1))
        ]

    together, alone = runs(), runs()
    fit_runs(together, data, validation, 0)
    assert [run.reduction < 1 for run in together] == [False, True]
    for run, expected in zip(together, alone, strict=True):
        fit_runs([expected], data, validation, 0)
        np.testing.assert_allclose(weights_of(run), weights_of(expected), rtol=1e-3, atol=1e-5)


class MemorySlot:
    """A checkpoint slot in memory that keeps the state after every epoch."""

    def __init__(self, start=None):
        self.start, self.states = start, []

    def part(self, number):
        return self

    def due(self):
        return True

    def save(self, state, arrays):
        self.states.append(copy.deepcopy((state, arrays)))

    def load(self):
        return copy.deepcopy(self.start)


@pytest.mark.numeric
def test_stacked_models_end_with_the_same_bytes_when_training_resumes_after_any_epoch(monkeypatch):
    monkeypatch.setattr(stacked, "MAX_STACKED_WEIGHTS", 10**6)  # sums of these differ with the number of models
    data, validation = examples(128, channels=1024), examples(40, seed=1, channels=1024)
    validation = replace(validation, labels=1 - validation.labels)

    def wide_model() -> keras.Model:
        inputs = keras.Input((1024,))
        x = keras.layers.Activation("relu")(keras.layers.Dense(256)(inputs))
        return keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))

    def runs() -> list[TrainingRun]:
        return [
            run_of(training(epochs=7, batch_size=128, learning_rate=rate, early_stopping=stop), data, wide_model)
            for rate, stop in ((1e-5, 9), (1e-5, 9), (1e-3, 4), (1e-3, 2), (1e-3, 1))
        ]

    uninterrupted, slot = runs(), MemorySlot()
    histories, _ = fit_runs(uninterrupted, data, validation, 0, slot=slot)
    lengths = list(map(len, histories))
    assert lengths[:2] == [7, 7] and len(set(lengths[2:])) == 3 and max(lengths[2:]) < 7
    for epoch in sorted({*lengths} - {7}):
        resumed = runs()
        repeated, _ = fit_runs(resumed, data, validation, 0, slot=MemorySlot(slot.states[epoch - 1]))
        for expected, actual, history, again in zip(uninterrupted, resumed, histories, repeated, strict=True):
            np.testing.assert_array_equal(weights_of(expected), weights_of(actual))
            assert history.equals(again)


@pytest.mark.numeric
def test_training_with_fit_ends_with_the_same_bytes_when_it_resumes_after_any_epoch():
    settings = training(
        epochs=8, schedule="cosine", reduce_on_plateau=1, mixup=0.3, early_stopping=5, class_weights="balanced"
    )
    data, validation = examples(43), replace(examples(seed=1), labels=1 - examples(seed=1).labels)
    uninterrupted, slot = run_of(settings, data, deep_model), MemorySlot()
    (history,), _ = fit_runs([uninterrupted], data, validation, 0, slot=slot)
    assert uninterrupted.reduction < 1 and len(slot.states) == len(history) > 4
    for state in slot.states:
        resumed = run_of(settings, data, deep_model)
        (repeated,), _ = fit_runs([resumed], data, validation, 0, slot=MemorySlot(state))
        np.testing.assert_array_equal(weights_of(uninterrupted), weights_of(resumed))
        assert history.equals(repeated)


def test_images_take_a_few_steps_in_a_call_and_features_a_whole_epoch():
    settings = training(batch_size=1)

    def steps(array: np.ndarray) -> int:
        rows = np.arange(len(array))
        data = Examples(array, rows, np.zeros(len(rows), np.int32), rows, 2)
        return fitting._steps_per_call(TrainingBatches(data, settings, 0))

    assert [steps(np.zeros((count, 2, 2, 3), np.uint8)) for count in (5, 60, 64, 101)] == [5, 30, 32, 1]
    assert steps(np.zeros((101, 4), np.float32)) == 101


def test_models_with_other_layers_or_many_weights_are_not_stacked(monkeypatch):
    models = [keras.Sequential([keras.Input((4,)), small_model()]) for _ in range(2)]
    assert not can_stack(models)
    models = [run_of(training()).model for _ in range(2)]
    assert can_stack(models) and can_stack(models[:1])
    monkeypatch.setattr(stacked, "MAX_STACKED_WEIGHTS", models[0].count_params() - 1)
    assert not can_stack(models)


@pytest.mark.numeric
def test_models_that_are_not_stacked_train_one_after_another(monkeypatch):
    monkeypatch.setattr(stacked, "MAX_STACKED_WEIGHTS", 0)
    runs = [run_of(training(learning_rate=rate)) for rate in (0.001, 0.02)]
    fit_runs(runs, examples(), examples(seed=1), 0)
    for run in runs:
        alone = run_of(run.settings)
        fit_runs([alone], examples(), examples(seed=1), 0)
        np.testing.assert_array_equal(weights_of(run), weights_of(alone))


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


def test_training_stops_when_the_generalization_loss_exceeds_alpha_with_the_best_weights():
    run = run_of(training(epochs=99, generalization_loss=0.5))
    epochs_with(run, [1.0, 0.8, 1.1])
    assert not run.ended
    best = run.best_weights
    run.model.set_weights([weight + 1 for weight in run.model.get_weights()])
    run.end_epoch({"epoch": 4, "train_loss": 1.0, "validation_loss": 1.21})
    assert run.ended and run.best["epoch"] == 2
    run.restore_best()
    for expected, restored in zip(best, run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, restored)


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
    compile_model(model, training(optimizer="adam"), 1, factors)
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
    (history,), _ = fit_runs([run], examples(), examples(seed=1), 0)
    assert run.model.optimizer.weight_decay == 0.001
    assert getattr(run.model.optimizer, "momentum", 0.0) == momentum
    assert history["validation_accuracy"].iloc[-1] > 0.9


# The training examples.


def test_class_weights_are_those_of_scikit_learn_and_reach_the_training():
    labels = np.array([0] * 30 + [1] * 10, np.int32)
    np.testing.assert_allclose(class_weights(labels), compute_sample_weight("balanced", labels))
    data = Examples(examples().array, np.arange(40), labels, np.arange(40), 2)
    batch = TrainingBatches(data, training(class_weights="balanced"), 0)[0]
    np.testing.assert_allclose(batch.weights, np.where(batch.targets.argmax(axis=1) == 0, 40 / 60, 40 / 20))


def test_mixup_depends_on_the_seed_the_epoch_and_the_batch_alone():
    settings = training(mixup=0.4)
    batches = TrainingBatches(examples(), settings, 0)
    later = [batches[step] for step in (7, 3, 12)]
    for step, batch in zip((7, 3, 12), later, strict=True):
        for actual, expected in zip(TrainingBatches(examples(), settings, 0)[step], batch, strict=True):
            np.testing.assert_array_equal(actual, expected)
    assert not np.array_equal(TrainingBatches(examples(), settings, 1)[3].inputs, later[1].inputs)


def test_label_smoothing_spreads_the_target():
    run = run_of(training(label_smoothing=0.2))
    probabilities = np.array([[0.9, 0.1]], np.float32)
    loss = float(run.model.loss(np.array([[1.0, 0.0]], np.float32), probabilities))
    assert loss == pytest.approx(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)), rel=1e-5)


def test_mixup_mixes_inputs_and_targets_by_the_same_share():
    data = examples(10, classes=10)
    inputs, targets = mixup(data.array, data.targets(), 0.4, np.random.default_rng(3))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    # The targets of ten classes say which examples were mixed, and how.
    np.testing.assert_allclose(inputs, targets @ data.array, rtol=1e-4, atol=1e-5)
    pixels = RANDOM.integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    assert mixup(pixels, np.eye(4, dtype=np.float32), 0.4, np.random.default_rng(3))[0].dtype == np.uint8


def test_views_stand_for_the_same_images():
    data = examples(6)
    views = data.with_views(3, images=100)
    np.testing.assert_array_equal(views.rows, [*range(6), *range(100, 106), *range(200, 206)])
    np.testing.assert_array_equal(views.index, np.tile(np.arange(6), 3))
    np.testing.assert_array_equal(views.labels, np.tile(data.labels, 3))


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


# Candidates.


@pytest.mark.numeric
def test_each_candidate_trains_as_it_would_alone_and_the_best_on_validation_is_kept():
    candidates = [(training(learning_rate=rate, repeats=2), l2) for rate in (1e-5, 0.03) for l2 in (0.0, 5.0)]
    _, result = trained("all", candidates)
    results = result.record.candidates
    assert [(candidate.learning_rate, candidate.l2) for candidate in results] == [
        *((1e-5, 0.0), (1e-5, 5.0), (0.03, 0.0), (0.03, 5.0))
    ]
    best = min(results, key=lambda candidate: candidate.validation_loss)
    assert [candidate for candidate in results if candidate.chosen] == [best]
    assert result.record.training["learning_rate"] == best.learning_rate
    for candidate, expected in zip(candidates, results, strict=True):
        _, alone = trained(f"{expected.learning_rate}-{expected.l2}", [candidate])
        first_repeat = alone.history[alone.history["repeat"] == 0]
        assert first_repeat["validation_loss"].iloc[-1] == pytest.approx(expected.validation_loss, rel=1e-4)
        if expected.chosen:
            alone, together = (part.predictions["test"].probabilities for part in (alone, result))
            np.testing.assert_allclose(alone[0], together[0], rtol=1e-4)
            np.testing.assert_array_equal(alone[1], together[1])  # only the chosen candidate trains in later repeats


@pytest.mark.numeric
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

    def build(_: int, l2: float) -> BuiltModel:
        features = keras.Input((64,))
        standardize = keras.layers.BatchNormalization(
            center=False, scale=False, epsilon=1e-12, trainable=False, name="standardize"
        )
        below = keras.Model(features, standardize(features))
        head = add_head(below, HeadConfig(task="t", features="f"), 100, l2, "head")
        set_statistics(head, *statistics)
        return BuiltModel(head, head)

    settings = training(epochs=40, batch_size=32, learning_rate=0.003)
    _, result = trained("many", [(settings, 0.0)], parts, build)
    test = result.predictions["test"]
    assert (test.probabilities[0].argmax(axis=1) == parts["test"].labels).mean() > 0.95


# Resuming after a kill.


def train_slowly(folder: Path, epochs: Connection) -> None:
    """Train in a folder and write the results there; send the number of every epoch that ends, and wait a little."""
    end_epoch = TrainingRun.end_epoch

    def slow(self, row):
        end_epoch(self, row)
        epochs.send(row["epoch"])
        time.sleep(0.05)

    os.chdir(folder)
    TrainingRun.end_epoch = slow
    settings = training(epochs=8, repeats=2, schedule="cosine", reduce_on_plateau=2, mixup=0.2, early_stopping=6)
    model, result = trained("killed", [(settings, 0.0)])
    np.savez("out.npz", *model.get_weights(), result.predictions["test"].probabilities)
    result.history.to_csv("out.csv")


def start(folder: Path) -> tuple[BaseProcess, Connection]:
    """`train_slowly` in a process of its own; the connection receives the epochs that have ended."""
    # A server that has imported TensorFlow forks the processes: the import takes longer than the training.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=train_slowly, args=(folder, sender))
    process.start()
    sender.close()
    return process, receiver


def test_a_training_that_is_killed_ten_times_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where the server finds this module
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    uninterrupted.mkdir()
    killed.mkdir()
    process, _ = start(uninterrupted)
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
    # It resumed: of 2 repeats of 8 epochs, ten starts from the first epoch would never pass the third.
    assert max(epochs) > 4
    for file in ("out.npz", "out.csv"):
        assert (uninterrupted / file).read_bytes() == (killed / file).read_bytes()


def test_a_checkpoint_of_another_training_is_not_resumed():
    def losses(rate: float) -> list[float]:
        _, result = trained("same", [(training(learning_rate=rate), 0.0)])
        return result.history["train_loss"].tolist()

    first = losses(0.01)
    assert losses(0.01) == first
    assert losses(0.03) != first


def test_only_code_that_is_imported_decides_whether_a_checkpoint_is_resumed(monkeypatch):
    Checkpoints("model", "same").save("epoch", {"value": 1}, {})
    assert Checkpoints("model", "same").load("epoch") == ({"value": 1}, {})
    package = ModuleType("stages.imported")
    package.__file__ = str(Path("imported.py").absolute())
    Path("imported.py").write_text("")
    monkeypatch.setitem(sys.modules, "stages.imported", package)
    assert Checkpoints("model", "same").load("epoch") is None


def test_a_damaged_checkpoint_is_ignored():
    checkpoints = Checkpoints("model", "same")
    checkpoints.save("epoch", {"value": 1}, {"weights": [np.ones(3)]})
    file = checkpoints.folder / "epoch.npz"
    file.write_bytes(file.read_bytes()[:50])
    assert checkpoints.load("epoch") is None
