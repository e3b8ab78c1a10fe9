"""Section `heads`: layers trained on features."""

from typing import Annotated, Literal

from pydantic import Field

from stages.config.fields import LayerOrNull, LearningRate, NotNegative, PositiveOrNull, Reference
from stages.config.networks import LayersConfig
from stages.config.training import TrainedModelConfig, TrainingConfig

LINEAR_STRENGTHS = [0.0001, 0.001, 0.01, 0.1]


class HeadConfig(TrainedModelConfig, LayersConfig):
    """Dense layers and an output layer that are trained on features."""

    features: Reference
    """The features that the head is trained on."""
    cut: LayerOrNull = None
    """The cut of the features; required if they have several."""
    start_from: Literal["random", "backbone"] = "random"
    """`backbone` starts from the backbone's own layers above the cut, with their weights."""
    standardize: bool | None = None
    """Scale every channel of the features to mean 0 and variance 1 over the training images; null: if `start_from` is
    random."""
    views: PositiveOrNull = None
    """The number of views of each training image, 1 for the image alone; null for all."""
    learning_rate: LearningRate | Annotated[list[LearningRate], Field(min_length=1)] = None
    """The learning rate. With a list, all values are trained, and the one with the lowest validation loss is used."""
    l2: NotNegative | Annotated[list[NotNegative], Field(min_length=1)] | None = None
    """The strength of the L2 penalty on the weights. With a list, all values are trained, and the one with the lowest
    validation loss is used; with lists of `learning_rate` and `l2`, all pairs. Default: [0.0001, 0.001, 0.01, 0.1] for
    a head without hidden layers and with `start_from: random`, otherwise 0."""

    @property
    def standardized(self) -> bool:
        """Whether the features are standardized."""
        return self.start_from == "random" if self.standardize is None else self.standardize

    @property
    def strengths(self) -> list[float]:
        """The L2 strengths to choose from."""
        if self.l2 is None:
            return [0.0] if self.hidden or self.start_from == "backbone" else LINEAR_STRENGTHS
        return self.l2 if isinstance(self.l2, list) else [self.l2]

    def candidates(self, defaults: TrainingConfig) -> list[tuple[TrainingConfig, float]]:
        """The settings to choose from, as pairs with an L2 strength: all learning rates with all strengths."""
        settings = self.training(defaults)
        rates = settings.learning_rate if isinstance(settings.learning_rate, list) else [settings.learning_rate]
        return [(settings.model_copy(update={"learning_rate": rate}), l2) for rate in rates for l2 in self.strengths]
