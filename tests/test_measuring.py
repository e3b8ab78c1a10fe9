"""The quantities in the tables of docs/performance.md: cosines, ratios and counts of operations."""

import keras
import numpy as np
import pytest

from benchmarks import measuring


def test_methods_run_in_turns(monkeypatch):
    clock, order = iter(np.cumsum([0, 1, 1, 2, 1, 3, 1, 4])), []
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(clock))
    methods = {method: lambda inputs, method=method: order.append(method) or (method, inputs) for method in "ab"}
    seconds, results = measuring.in_turns(methods, 7, rounds=2)
    assert order == ["a", "b", "a", "b"]
    assert seconds == {"a": [1, 3], "b": [2, 4]}
    assert results == {"a": ("a", 7), "b": ("b", 7)}


def test_a_ratio_is_the_median_over_rounds():
    assert measuring.ratio([2, 2, 9], [1, 4, 3]) == 2


def test_the_smallest_cosine_is_that_of_the_worst_row():
    expected = np.array([[1, 0], [0, 2], [3, 0]])
    assert measuring.cosine(5 * expected, expected) == pytest.approx(1)
    assert measuring.cosine(np.array([[1, 0], [3, 4], [1, 0]]), expected) == pytest.approx(0.8)


def test_operations_are_multiplications_and_additions():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(images)  # 4 x 4 positions, 27 weights, 5 filters
    x = keras.layers.DepthwiseConv2D(3)(x)  # 2 x 2 positions, 9 weights, 5 channels
    x = keras.layers.Dense(7)(keras.layers.Flatten()(x))
    assert measuring.operations(keras.Model(images, x)) == 2 * (16 * 27 * 5 + 4 * 9 * 5 + 20 * 7)
