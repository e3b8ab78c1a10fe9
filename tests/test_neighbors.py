"""The votes of the nearest neighbors: those of scikit-learn, and properties of their shares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from stages.probes.neighbors import BLOCK, VOTE_TEMPERATURE, remember
from stages.probes.standardization import StandardizedFeatures, channel_statistics


def problem(count: int, classes: int, seed: int):
    """Features (count, 2, 2, 3) around a center per class, and labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    array = (generator.normal(size=(classes, 2, 2, 3))[labels] + generator.normal(size=(count, 2, 2, 3))).astype("f4")
    return StandardizedFeatures(array, *channel_statistics(array, np.arange(count))), labels


@pytest.mark.numeric
@pytest.mark.parametrize(("count", "classes", "number"), [(60, 2, 1), (60, 3, 5), (BLOCK + 50, 4, 20), (30, 3, 20)])
def test_the_shares_are_those_of_scikit_learn(count, classes, number):
    features, labels = problem(count, classes, seed=number)
    train, asked = np.arange(count)[: count * 2 // 3], np.arange(count)
    flat = np.concatenate(list(features.blocks(asked)))
    expected = KNeighborsClassifier(
        number, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / VOTE_TEMPERATURE)
    ).fit(flat[train], labels[train])
    remembered = remember(features, train, np.eye(classes)[labels[train]], np.ones(len(train)))
    (scores,) = remembered.scores(features, asked, [number])
    shares = (np.exp(scores) * (number + 1) - 1 / classes) / number
    np.testing.assert_allclose(shares, expected.predict_proba(flat), atol=1e-4)


@given(st.integers(2, 5), st.integers(0, 10_000))
def test_the_nearest_neighbor_of_a_training_row_is_itself(classes, seed):
    features, labels = problem(40, classes, seed)
    rows = np.arange(40)
    scores, several = remember(features, rows, np.eye(classes)[labels], np.ones(40)).scores(features, rows, [1, 7])
    np.testing.assert_array_equal(scores.argmax(axis=1), labels)
    for logarithms in (scores, several):
        assert np.isfinite(logarithms).all()
        np.testing.assert_allclose(np.exp(logarithms).sum(axis=1), 1)


@pytest.mark.parametrize(("weights", "winner"), [([1, 1, 1], 0), ([1, 1, 3], 1), ([2, 2, 3], 0)])
def test_weights_scale_the_votes(weights, winner):
    array = np.ones((3, 4), "f4")  # three rows that are equally similar: of classes 0, 0 and 1
    features = StandardizedFeatures(array, np.zeros(4), np.ones(4))
    remembered = remember(features, np.arange(3), np.eye(2)[[0, 0, 1]], np.array(weights, float))
    (scores,) = remembered.scores(features, np.arange(1), [3])
    assert scores.argmax() == winner
    (first,) = remembered.scores(features, np.arange(1), [1])  # the first of equal rows is asked
    np.testing.assert_allclose(np.exp(first), [[0.75, 0.25]])
