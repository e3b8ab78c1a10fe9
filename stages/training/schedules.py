"""The learning rate of every step."""

import math

from stages.config.training import TrainingConfig


def learning_rate_at(settings: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0, before any reduction on a plateau.

    In the warm-up it rises in equal steps to the full rate. After it, exponential: times `decay` for every
    `decay_steps` steps, without jumps; cosine: half a cosine wave down to 0 (Loshchilov & Hutter 2017, without
    restarts).
    """
    warm_up = settings.warm_up * steps_per_epoch
    if step < warm_up:
        return settings.learning_rate * (step + 1) / (warm_up + 1)
    after, last = step - warm_up, settings.epochs * steps_per_epoch - warm_up
    if settings.schedule == "exponential":
        return settings.learning_rate * settings.decay ** (after / settings.decay_steps)
    if settings.schedule == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * after / last)) / 2
    return settings.learning_rate
