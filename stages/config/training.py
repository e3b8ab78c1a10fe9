"""Section `training`, and the keys that all models share."""

from typing import Annotated, Literal

from pydantic import Field, create_model

from stages.config.fields import (
    Entry,
    Factor,
    LearningRate,
    NotNegative,
    NotNegativeOrNull,
    Positive,
    PositiveOrNull,
    Precision,
    Reference,
    ShareOrZero,
)

TrainFraction = Annotated[float, Field(gt=0, le=1)] | None
ClassWeights = Literal["none", "balanced"]


class TrainingConfig(Entry):
    """How models are trained. Section `training` holds the defaults of all models."""

    epochs: Annotated[int, Field(ge=1, le=100_000)]
    """The largest number of passes over the training images."""
    batch_size: Positive
    """The number of images in a training step."""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"]
    """The optimizer, with Keras's default settings."""
    learning_rate: LearningRate
    """The learning rate."""
    early_stopping: PositiveOrNull
    """Stop after this many epochs without a lower validation loss, and restore the best weights. null trains all epochs
    and keeps the last weights."""
    repeats: Annotated[int, Field(ge=1, le=100)]
    """The number of repeats. Each has its own seed, and its own fold if there are enough."""
    max_train_per_class: PositiveOrNull
    """The largest number of training images of each class; null for all. A smaller choice is part of a larger one."""
    momentum: ShareOrZero = 0.0
    """The momentum of sgd and rmsprop."""
    weight_decay: NotNegativeOrNull = None
    """Decoupled weight decay (Loshchilov & Hutter 2019); null for the optimizer's default: 0.004 for adamw, else 0."""
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    """The learning-rate schedule. `exponential` multiplies by `decay` every `decay_steps` steps, without jumps.
    `cosine` ends at 0 in the last epoch."""
    decay: Factor = 0.98
    """The factor of the exponential schedule."""
    decay_steps: Positive = 1000
    """The steps of the exponential schedule."""
    warm_up: Annotated[int, Field(ge=0)] = 0
    """The number of epochs in which the learning rate rises from 0."""
    reduce_on_plateau: PositiveOrNull = None
    """After this many epochs without a lower validation loss, divide the learning rate by 5."""
    generalization_loss: NotNegativeOrNull = None
    """Stop if validation loss / lowest validation loss - 1 exceeds this value (Prechelt 1998), and restore the best
    weights."""
    train_fraction: TrainFraction = None
    """The share of the training images of each class that is used; null for all. A smaller share is part of a larger
    one."""
    class_weights: ClassWeights = "none"
    """`balanced` gives every class the same total weight, whatever its number of images."""
    label_smoothing: ShareOrZero = 0.0
    """The share of the target that is spread over all classes (Szegedy et al. 2016)."""
    mixup: NotNegative = 0.0
    """Alpha of the Beta distribution for mixing pairs of images (Zhang et al. 2018); 0 for no mixup."""
    precision: Precision = "float32"
    """The precision of the computation. Weights stay float32."""


class ModelConfig(Entry):
    """The keys that all models share, probes included."""

    task: Reference
    """The task of the model."""

    def training(self, defaults: TrainingConfig) -> TrainingConfig:
        """The training settings of this model: its own keys over the defaults."""
        own = self.model_fields_set & set(TrainingConfig.model_fields)
        return defaults.model_copy(update={key: getattr(self, key) for key in own})


# A model may set any key of section `training`. A key that it does not set has the default of that section.
_OwnTraining = create_model(
    "_OwnTraining", __base__=Entry, **{key: (kind, None) for key, kind in TrainingConfig.__annotations__.items()}
)


class TrainedModelConfig(ModelConfig, _OwnTraining):
    """The keys of networks, heads and fine-tunes, which are trained by gradient descent."""
