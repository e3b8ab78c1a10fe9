"""Optimizers, losses and discriminative learning rates of a study, as Keras takes them."""

from typing import Any

import keras

from stages.config.training import TrainingConfig


def compile_model(model: keras.Model, settings: TrainingConfig, factors: dict[str, float] | None = None) -> None:
    """Give a model its optimizer, cross-entropy of one-hot targets, and accuracy.

    factors: path of a weight -> what the learning rate of this weight is multiplied by; 1 for the others.
    """
    options = {"momentum": settings.momentum} if settings.momentum else {}
    if settings.weight_decay is not None:
        options["weight_decay"] = settings.weight_decay
    kind = _discriminative(_fused(type(keras.optimizers.get(settings.optimizer))), factors or {})
    optimizer = kind(learning_rate=settings.learning_rate, **options)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
    model.compile(optimizer, loss=loss, metrics=["accuracy"])


def _fused(kind: type) -> type:
    """A class of Adam that updates a weight by one operation of TensorFlow; all else as it is.

    Keras composes the update of a dozen, each of which reads and writes as much memory as the weight has; in heads of
    millions of weights that is a third of the training.
    """
    if not issubclass(kind, keras.optimizers.Adam) or keras.backend.backend() != "tensorflow":
        return kind
    import tensorflow as tf

    class Fused(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            place = self._get_variable_index(variable)
            step = tf.cast(self.iterations.value + 1, tf.float32)
            tf.raw_ops.ResourceApplyAdam(
                var=self._trainable_variables[place].value.handle,
                m=self._momentums[place].value.handle,
                v=self._velocities[place].value.handle,
                beta1_power=tf.pow(self.beta_1, step),
                beta2_power=tf.pow(self.beta_2, step),
                lr=tf.cast(learning_rate, tf.float32),
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=tf.cast(gradient, tf.float32),
            )

    return Fused


def _discriminative(kind: type, factors: dict[str, float]) -> type:
    """A class of optimizers whose learning rate is multiplied by a factor for some weights."""
    if not factors:
        return kind

    class Discriminative(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            path = self._trainable_variables[self._get_variable_index(variable)].path
            super().update_step(gradient, variable, learning_rate * factors.get(path, 1.0))

    return Discriminative


def learning_rate_factors(layers: list[keras.layers.Layer], decay: float) -> dict[str, float]:
    """Path of a weight -> `decay` to the power of its depth: 1 for the topmost layer that is trained, 2 for the next.

    layers: of the backbone, from the image upward. The head, above them, has depth 0 and is not listed.
    """
    trained = [layer for layer in reversed(layers) if layer.trainable_weights]
    return {
        weight.path: decay**depth
        for depth, layer in enumerate(trained, start=1)
        for weight in layer.trainable_weights
        if decay != 1
    }
