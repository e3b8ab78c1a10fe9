"""The repeats of a model combined: averaged probabilities and averaged weights."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from stages import compare, evaluate, predict, report
from stages.artifacts.images import read_images
from stages.artifacts.models import read_model_record, read_result
from stages.artifacts.tasks import SPLITS
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.evaluation.ensembles import combined_repeats
from stages.evaluation.study_results import read_study
from stages.training import stored_models
from stages.training.batches import Examples
from stages.training.calibration import at_temperature
from stages.training.full_model import load_ensemble, load_full_model
from stages.training.repeats import train_repeats
from stages.training.specification import BuiltModel, ModelDescription, TrainingData, TrainingSpec
from tests.example_results import change_test_predictions, model_record, write_result, write_study

TRAINING = {
    "epochs": 3,
    "batch_size": 8,
    "optimizer": "adam",
    "learning_rate": 0.05,
    "early_stopping": None,
    "max_train_per_class": None,
}


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_study()


def rows_of(params) -> dict:
    evaluate.main(params)
    metrics, study = json.loads(Path("reports/metrics.json").read_text()), read_study(params)
    return {
        (row["model"], row["kind"]): row
        for task in "ab"
        for row in combined_repeats(study, study.models(task), metrics)
    }


def with_soup(name: str, accuracy: float, *splits: str) -> None:
    """Give a model the predictions of a soup: the first images are right."""
    result = read_result(name)
    soup = {}
    for split in splits:
        labels = np.tile(np.arange(3), 200)[: len(result.predictions[split].index)]
        right = np.arange(len(labels)) < round(accuracy * len(labels))
        soup[split] = np.eye(3, dtype=np.float32)[np.where(right, labels, (labels + 1) % 3)]
    write_result(replace(result, soup=soup))


def test_an_ensemble_averages_calibrated_probabilities_and_costs_as_much_as_its_repeats(params):
    record = replace(read_model_record("b-net"), temperature=2.0)
    write_result(replace(read_result("b-net"), record=record))
    row, test = rows_of(params)["b-net", "ensemble"], read_study(params).predictions["b-net"]["test"]
    averaged = at_temperature(test.probabilities, 2.0).mean(axis=0)
    correct = averaged.argmax(axis=1) == test.labels
    assert row["accuracy"] == pytest.approx(correct.mean(), abs=1e-6)
    assert row["low"] < row["accuracy"] < row["high"]
    used, repeats = test.correct[record.best_repeat], test.correct.mean()
    assert row["to_used"][0] == pytest.approx(correct.mean() - used.mean(), abs=1e-6)
    assert row["to_mean"][0] == pytest.approx(correct.mean() - repeats, abs=1e-6)
    assert all(low <= difference <= high for difference, low, high in (row["to_used"], row["to_mean"]))
    assert row["multiply_adds"] == 2 * record.multiply_adds


def test_the_repeats_of_a_head_share_their_frozen_backbone(params):
    record = replace(read_model_record("b-head"), multiply_adds=700, total_parameters=5_000_000)
    features = replace(record.provenance.features, multiply_adds=600, parameters=4_000_000)
    record = replace(record, provenance=replace(record.provenance, features=features))
    write_result(replace(read_result("b-head"), record=record))
    row = rows_of(params)["b-head", "ensemble"]
    assert (row["multiply_adds"], row["megabytes"]) == (600 + 2 * 100, 4 * (4 + 2 * 1))


def test_a_soup_costs_as_much_as_one_repeat(params):
    with_soup("b-tune", 0.75, "test")
    rows = rows_of(params)
    soup, ensemble = rows["b-tune", "soup"], rows["b-tune", "ensemble"]
    assert soup["accuracy"] == 0.75
    assert (2 * soup["multiply_adds"], 2 * soup["megabytes"]) == (ensemble["multiply_adds"], ensemble["megabytes"])
    assert ("b-net", "soup") not in rows


@pytest.mark.parametrize(("folds", "is_honest"), [([0, 0], True), ([0, 1], False), ([1, 1], True)])
def test_there_is_a_validation_accuracy_only_where_all_repeats_hold_out_the_same_images(params, folds, is_honest):
    evaluate.main(params)
    metrics, study = json.loads(Path("reports/metrics.json").read_text()), read_study(params)
    study.results["b-net"] = replace(study.results["b-net"], record=replace(study.records["b-net"], folds=folds))
    (row,) = combined_repeats(study, ["b-net"], metrics)
    assert (row["validation"] is not None) == is_honest


def test_a_model_with_one_repeat_or_a_diverged_one_has_no_rows(params):
    test = read_result("b-net").predictions["test"]
    probabilities = test.probabilities.copy()
    probabilities[1] = np.nan
    change_test_predictions("b-net", probabilities=probabilities)
    assert not any(model == "b-net" for model, _ in rows_of(params))


def test_the_report_lists_combined_repeats_and_says_why_they_are_no_candidates(params):
    with_soup("b-tune", 0.75, "validation", "test")
    evaluate.main(params)
    compare.main(params)
    report.main(params)
    content = json.loads(Path("reports/study.json").read_text())["tasks"]
    assert {row["model"] for row in content["b"]["combined_repeats"]} == {"b-net", "b-head", "b-tune"}
    for page in ("report.html", "report.md"):
        text = Path("reports", page).read_text(encoding="utf-8")
        assert "Ensembles and averaged weights" in text and "ensemble of 2" in text and "soup of 2" in text
        assert "ensembles and soups are not candidates for the recommendation" in text


# Trained models.


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("name", "has_soup"),
    [
        ("choice", True),  # a linear head
        ("above", True),  # starts from the backbone
        ("fresh", False),  # hidden layers of random weights
        ("cached", True),
        ("changed", True),
        ("from-probe", True),
        ("base", False),  # one repeat
        ("probe", False),
    ],
)
def test_a_soup_has_the_averaged_weights_of_repeats_that_share_a_start(here, name, has_soup):
    result = read_result(name)
    assert set(result.soup) == ({"test"} if has_soup else set())
    if has_soup:
        models = [load_full_model(replace(result.record, best_repeat=repeat)) for repeat in range(2)]
        weights = zip(*(model.get_weights() for model in models), strict=True)
        models[0].set_weights([np.mean(values, axis=0) for values in weights])
        pixels = read_images("digits").pixels[result.predictions["test"].index[:40]]
        expected = models[0].predict(pixels, verbose=0)
        np.testing.assert_allclose(result.soup["test"][:40], expected, atol=5e-3)  # features in float16


@pytest.mark.numeric
def test_a_soup_has_statistics_of_its_own_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    parts = {}
    for split in SPLITS:
        rows, labels = np.arange(64), (np.arange(64) % 2).astype(np.int32)
        array = (random.normal(size=(64, 4)) + labels[:, None]).astype(np.float32)
        parts[split] = Examples(array, rows, labels, rows, 2)

    def build(_: int, l2: float) -> BuiltModel:
        features = keras.Input((4,))
        x = keras.layers.BatchNormalization(name="normalization")(keras.layers.Dense(3)(features))
        model = keras.Model(features, keras.layers.Dense(2, "softmax")(x))
        return BuiltModel(model, model)

    record = model_record("test", "network")
    keys = [key for key in ModelDescription.__annotations__ if hasattr(record, key)]
    description = ModelDescription(**{key: getattr(record, key) for key in keys})
    settings = TrainingConfig(**TRAINING, repeats=2)
    spec = TrainingSpec(description, [(settings, 0.0)], [0, 0], shares_start=True)
    trained = train_repeats(spec, build, {0: TrainingData(parts, parts["train"])})
    model = trained.model
    best = model.get_weights()
    by_weight = zip(*(repeat.weights for repeat in trained.repeats), strict=True)
    model.set_weights([np.mean(values, axis=0) for values in by_weight])
    inputs = keras.ops.convert_to_numpy(model.layers[1](parts["train"].array))
    normalization = model.get_layer("normalization")
    averaged = keras.ops.convert_to_numpy(normalization.moving_variance).copy()
    normalization.moving_mean.assign(np.mean(inputs, axis=0))
    normalization.moving_variance.assign(np.var(inputs, axis=0))
    assert np.abs(averaged - np.var(inputs, axis=0)).max() > 0.01
    for split in ("validation", "test"):
        expected = model.predict_on_batch(parts[split].array)
        np.testing.assert_allclose(trained.result.soup[split], expected, atol=1e-5)
    # The model itself has the weights of its best repeat.
    for weights, own in zip(best, trained.repeats[trained.result.record.best_repeat].weights, strict=True):
        np.testing.assert_array_equal(weights, own)


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["above", "probe", "cached"])
def test_predict_averages_the_repeats_on_demand(here, capsys, name):
    result = read_result(name)
    test = result.predictions["test"]
    Image.fromarray(read_images("digits").pixels[test.index[0]]).save("image.png")
    options = {"top": 3, "format": "json", "model": name, "images": [Path("image.png")]}
    assert predict.main(Namespace(**options, ensemble=True)) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    expected = at_temperature(test.probabilities[:, 0], result.record.temperature).mean(axis=0)
    told = {each["class"]: each["probability"] for each in answer["classes"]}
    np.testing.assert_allclose([told[name] for name in result.record.classes], expected, atol=5e-3)


def test_an_ensemble_of_a_head_has_its_backbone_once(here):
    record = read_model_record("above")
    own = load_full_model(record).layers[-1].count_params()
    assert load_ensemble(record).count_params() == record.total_parameters + (record.repeats - 1) * own
    assert load_ensemble(read_model_record("cached")).count_params() == 2 * read_model_record("cached").total_parameters


@pytest.mark.parametrize(
    ("repeats", "diverged", "message"),
    [
        (1, [], r"--ensemble: x has one repeat\. Leave --ensemble out\."),
        (3, [1], r"--ensemble: the training of x diverged in repeat 1 \(counted from 0\)\. Leave --ensemble out\."),
    ],
)
def test_repeats_that_cannot_be_averaged_are_refused(monkeypatch, repeats, diverged, message):
    probabilities = np.full((repeats, 4, 2), 0.5, np.float32)
    probabilities[diverged] = np.nan
    predictions = {"test": SimpleNamespace(probabilities=probabilities)}
    monkeypatch.setattr(stored_models, "read_predictions", lambda name: predictions)
    with pytest.raises(UserError, match=message):
        stored_models.check_ensemble(SimpleNamespace(name="x", repeats=repeats))
