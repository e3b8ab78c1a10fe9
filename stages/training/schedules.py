"""The learning-rate schedule: warm-up, then a constant, exponential or cosine schedule."""

import math
from typing import Any

import keras
from keras import ops

from stages.config.training import TrainingConfig


class TrainingSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of every step, counted from 0.

    In the warm-up the rate rises in equal steps to the full rate. After it, exponential: times `decay` for every
    `decay_steps` steps, without jumps; cosine: half a cosine wave down to 0 (Loshchilov & Hutter 2017, without
    restarts). reduction: a variable of the optimizer, by which every rate is multiplied; plateaus lower it.
    """

    def __init__(self, settings: TrainingConfig, steps_per_epoch: int):
        self.settings, self.steps_per_epoch = settings, steps_per_epoch
        self.reduction: Any = 1.0

    def __call__(self, step: Any) -> Any:
        """The rate of a step, or the rates of an array of steps, float32."""
        settings, step = self.settings, ops.cast(step, "float32")
        warm_up = settings.warm_up * self.steps_per_epoch
        steps = settings.epochs * self.steps_per_epoch - warm_up
        after = ops.maximum(step - warm_up, 0.0)
        if settings.schedule == "exponential":
            factor = ops.power(settings.decay, after / settings.decay_steps)
        elif settings.schedule == "cosine":
            factor = (1 + ops.cos(math.pi * after / steps)) / 2
        else:
            factor = ops.ones_like(step)
        factor = ops.where(step < warm_up, (step + 1) / (warm_up + 1), factor)
        return settings.learning_rate * factor * self.reduction

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"settings": self.settings.model_dump(), "steps_per_epoch": self.steps_per_epoch}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TrainingSchedule":
        """The schedule that `get_config` describes."""
        return cls(TrainingConfig(**config["settings"]), config["steps_per_epoch"])
