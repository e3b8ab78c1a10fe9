"""Optimizers, losses and discriminative learning rates of a study, as Keras takes them."""

from typing import Any

import keras

from stages.config.training import TrainingConfig
from stages.training.schedules import TrainingSchedule


def compile_model(
    model: keras.Model, settings: TrainingConfig, steps_per_epoch: int, factors: dict[str, float] | None = None
) -> None:
    """Compile a model with its optimizer, cross-entropy of one-hot targets, and accuracy.

    factors: path of a weight -> factor of its learning rate; 1 for the others.
    """
    kind = _discriminative(_fused(optimizer_class(settings)), factors or {})
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
    model.compile(make_optimizer(kind, settings, steps_per_epoch), loss=loss, metrics=["accuracy"])


def optimizer_class(settings: TrainingConfig) -> type:
    """Keras's class of the optimizer."""
    return type(keras.optimizers.get(settings.optimizer))


def make_optimizer(kind: type, settings: TrainingConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """An optimizer of class `kind` with the settings and the learning-rate schedule of a training."""
    options = {"momentum": settings.momentum} if settings.momentum else {}
    if settings.weight_decay is not None:
        options["weight_decay"] = settings.weight_decay
    schedule = TrainingSchedule(settings, steps_per_epoch)
    optimizer = kind(learning_rate=schedule, **options)
    # As a variable of the optimizer, the reduction is saved with its state and can change inside compiled functions.
    schedule.reduction = optimizer.add_variable((), initializer="ones", name="reduction")
    optimizer.schedule = schedule
    return optimizer


def _fused(kind: type) -> type:
    """A class of Adam that updates a weight with one operation of TensorFlow; other classes are returned unchanged.

    Keras composes the update of a dozen operations, each of which reads and writes as much memory as the weight has:
    an epoch of a head of 1,024 units then takes 1.3 to 3 times as long (`python -m benchmarks.training fit`).
    """
    if not issubclass(kind, keras.optimizers.Adam) or keras.backend.backend() != "tensorflow":
        return kind
    import tensorflow as tf

    if tf.distribute.has_strategy():  # a weight is then several variables
        return kind

    class Fused(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            index = self._get_variable_index(variable)
            step = tf.cast(self.iterations.value + 1, tf.float32)
            tf.raw_ops.ResourceApplyAdam(
                var=self._trainable_variables[index].value.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
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
    """Path of a weight -> `decay` to the power of its depth: 1 for the topmost trained layer, 2 for the next.

    layers: of the backbone, from the image upward. The head, above them, has depth 0 and is not listed.
    """
    trained = [layer for layer in reversed(layers) if layer.trainable_weights]
    return {
        weight.path: decay**depth
        for depth, layer in enumerate(trained, start=1)
        for weight in layer.trainable_weights
        if decay != 1
    }
