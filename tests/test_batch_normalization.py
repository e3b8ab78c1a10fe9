"""Trained batch normalization predicts with the statistics of the training images under the final weights."""

import copy
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.artifacts.models import cross_entropy
from stages.artifacts.tasks import SPLITS
from stages.backbones.augmentation import with_augmentation
from stages.backbones.building import build_backbone, layer_names
from stages.backbones.cuts import up_to_cut
from stages.backbones.registry import ARCHITECTURES
from stages.backbones.runtime import computing_in, make_deterministic
from stages.config.augmentation import AugmentationConfig
from stages.config.networks import NetworkConfig
from stages.config.training import TrainingConfig
from stages.evaluation.sanity import _untypical_statistics
from stages.training import batch_normalization, repeats, stacked
from stages.training.batch_normalization import (
    StatisticsEstimator,
    StatisticsSample,
    batch_statistics_gap,
    moving_statistics,
    pool_moments,
    trained_normalization,
)
from stages.training.batches import Examples, TrainingBatches, steps_per_epoch
from stages.training.fitting import TrainingRun, fit_runs, predict_probabilities
from stages.training.full_model import build_network, freeze
from stages.training.optimizers import compile_model
from stages.training.repeats import train_repeats
from stages.training.specification import BuiltModel, ModelDescription, TrainingData, TrainingSpec
from tests.example_results import model_record

pytestmark = pytest.mark.numeric


def training(**changes) -> TrainingConfig:
    given = {"epochs": 2, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.01, "early_stopping": None}
    return TrainingConfig(**{**given, "repeats": 1, "max_train_per_class": None, **changes})


def colored(count: int, size: int = 8, seed: int = 0) -> Examples:
    """Noise in three colors."""
    random, labels = np.random.default_rng(seed), (np.arange(count) % 3).astype(np.int32)
    pixels = random.integers(0, 156, (count, size, size, 3), dtype=np.uint8)
    pixels[np.arange(count), :, :, labels] += 50
    return Examples(pixels, np.arange(count), labels, np.arange(count), 3)


def points(count: int, seed: int = 0) -> Examples:
    """Features of three classes, with means far from zero."""
    random, labels = np.random.default_rng(seed), (np.arange(count) % 3).astype(np.int32)
    array = (random.normal(size=(count, 6)) + 3 * np.eye(3, 6)[labels] + 5).astype(np.float32)
    return Examples(array, np.arange(count), labels, np.arange(count), 3)


def network(momentum: float = 0.999, rate: float = 0.3) -> keras.Model:
    """Two layers of batch normalization, with dropout between them, as in a small convolutional network."""
    images = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Conv2D(6, 3, use_bias=False)(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=momentum, name="lower")(x))
    x = keras.layers.Conv2D(6, 3, use_bias=False)(keras.layers.Dropout(rate)(x))
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=momentum, name="upper")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(3, "softmax", dtype="float32")(x))


def head(momentum: float = 0.999) -> keras.Model:
    """A head that can be stacked."""
    features = keras.Input((6,))
    x = keras.layers.Dense(8, use_bias=False, name="dense")(features)
    x = keras.layers.BatchNormalization(momentum=momentum, name="lower")(x)
    x = keras.layers.Dropout(0.3)(keras.layers.Activation("relu")(x))
    return keras.Model(features, keras.layers.Dense(3, "softmax", name="predictions")(x))


def run_of(build, settings: TrainingConfig, data: Examples) -> TrainingRun:
    make_deterministic(1)
    model = build()
    compile_model(model, settings, steps_per_epoch(data, settings))
    return TrainingRun(model, settings)


