"""Statistics of trained batch normalization, estimated on training images under the weights that the model has.

In training, batch normalization uses the mean and variance of each batch; in inference, stored ones. Keras stores
running averages, which after a short training are still close to the initial ones: with the momentum 0.999 of
MobileNetV2, 200 steps replace 18 % of them. So the stored statistics are replaced before every validation, as in
"precise batch normalization" (Wu & Johnson 2021, Rethinking "Batch" in BatchNorm). The running averages, and with them
the momentum, then affect nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers

from stages.backbones.building import inner_layers
from stages.training.batches import Examples, TrainingBatches, inference_batch_size, iterate_inputs

MAX_IMAGES = 2_000


@dataclass(frozen=True)
class StatisticsSample:
    """Training examples that statistics are estimated on, in batches of equal size."""

    examples: Examples
    batch_size: int

    @classmethod
    def draw(cls, train: Examples, batch_size: int, seed: int) -> "StatisticsSample":
        """Draw at most `MAX_IMAGES` examples, in random order, from the training examples.

        train: in all views; only the first one, the unchanged images, is used, because inference sees unchanged images.
        For the same reason the images are not augmented. batch_size: the largest size of a batch. Equal batches leave
        out fewer examples than there are batches, and their moments have equal weights.
        """
        images = len(train.rows) // train.views
        chosen = np.random.default_rng(seed).permutation(images)[:MAX_IMAGES]
        batches = -(-len(chosen) // batch_size)
        size = len(chosen) // batches
        chosen = chosen[: batches * size]
        rows, labels, index = train.rows[chosen], train.labels[chosen], train.index[chosen]
        return cls(replace(train, rows=rows, labels=labels, index=index, views=1), size)

    @classmethod
    def of(cls, training: TrainingBatches) -> "StatisticsSample":
        """The examples that the statistics of a training are estimated on, in batches of at least the size of its own.

        The larger the batches, the closer are the inputs of each layer to those in inference.
        """
        size = max(training.batch_size, inference_batch_size(training.examples.array))
        return cls.draw(training.examples, size, training.seed)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The inputs of the batches."""
        return iterate_inputs(self.examples, self.batch_size)

    def accuracy(self, probabilities: Iterable[np.ndarray]) -> float:
        """The accuracy of probabilities of the examples, in batches (n, classes)."""
        predicted = np.concatenate([np.asarray(batch).argmax(axis=-1) for batch in probabilities])
        return float((predicted == self.examples.labels).mean())


def trained_normalization(model: keras.Model) -> list[layers.BatchNormalization]:
    """The batch normalization layers of a model, and of models in it, that training changes."""
    normalizations = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            normalizations += trained_normalization(layer)
        else:
            parts = [layer, *inner_layers(layer)]
            normalizations += [part for part in parts if isinstance(part, layers.BatchNormalization) and part.trainable]
    return normalizations


def moving_statistics(model: keras.Model) -> list[keras.Variable]:
    """The stored means and variances of trained batch normalization: of every layer the mean, then the variance."""
    return [value for layer in trained_normalization(model) for value in (layer.moving_mean, layer.moving_variance)]


@contextmanager
def using_batch_statistics(model: keras.Model) -> Iterator[None]:
    """Calls of the model inside the context normalize by the statistics of the batch, and store these.

    Only trained batch normalization is affected: with `training=False`, dropout and augmentation stay off. A compiled
    function behaves as the model did when the function was traced.
    """
    changed = trained_normalization(model)
    momenta = [layer.momentum for layer in changed]
    for layer in changed:
        layer.momentum, layer.call = 0.0, _in_training(layer.call)
    try:
        yield
    finally:
        for layer, momentum in zip(changed, momenta, strict=True):
            layer.momentum = momentum
            del layer.call  # of the instance; that of the class is used again


def _in_training(call: Callable[..., Any]) -> Callable[..., Any]:
    """The method `call` of a layer, in training mode."""

    def call_in_training(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return call(inputs, training=True, mask=mask)

    return call_in_training


def batch_statistics_gap(model: keras.Model, train: Examples, batch_size: int, seed: int) -> float | None:
    """Accuracy with the statistics of training batches minus accuracy in inference; None without trained normalization.

    Both on the same training images, without dropout and augmentation. train, batch_size, seed: of the training.
    """
    if not trained_normalization(model):
        return None
    sample = StatisticsSample.draw(train, batch_size, seed)
    inputs = iterate_inputs(sample.examples, inference_batch_size(train.array))
    in_batches, inference = StatisticsEstimator(model).predict(sample), map(model.predict_on_batch, inputs)
    return sample.accuracy(in_batches) - sample.accuracy(inference)


def pool_moments(moments: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Means and variances of all batches together: exactly those of the activations, as batches have equal sizes.

    moments: of each batch, a list that alternates means and variances, (..., channels) each. Returns such a list,
    float64. The variance is the mean variance within the batches plus the variance of their means.
    """
    pooled = []
    by_array = [np.asarray(arrays, np.float64) for arrays in zip(*moments, strict=True)]
    for means, variances in zip(by_array[::2], by_array[1::2], strict=True):
        pooled += [means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)]
    return pooled


class StatisticsEstimator:
    """Estimates the statistics of a model, with any backend of Keras."""

    def __init__(self, model: keras.Model):
        self._model, self._statistics = _BatchStatisticsModel(model), moving_statistics(model)

    def estimate(self, sample: StatisticsSample) -> None:
        """Replace the stored statistics by those of the sample."""
        moments = []
        for inputs in sample:
            self._model.predict_on_batch(inputs)
            moments.append(self._stored())
        for variable, value in zip(self._statistics, pool_moments(moments), strict=True):
            variable.assign(value)

    def predict(self, sample: StatisticsSample) -> list[np.ndarray]:
        """Probabilities (n, classes) of each batch with its own statistics; the stored ones stay as they are."""
        stored = self._stored()
        probabilities = [np.asarray(self._model.predict_on_batch(inputs)) for inputs in sample]
        for variable, value in zip(self._statistics, stored, strict=True):
            variable.assign(value)
        return probabilities

    def _stored(self) -> list[np.ndarray]:
        # A copy: a NumPy array may share its memory with the variable.
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in self._statistics]


class _BatchStatisticsModel(keras.Model):
    """A model in inference mode, but for its trained batch normalization, which stores the statistics of each batch."""

    def __init__(self, model: keras.Model):
        super().__init__(name="batch_statistics")
        self.model = model

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Probabilities of a batch."""
        with using_batch_statistics(self.model):
            return self.model(inputs, training=False)
