"""Probes: solved without epochs, calibrated, chosen on validation images, without a deep-learning framework."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from stages import probe
from stages.artifacts.models import read_result, weights_file
from stages.artifacts.tasks import read_task
from stages.backbones.cached_features import read_features, read_joined_features
from stages.config.probes import ProbeConfig
from stages.core.errors import UserError
from stages.core.params import Params
from stages.probes import logistic, neighbors, ridge
from stages.probes.bisection import crossing
from stages.probes.linear import calibrating_scale
from stages.probes.logistic import solve_logistic
from stages.probes.ridge import solve_ridge
from stages.probes.selection import choose_probe
from stages.probes.standardization import StandardizedFeatures, channel_statistics
from stages.probes.weights import ProbeWeights, read_probe, write_probe
from stages.training.batches import Examples, class_weights, split_examples
from stages.training.pca import project_features
from stages.training.probe_repeats import solve_probe
from tests.pipeline import ROOT
from tests.tiny_study import STUDY


def problem(count: int, channels: int = 4, seed: int = 0, noise: float = 0.3):
    """Standardized features (count, channels) and the labels of three classes."""
    labels = np.arange(count) % 3
    centers = np.random.default_rng(99).normal(size=(3, channels))
    array = (centers[labels] + noise * np.random.default_rng(seed).normal(size=(count, channels))).astype(np.float32)
    return StandardizedFeatures(array, *channel_statistics(array, np.arange(count))), labels


@pytest.mark.parametrize(("count", "channels"), [(60, 5), (20, 50)])
def test_the_solution_is_that_of_scikit_learn(count, channels):
    features, labels = problem(count, channels=channels)
    targets, weights = np.eye(3)[labels], np.random.default_rng(1).uniform(0.5, 1.5, count)
    scaled = (features.array - features.mean) / np.sqrt(features.variance)
    for solution in solve_ridge(features, np.arange(count), targets, weights, [1e-3, 0.1, 10.0]):
        # scikit-learn sums the squared errors; here they are averaged.
        expected = Ridge(alpha=solution.l2 * weights.sum()).fit(scaled, targets, sample_weight=weights)
        np.testing.assert_allclose(solution.kernel, expected.coef_.T, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(solution.bias, expected.intercept_, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("balanced", [True, False])
def test_a_logistic_solution_has_the_lowest_mean_loss_with_its_penalty(classes, balanced):
    features, labels = problem(60, noise=1.5)
    labels = np.minimum(labels, classes - 1)
    weights = class_weights(labels) if balanced else np.ones(60)
    scaled = (features.array - features.mean) / np.sqrt(features.variance)
    strengths = [0.1, 1e-3, 1.0]

    def loss(flat: np.ndarray, l2: float) -> float:
        kernel, bias = np.split(flat.reshape(5, classes), [4])
        losses = -log_softmax(scaled @ kernel + bias, axis=1)[np.arange(60), labels]
        return np.average(losses, weights=weights) + l2 * np.square(kernel).sum()

    solutions = solve_logistic(features, np.arange(60), labels, weights.astype(np.float64), strengths)
    assert [solution.l2 for solution in solutions] == strengths
    for solution in solutions:
        expected = minimize(loss, np.zeros(5 * classes), args=(solution.l2,), tol=1e-10)
        assert loss(np.vstack([solution.kernel, solution.bias]).ravel(), solution.l2) <= expected.fun + 1e-5
        # The tolerance of the solver is that of the gradient.
        np.testing.assert_allclose(solution.kernel, expected.x.reshape(5, classes)[:4], atol=0.02)


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return -np.log((exponentials / exponentials.sum(axis=1, keepdims=True))[np.arange(len(labels)), labels]).mean()


@given(st.integers(0, 10_000))
def test_calibration_finds_the_scale_of_the_lowest_loss(seed):
    features, labels = problem(60, noise=1.5)
    validation, validation_labels = problem(60, seed=seed, noise=1.5)
    (solution,) = solve_ridge(features, np.arange(60), np.eye(3)[labels], np.ones(60), [0.1])
    scores = solution.scores(validation, np.arange(60))
    scale = calibrating_scale(scores, validation_labels)
    losses = [cross_entropy(factor * scale * scores, validation_labels) for factor in (1.0, 1.1, 1 / 1.1)]
    assert scale > 0 and losses[0] <= min(*losses[1:], cross_entropy(scores, validation_labels)) + 1e-6


def test_the_strength_is_chosen_on_validation_images():
    features, labels = problem(40)
    validation, validation_labels = problem(40, seed=1)
    solutions = solve_ridge(features, np.arange(40), np.eye(3)[labels], np.ones(40), [1e-6, 1e-2, 1e6])
    best, candidates = choose_probe(solutions, validation, np.arange(40), validation_labels)
    assert [candidate.l2 for candidate in candidates] == [1e-6, 1e-2, 1e6]
    (chosen,) = [candidate for candidate in candidates if candidate.chosen]
    assert chosen.validation_loss == min(candidate.validation_loss for candidate in candidates)
    assert best.l2 == chosen.l2 != 1e6
    assert choose_probe(solutions[:1], validation, np.arange(40), validation_labels)[1] == []


def test_a_channel_that_hardly_varies_is_not_blown_up():
    array = np.random.default_rng(0).normal(size=(100, 3)) * [1.0, 1.0, 1e-6]
    _, variance = channel_statistics(array, np.arange(100))
    assert variance[2] == pytest.approx(0.01 * array.var(axis=0).mean(), rel=1e-6)


def test_weights_are_written_and_read_with_equal_bytes(tmp_path):
    weights = ProbeWeights(np.zeros(2), np.ones(2), np.arange(6.0).reshape(2, 3), np.arange(3.0))
    for name in ("first.h5", "second.h5"):
        write_probe(tmp_path / name, weights)
    assert (tmp_path / "first.h5").read_bytes() == (tmp_path / "second.h5").read_bytes()
    for name, array in vars(read_probe(tmp_path / "first.h5")).items():
        np.testing.assert_array_equal(array, vars(weights)[name])
    (tmp_path / "first.h5").write_bytes(b"text")
    with pytest.raises(UserError, match=r"first\.h5 is damaged"):
        read_probe(tmp_path / "first.h5")


# The stage.


def test_a_probe_is_a_model_like_the_others(here):
    result = read_result("probe")
    record = result.record
    assert (record.kind, record.repeats, record.epochs, record.train_images) == ("probe", 2, [1, 1], 120)
    assert len(record.candidates) == 9 and result.pca is not None
    test = result.predictions["test"].probabilities
    assert test.shape[0] == 2 and test.dtype == np.float32
    np.testing.assert_allclose(test.sum(axis=2), 1, rtol=1e-5)


def test_a_logistic_probe_is_a_model_like_the_others(here):
    before = read_result("probe")
    probe.main(Params({**STUDY, "probes": {"probe": {**STUDY["probes"]["probe"], "kind": "logistic"}}}), "probe")
    after = read_result("probe")
    assert after.record.settings["kind"] == "logistic" and len(after.record.candidates) == 6
    predicted = [model.predictions["test"].probabilities.argmax(axis=2) for model in (before, after)]
    assert np.mean(predicted[0] == predicted[1]) > 0.9
    # Scores and gradient of 120 rows: six strengths in the first repeat, the chosen one in the second.
    kernel = read_probe(weights_file("probe", 0)).kernel
    assert after.record.training_multiply_adds == (6 + 1) * 200 * 2 * 120 * kernel.size // 2


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("edit", "candidates"), [({}, 6), ({"neighbors": 3}, 0), ({"neighbors": [1, 4], "class_weights": "balanced"}, 2)]
)
def test_nearest_neighbors_are_rebuilt_and_exported_in_keras(edit, candidates, here, tmp_path):
    entry = {**STUDY["probes"]["probe"], "kind": "nearest_neighbors", **edit}
    probe.main(Params({**STUDY, "probes": {"probe": entry}}), "probe")
    record = read_result("probe").record
    assert len(record.candidates) == candidates and record.training_multiply_adds == 0
    from stages.backbones.onnx_export import write_onnx  # here, because the other tests need no framework
    from stages.training.exporting import keras_predictor, prepare_export, write_keras

    export = prepare_export(record)
    write_keras(export.model, export.metadata, tmp_path / "model.keras")
    write_onnx(export.model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (images,) = session.get_inputs()
    predictors = keras_predictor(tmp_path / "model.keras"), lambda x: session.run(None, {images.name: x})[0]
    assert export.compare(*predictors)[1] == ""


def test_joined_cuts_are_side_by_side_from_the_lowest_up(here):
    parts = [read_features("vectors", cut) for cut in ("flatten", "fc1")]
    joined = read_joined_features("vectors", ["fc1", "flatten"], "probes.joined.cut")  # in another order
    rows = np.array([5, 0, 7])
    np.testing.assert_array_equal(joined.array[rows], np.hstack([part.array[rows] for part in parts]))
    assert joined.array.shape == (len(parts[0].array), parts[0].array.shape[1] + parts[1].array.shape[1])
    assert (joined.array.dtype, joined.record.shape) == (np.float32, [joined.array.shape[1]])
    assert (joined.record.cuts, joined.record.parameters) == (["flatten", "fc1"], parts[1].record.parameters)


@pytest.mark.parametrize("kind", ["ridge", "logistic", "nearest_neighbors"])
def test_a_probe_on_joined_cuts_is_that_on_their_features_side_by_side(kind, here):
    entry = {**STUDY["probes"]["joined"], "kind": kind, "max_train_per_class": None}
    probe.main(Params({**STUDY, "probes": {"joined": entry}}), "joined")
    result, joined = read_result("joined"), read_joined_features("vectors", ["flatten", "fc1"], "")
    in_memory = replace(joined, array=np.hstack([read_features("vectors", cut).array for cut in joined.record.cuts]))
    task, settings = read_task("high"), SimpleNamespace(max_train_per_class=None, train_fraction=None)
    examples = split_examples(task, in_memory.array, joined.positions, settings, 0)
    config = ProbeConfig(**{**entry, "cut": None})
    expected = solve_probe(config, in_memory, examples, config.choices, balanced=False)
    np.testing.assert_array_equal(result.predictions["test"].probabilities[0], expected.probabilities["test"])
    assert result.record.provenance.cuts == ["flatten", "fc1"]


@pytest.mark.parametrize(
    ("features", "cuts", "message"),
    [
        ("vectors", ["top", "fc1", "dropout"], "has no cut layer 'top'"),
        ("vectors", ["fc1", "flatten", "fc1"], "^probes.p.cut: two of fc1, flatten, fc1 are the same layer. Leave one"),
        ("several", ["fc1", "conv3"], "^probes.p.cut: several cuts are joined as vectors, but features.several has po"),
    ],
)
def test_the_stage_refuses_cuts_that_cannot_be_joined(features, cuts, message, here):
    with pytest.raises(UserError, match=message):
        read_joined_features(features, cuts, "probes.p.cut")


def test_more_neighbors_than_training_rows_are_an_error(here):
    entry = {**STUDY["probes"]["probe"], "kind": "nearest_neighbors", "neighbors": [5, 121]}
    with pytest.raises(UserError, match=r"^probes\.probe\.neighbors: 121 is more than the 120 training rows\. Give at"):
        probe.main(Params({**STUDY, "probes": {"probe": entry}}), "probe")


@pytest.mark.parametrize(("rows", "choices", "chosen"), [(9, [20], 9), (9, [9], 9), (9, [1, 20], 1)])
def test_a_repeat_of_fewer_rows_has_fewer_neighbors(rows, choices, chosen):
    features, labels = problem(30)
    numbers = np.arange(30)
    train = Examples(features.array, numbers[:rows], labels[:rows], numbers[:rows], 3)
    validation = Examples(features.array, numbers[rows:], labels[rows:], numbers[rows:], 3)
    cached = SimpleNamespace(array=features.array, record=SimpleNamespace(views_used=lambda _: 1, images=30))
    entry = ProbeConfig(task="t", features="f", kind="nearest_neighbors")
    solved = solve_probe(entry, cached, {"train": train, "validation": validation}, choices, False)
    assert solved.choice == chosen and int(solved.weights.neighbors[0]) == chosen


@pytest.mark.parametrize("kind", ["ridge", "nearest_neighbors"])
def test_candidates_are_judged_by_their_own_probabilities(kind):
    features, labels = problem(30, noise=1.5)
    rows, targets = np.arange(30), np.eye(3)[labels]
    if kind == "ridge":
        solutions = solve_ridge(features, rows, targets, np.ones(30), [1e-3, 1.0])
    else:
        remembered = neighbors.remember(features, rows, targets, np.ones(30))
        solutions = [neighbors.NeighborsProbe(number, remembered) for number in (2, 7, 20)]
    validation, validation_labels = problem(30, seed=1, noise=1.5)
    _, candidates = choose_probe(solutions, validation, rows, validation_labels)
    for solution, candidate in zip(solutions, candidates, strict=True):
        best, _ = choose_probe([solution], validation, rows, validation_labels)
        loss = cross_entropy(best.scores(validation, rows), validation_labels)
        assert candidate.validation_loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("function", "expected"),
    [(lambda x: x**3 - 2, 2 ** (1 / 3)), (lambda x: x - 9, 3.0), (lambda x: x + 9, -1.0), (np.expm1, 0.0)],
)
def test_the_crossing_of_an_increasing_function_is_found(function, expected):
    assert crossing(function, -1, 3) == pytest.approx(expected, abs=1e-7)


@pytest.mark.numeric
@pytest.mark.parametrize("shape", [(100, 5), (40, 3, 3, 16), (12, 3)])
def test_the_plane_is_that_of_scikit_learn(shape):
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32) * np.arange(1, shape[-1] + 1)
    rows = np.arange(len(array))
    plane = project_features(Examples(array, rows, rows, rows, 1), seed=0)
    scaled = (array / array.std(axis=tuple(range(array.ndim - 1)))).reshape(len(array), -1)
    expected = PCA(2, svd_solver="full").fit(scaled)
    # Points are rounded to three digits, shares to four.
    np.testing.assert_allclose(plane.points, expected.transform(scaled), atol=2e-3)
    np.testing.assert_allclose(plane.shares, expected.explained_variance_ratio_, atol=2e-4)


def test_class_weights_change_the_solution(here):
    before = read_result("probe").predictions["test"].probabilities
    edited = {"probe": {**STUDY["probes"]["probe"], "class_weights": "balanced", "max_train_per_class": None}}
    probe.main(Params({**STUDY, "probes": edited}), "probe")
    assert not np.array_equal(read_result("probe").predictions["test"].probabilities, before)


@pytest.mark.parametrize(
    ("kind", "limit", "message"),
    [
        (
            "ridge",
            (ridge, "LARGEST_MATRIX"),
            r"ridge regression needs a matrix of 120 x 120; the limit is 3 rows .* max_",
        ),
        (
            "logistic",
            (logistic, "LARGEST_INPUT"),
            r"logistic regression needs 120 rows of 4096 .*; the limit is 3 .* max_",
        ),
        (
            "nearest_neighbors",
            (neighbors, "LARGEST_INPUT"),
            r"nearest neighbors need 120 rows of 4096 .*; the limit is 3 .* max_",
        ),
    ],
)
def test_a_probe_that_does_not_fit_into_memory_is_an_error(kind, limit, message, here, monkeypatch):
    monkeypatch.setattr(*limit, 3)
    with pytest.raises(UserError, match=rf"^probes\.probe: {message}"):
        probe.main(Params({**STUDY, "probes": {"probe": {**STUDY["probes"]["probe"], "kind": kind}}}), "probe")


def test_the_stage_imports_nothing_slow():
    slow = ("keras", "tensorflow", "jax", "sklearn", "scipy.optimize")
    code = f"import sys, stages.probe; sys.exit(any(name in sys.modules for name in {slow}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