def arrays(variables) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assert_equal(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def accuracy(model: keras.Model, data: Examples) -> float:
    return float((predict_probabilities(model, data).argmax(axis=1) == data.labels).mean())


@pytest.fixture(params=["stacked", "with fit"])
def trainer(request, monkeypatch):
    if request.param == "with fit":
        monkeypatch.setattr(stacked, "MAX_STACKED_WEIGHTS", 0)


def test_the_stored_statistics_are_those_of_the_training_images_under_the_final_weights(trainer):
    data, settings = points(100), training()
    run = run_of(head, settings, data)
    fit_runs([run], data, points(30, seed=1), 0)
    layer = run.model.get_layer("lower")
    activations = data.array.astype(np.float64) @ np.asarray(run.model.get_layer("dense").kernel)
    # The sample is all images; float32 has seven digits.
    np.testing.assert_allclose(layer.moving_mean, activations.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, activations.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize(("build", "data"), [(network, colored), (head, points)])
def test_neither_weights_nor_history_depend_on_the_momentum(build, data):
    runs = [run_of(lambda momentum=momentum: build(momentum), training(), data(60)) for momentum in (0.999, 0.5)]
    (first,), (second,) = (fit_runs([run], data(60), data(30, seed=1), 0)[0] for run in runs)
    assert first.equals(second)
    assert_equal(runs[0].model.get_weights(), runs[1].model.get_weights())


@pytest.mark.parametrize(("build", "data"), [(network, colored), (head, points)])
def test_estimating_changes_neither_the_training_nor_the_random_numbers(build, data, monkeypatch):
    runs = [run_of(build, training(epochs=3), data(60)) for _ in range(2)]
    histories = [fit_runs(runs[:1], data(60), data(30, seed=1), 0)[0][0]]
    monkeypatch.setattr(batch_normalization.StatisticsEstimator, "estimate", lambda *_: None)
    monkeypatch.setattr(stacked.StackedTrainer, "estimate_statistics", lambda *_: None)
    histories.append(fit_runs(runs[1:], data(60), data(30, seed=1), 0)[0][0])
    with_estimates, without = (run.model for run in runs)
    statistics = {id(variable) for model in (with_estimates, without) for variable in moving_statistics(model)}
    others = [[v for v in model.variables if id(v) not in statistics] for model in (with_estimates, without)]
    assert any("seed" in variable.path for variable in others[0])
    assert_equal(*map(arrays, others))
    for column in ("train_loss", "train_accuracy"):
        assert histories[0][column].equals(histories[1][column])
    assert not histories[0]["validation_loss"].equals(histories[1]["validation_loss"])


@pytest.mark.parametrize(("build", "data"), [(network, colored), (head, points)])
def test_training_resumes_with_the_same_bytes(build, data):
    class Slot:
        def __init__(self, start=None):
            self.start, self.states = start, []

        def part(self, number):
            return self

        def due(self):
            return True

        def save(self, *state):
            self.states.append(copy.deepcopy(state))

        def load(self):
            return copy.deepcopy(self.start)

    def trained(slot: Slot) -> tuple:
        run = run_of(build, training(epochs=4, early_stopping=2), data(60))
        (history,), _ = fit_runs([run], data(60), data(30, seed=1), 0, slot=slot)
        return history, run.model.get_weights()

    slot = Slot()
    history, weights = trained(slot)
    for state in slot.states[:-1]:
        again, resumed = trained(Slot(state))
        assert history.equals(again)
        assert_equal(weights, resumed)


def test_early_stopping_restores_the_statistics_of_the_best_epoch(trainer):
    # With wrong labels the loss rises while the model learns.
    data, validation = points(60), points(30, seed=1)
    validation = replace(validation, labels=(validation.labels + 1) % 3)
    run = run_of(head, training(epochs=9, early_stopping=3), data)
    (history,), _ = fit_runs([run], data, validation, 0)
    assert history["validation_loss"].idxmin() < len(history) - 1
    loss = cross_entropy(predict_probabilities(run.model, validation), validation.labels)
    assert loss == pytest.approx(history["validation_loss"].min(), rel=1e-5)


def test_stacked_models_have_statistics_of_their_own_weights():
    data, validation = points(60), points(30, seed=1)
    settings = [training(learning_rate=rate) for rate in (0.001, 0.1)]
    together = [run_of(head, one, data) for one in settings]
    histories, _ = fit_runs(together, data, validation, 0)
    for one, run, history in zip(settings, together, histories, strict=True):
        alone = run_of(head, one, data)
        (expected,), _ = fit_runs([alone], data, validation, 0)
        # Sums in another order differ in their last digits.
        np.testing.assert_allclose(history, expected, rtol=1e-3)
        pairs = zip(arrays(moving_statistics(run.model)), arrays(moving_statistics(alone.model)), strict=True)
        for actual, reference in pairs:
            np.testing.assert_allclose(actual, reference, rtol=1e-3, atol=1e-5)


def test_frozen_batch_normalization_keeps_its_statistics():
    def frozen() -> keras.Model:
        model = network()
        model.get_layer("lower").trainable = False
        return model

    data = colored(60)
    run = run_of(frozen, training(), data)
    before = arrays([run.model.get_layer("lower").moving_mean, run.model.get_layer("upper").moving_mean])
    fit_runs([run], data, colored(30, seed=1), 0)
    after = arrays([run.model.get_layer("lower").moving_mean, run.model.get_layer("upper").moving_mean])
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1])
    run.model.get_layer("upper").trainable = False
    assert trained_normalization(run.model) == []
    assert batch_statistics_gap(run.model, data, 16, 0) is None


