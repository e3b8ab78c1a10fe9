"""Temperature scaling: probabilities that are as certain as the model is right."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from stages.artifacts.images import read_images
from stages.artifacts.models import read_model_record, read_result
from stages.artifacts.tasks import read_task
from stages.evaluation.intervals import wilson
from stages.training.calibration import BOUNDS, at_temperature, fit_temperature
from stages.training.full_model import load_calibrated_model, load_full_model


def predictions(images, scale, seed=0):
    """Probabilities whose logits are `scale` times those by which the labels were drawn, and the labels."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(images, 5))
    labels = np.array([random.choice(5, p=probabilities) for probabilities in softmax(logits, axis=1)])
    return softmax(scale * logits, axis=1).astype(np.float32), labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_a_model_too_certain_or_too_uncertain(scale):
    assert fit_temperature([predictions(5000, scale)], 5000) == pytest.approx(scale, rel=0.08)


def test_many_images_decide_alone():
    probabilities, labels = predictions(5000, 3.0)
    temperature = fit_temperature([(probabilities, labels)], 5000)
    logits = np.log(probabilities.astype(float))

    def loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(5000), labels].mean()

    # The minimum of the cross-entropy, within what the prior images add.
    assert loss(temperature) < min(loss(temperature * 1.05), loss(temperature / 1.05), loss(1.0))


def test_few_images_move_the_temperature_by_little():
    spread = [
        np.std([np.log(fit_temperature([predictions(images, 1.0, seed)], images)) for seed in range(20)])
        for images in (3, 1000)
    ]
    assert spread[0] < 0.3 and spread[1] < 0.1


@pytest.mark.parametrize(("images", "temperature_changes"), [(1, False), (20, False), (100, True), (1000, True)])
def test_images_that_are_all_predicted_correctly_do_not_make_a_model_certain(images, temperature_changes):
    probabilities = np.tile(np.float32([0.9, 0.05, 0.05]), (images, 1))
    temperature = fit_temperature([(probabilities, np.zeros(images, int))], images)
    assert (temperature < 1) == temperature_changes
    # At most as certain as the low end of the interval of the accuracy; a model that is more certain stays as it is.
    low, _ = wilson(np.ones(images), np.arange(images))
    assert at_temperature(probabilities, temperature)[0, 0] <= max(0.9, low) + 1e-4


@pytest.mark.parametrize("wrong", [0, 1, 20])
def test_probabilities_of_0_and_1_have_a_temperature(wrong):
    probabilities, labels = np.tile(np.float32([1, 0, 0]), (20, 1)), np.repeat([1, 0], [wrong, 20 - wrong])
    temperature = fit_temperature([(probabilities, labels)], 20)
    assert BOUNDS[0] <= temperature <= BOUNDS[1]
    assert temperature == 1 if not wrong else temperature > 2
    assert np.isfinite(at_temperature(probabilities, temperature)).all()


def test_a_diverged_repeat_does_not_count():
    good, diverged = predictions(500, 2.0), (np.full((500, 5), np.nan, np.float32), np.zeros(500, int))
    assert fit_temperature([good, diverged], 500) == fit_temperature([good], 500)
    assert fit_temperature([diverged], 500) == 1
    assert np.isnan(at_temperature(diverged[0], 2.0)).all()


def test_repeats_count_as_much_as_their_different_images():
    first, second = predictions(20, 3.0, seed=1), predictions(30, 3.0, seed=2)
    together = tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))
    assert fit_temperature([first, second], 50) == fit_temperature([together], 50)
    # Three repeats that predict the same images equally count as one.
    assert fit_temperature([first] * 3, 20) == pytest.approx(fit_temperature([first], 20), abs=1e-3)
    assert fit_temperature([first, first, first], 60) > fit_temperature([first], 20) + 0.1


@pytest.mark.parametrize("temperature", [0.2, 3.0])
def test_calibration_keeps_the_order_of_the_classes(temperature):
    probabilities, _ = predictions(200, 1.0)
    scaled = at_temperature(probabilities, temperature)
    np.testing.assert_array_equal(scaled.argsort(axis=1), probabilities.argsort(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(at_temperature(scaled, 1 / temperature), probabilities, atol=1e-5)


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["part", "above", "probe", "from-probe"])
def test_a_model_in_use_is_calibrated_and_classifies_as_before(here, name):
    result = read_result(name)
    validation = []
    for repeat in range(result.record.repeats):
        index, probabilities = result.predictions["validation"].of_repeat(repeat)
        validation.append((probabilities, load_labels("high", index)))
    temperature = read_model_record(name).temperature
    assert temperature == fit_temperature(validation, len(result.predictions["validation"].index))
    pixels = read_images("digits").pixels[result.predictions["test"].index[:50]]
    record = result.record
    plain, used = (load(record).predict_on_batch(pixels) for load in (load_full_model, load_calibrated_model))
    np.testing.assert_allclose(used, at_temperature(plain, temperature), atol=1e-5)
    np.testing.assert_array_equal(used.argmax(axis=1), plain.argmax(axis=1))


def load_labels(task, index):
    """The labels of some rows of the dataset."""
    return read_task(task).table.set_index("index")["label"].loc[index].to_numpy()
