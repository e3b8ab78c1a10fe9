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
    kind = _discriminative(optimizer_class(settings), factors or {})
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