def test_statistics_are_of_unchanged_images():
    """Neither augmented, nor in other views, nor mixed."""
    data = colored(60)
    changed = replace(data, array=np.concatenate([data.array, 255 - data.array])).with_views(2, 60)
    model, statistics = network(), []
    for trained, examples in ((model, data), (with_augmentation(model, AugmentationConfig(noise=0.5)), changed)):
        sample = StatisticsSample.of(TrainingBatches(examples, training(mixup=0.5), 0))
        StatisticsEstimator(trained).estimate(sample)
        statistics.append(arrays(moving_statistics(trained)))
    assert_equal(*statistics)


def test_the_sample_has_equal_batches_of_different_images_and_a_limit(monkeypatch):
    data = points(50)
    sample = StatisticsSample.draw(data, 16, 0)
    assert [len(batch) for batch in sample] == [12, 12, 12, 12]
    assert len(set(sample.examples.rows)) == 48
    np.testing.assert_array_equal(sample.examples.labels, data.labels[sample.examples.rows])
    # A batch has images of all classes, also if the examples are in the order of their classes.
    by_class = np.argsort(data.labels, kind="stable")
    sample = StatisticsSample.draw(replace(data, rows=data.rows[by_class], labels=data.labels[by_class]), 16, 0)
    assert all(set(part) == {0, 1, 2} for part in sample.examples.labels.reshape(4, 12))
    monkeypatch.setattr(batch_normalization, "MAX_IMAGES", 20)
    assert [len(batch) for batch in StatisticsSample.draw(data, 16, 0)] == [10, 10]
    assert [len(batch) for batch in StatisticsSample.draw(points(3), 16, 0)] == [3]


def test_pooled_moments_are_those_of_all_batches():
    values = np.random.default_rng(0).normal(3, 2, (4, 7, 5))
    mean, variance = pool_moments([[batch.mean(axis=0), batch.var(axis=0)] for batch in values])
    np.testing.assert_allclose(mean, values.reshape(28, 5).mean(axis=0))
    np.testing.assert_allclose(variance, values.reshape(28, 5).var(axis=0))


def test_in_bfloat16_inference_predicts_what_batches_predict():
    data = colored(64)

    def half() -> keras.Model:
        with computing_in("bfloat16"):
            return network()

    run = run_of(half, training(precision="bfloat16"), data)
    fit_runs([run], data, colored(30, seed=1), 0)
    assert {variable.dtype for variable in moving_statistics(run.model)} == {"float32"}
    assert abs(batch_statistics_gap(run.model, data, 64, 0)) <= 0.03


def test_statistics_that_do_not_fit_the_weights_are_a_warning():
    data = points(90)
    run = run_of(head, training(epochs=15), data)
    fit_runs([run], data, points(30, seed=1), 0)
    weights = run.model.get_weights()
    assert batch_statistics_gap(run.model, data, 16, 0) <= 0.03
    assert_equal(run.model.get_weights(), weights)
    run.model.get_layer("lower").moving_mean.assign(np.zeros(8))
    gap = batch_statistics_gap(run.model, data, 16, 0)
    batches = accuracy(run.model, data) + gap
    assert gap > 0.1 and batches > 0.8


