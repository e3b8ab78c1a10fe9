"""Section `training`, whose keys every trained model may give itself."""

from typing import Annotated, Literal

from pydantic import Field, create_model, model_validator

from stages.config.fields import (
    Entry,
    Epochs,
    Factor,
    LearningRate,
    NotNegative,
    NotNegativeOrNull,
    Optimizer,
    Positive,
    PositiveOrNull,
    Precision,
    Reference,
    Repeats,
    ShareOrZero,
)


class TrainingConfig(Entry):
    """How a model is trained; section `training` holds the defaults.

    epochs: at most so many passes over the training images. batch_size: images in one step.
    optimizer: with the settings that Keras gives it. learning_rate: size of a step.
    momentum: of sgd and rmsprop. weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019);
        null for the optimizer's own, 0.004 for adamw and none for the others.
    schedule: of the learning rate: constant; exponential: times `decay` every `decay_steps` steps, without jumps;
        cosine: down to zero at the last epoch. decay, decay_steps: of the exponential schedule.
        warm_up: so many epochs from zero up to the learning rate.
    reduce_on_plateau: after so many epochs without a lower validation loss the learning rate is a fifth of itself.
    early_stopping: stop after so many epochs without a lower validation loss and restore the weights of the lowest;
        null trains all epochs and keeps the last weights.
    generalization_loss: stop when validation loss / lowest validation loss - 1 exceeds it (Prechelt 1998) and restore
        the weights of the lowest.
    repeats: so many trainings from different seeds.
    max_train_per_class, train_fraction: train on at most so many images, or on this share, of each class; null for all.
        A smaller choice is a part of a larger one.
    class_weights: balanced: every class counts as much as the others, however many images it has.
    label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016).
    mixup: alpha of the Beta distribution by which pairs of images are mixed (Zhang et al. 2018); 0 for none.
    precision: of the computation; weights stay float32.
    """

    epochs: Epochs
    batch_size: Positive
    optimizer: Optimizer
    learning_rate: LearningRate
    early_stopping: PositiveOrNull
    repeats: Repeats
    max_train_per_class: PositiveOrNull
    momentum: ShareOrZero = 0.0
    weight_decay: NotNegativeOrNull = None
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    decay: Factor = 0.98
    decay_steps: Positive = 1000
    warm_up: Annotated[int, Field(ge=0, description="a whole number from 0 up")] = 0
    reduce_on_plateau: PositiveOrNull = None
    generalization_loss: NotNegativeOrNull = None
    train_fraction: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None, Field(description="a number above 0, at most 1, or null")
    ] = None
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: ShareOrZero = 0.0
    mixup: NotNegative = 0.0
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _settings_agree(self) -> "TrainingConfig":
        check_training(self)
        return self


def check_training(settings: TrainingConfig) -> None:
    """Refuse settings that each are accepted but not with each other; `ValueError` with the sentence."""
    if settings.momentum and settings.optimizer not in ("sgd", "rmsprop"):
        raise ValueError(
            f"momentum {settings.momentum} does not go with optimizer {settings.optimizer}, only sgd and rmsprop"
        )
    if settings.warm_up >= settings.epochs:
        raise ValueError(f"warm_up {settings.warm_up} leaves none of {settings.epochs} epochs; give fewer")


# Training keys that a model gives itself; null is accepted only where the default may be null.
_OwnTraining = create_model(
    "_OwnTraining", __base__=Entry, **{key: (kind, None) for key, kind in TrainingConfig.__annotations__.items()}
)


class ModelConfig(_OwnTraining):
    """The keys all models share; a training key given here goes before the default in section `training`.

    task: whose images it is trained on, and whose classes it tells apart.
    """

    task: Reference

    def training(self, defaults: TrainingConfig) -> TrainingConfig:
        """The training settings of this model: its own keys over the defaults."""
        own = self.model_fields_set & set(TrainingConfig.model_fields)
        return defaults.model_copy(update={key: getattr(self, key) for key in own})