def test_the_record_has_the_largest_gap_of_all_repeats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gaps = iter([0.01, 0.25, -0.5])
    monkeypatch.setattr(repeats, "batch_statistics_gap", lambda *_: next(gaps))
    settings = training(repeats=3)

    def build(_: int, l2: float) -> BuiltModel:
        model = head()
        return BuiltModel(model, model)

    record = vars(model_record("b-head", "head"))
    description = ModelDescription(**{key: record[key] for key in ModelDescription.__annotations__ if key in record})
    parts = {split: points(30, seed) for seed, split in enumerate(SPLITS)}
    spec = TrainingSpec(description, [(settings, 0.0)], [0] * settings.repeats)
    trained = train_repeats(spec, build, {0: TrainingData(parts, parts["train"])})
    assert trained.result.record.batch_statistics_gap == 0.25


@pytest.mark.parametrize(("gap", "problems"), [(None, 0), (-0.5, 0), (0.03, 0), (0.031, 1)])
def test_a_gap_above_three_points_is_a_warning(gap, problems):
    assert len(_untypical_statistics(gap)) == problems


# Of each builder in keras.applications that has batch normalization, the architecture with the fewest layers.
FAMILIES = [
    *("resnet50", "resnet50_v2", "inception_v3", "inception_resnet_v2", "xception", "densenet121", "mobilenet_025"),
    *("mobilenet_v2", "mobilenet_v3_small", "nasnet_mobile", "efficientnet_b0", "efficientnet_v2_b0"),
]
NORMALIZED = 8  # The networks end above so many layers of batch normalization: the others are of the same kinds.


@pytest.fixture
def eager():
    """To trace a function of hundreds of layers takes much longer than to run a few batches."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def lower_part(architecture: str, classes: int) -> keras.Model:
    """A network on the lowest layers of an architecture."""
    backbone = build_backbone(architecture, ARCHITECTURES[architecture].smallest_image)
    cut = next(
        layer.name
        for layer in trained_normalization(backbone)
        if len(trained_normalization(up_to_cut(backbone, layer.name))) >= NORMALIZED
    )
    entry = NetworkConfig(dataset="d", task="t", backbone="b", trainable="all")
    freeze(backbone, entry, layer_names(backbone)[0])
    return build_network("network", entry, up_to_cut(backbone, cut), classes)


def test_every_builder_of_networks_with_batch_normalization_is_tested():
    applications = {ARCHITECTURES[name].application for name in FAMILIES}
    without = {"VGG16", "VGG19", "ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"}

    def builder(application: str) -> str:
        return getattr(keras.applications, application).__module__

    others = {entry.application for entry in ARCHITECTURES.values()} - without - {None}
    assert {builder(name) for name in others} == {builder(name) for name in applications}


@pytest.mark.filterwarnings("ignore:Even though the")  # tf.data is not eager
@pytest.mark.parametrize("architecture", FAMILIES)
def test_in_inference_a_trained_network_predicts_what_it_predicts_in_batches(architecture, eager):
    """All training images are one batch of the estimates, so that only rounding differs."""
    data = colored(12, ARCHITECTURES[architecture].smallest_image)
    run = run_of(lambda: lower_part(architecture, 3), training(batch_size=6, learning_rate=0.001), data)
    fit_runs([run], data, replace(data, rows=data.rows[:1], labels=data.labels[:1]), 0)
    assert len(trained_normalization(run.model)) >= NORMALIZED
    sample = StatisticsSample.draw(data, 12, 0)
    inference, estimator = predict_probabilities(run.model, sample.examples), StatisticsEstimator(run.model)
    (in_batches,) = estimator.predict(sample)
    np.testing.assert_allclose(inference, in_batches, atol=1e-3)
    assert abs(sample.accuracy([inference]) - sample.accuracy([in_batches])) <= 0.03
    # The running averages that Keras stores would not pass.
    for variable, value in zip(moving_statistics(run.model), arrays(moving_statistics(run.model)), strict=True):
        variable.assign(0.1 * value + 0.9 * variable.path.endswith("variance"))
    assert np.abs(predict_probabilities(run.model, sample.examples) - in_batches).max() > 0.01
