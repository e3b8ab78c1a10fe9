"""Section `heads`: layers trained on features."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.config.fields import LayerOrNull, PositiveOrNull, Rate, Reference, Strength
from stages.config.networks import LayersConfig
from stages.config.training import ModelConfig, TrainingConfig


class HeadConfig(ModelConfig, LayersConfig):
    """The layers trained on features: dense layers and an output layer.

    features: what it is trained on.
    kind: dense is trained by gradient descent; ridge is a linear layer solved in closed form.
    start_from: random, or backbone: its dense layers are the backbone's own above the cut, with its weights.
    cut: which cut of the features, where they have several. views: use so many views of each training image, 1 for
        the image alone; null for all there are.
    standardize: scale every channel of the features to mean 0 and variance 1 over the training images; null: unless it
        starts from the backbone.
    learning_rate: size of a step. Of a list every value is trained side by side; the one of the lowest validation loss
        is kept.
    l2: strength of the penalty on squared weights. Of a list as of learning_rate, of two lists every pair. Of ridge, it
        is chosen from powers of ten where none is given.
    """

    features: Reference
    cut: LayerOrNull = None
    kind: Literal["dense", "ridge"] = "dense"
    start_from: Literal["random", "backbone"] = "random"
    standardize: Annotated[bool | None, Field(description="true, false or null")] = None
    views: PositiveOrNull = None
    learning_rate: Annotated[
        Rate | Annotated[list[Rate], Field(min_length=1)],
        Field(description="a number above 0, at most 10, or a list of them"),
    ] = None
    l2: Annotated[
        Strength | Annotated[list[Strength], Field(min_length=1)],
        Field(description="a number from 0 up, or a list of them"),
    ] = 0.0

    @model_validator(mode="after")
    def _layers_come_from_one_place(self) -> "HeadConfig":
        of_backbone = self.model_fields_set & {"hidden", "activation", "batch_normalization", "dropout"}
        if self.start_from == "backbone" and of_backbone:
            raise ValueError(
                f"{self._given(of_backbone)} not go with start_from: backbone, which brings its own layers; leave them "
                "out, or use start_from: random"
            )
        of_ridge = {
            "task",
            "features",
            "cut",
            "kind",
            "views",
            "l2",
            "class_weights",
            "train_fraction",
            "max_train_per_class",
        }
        if self.kind == "ridge" and (unfit := self.model_fields_set - of_ridge - {"start_from"}):
            raise ValueError(
                f"{self._given(unfit)} not go with kind: ridge, one linear layer on standardized features that is "
                "solved; leave them out, or use kind: dense"
            )
        if self.kind == "ridge" and self.start_from == "backbone":
            raise ValueError("start_from: backbone does not go with kind: ridge; leave one of them out")
        if self.kind == "ridge" and "l2" in self.model_fields_set and 0 in self.strengths:
            raise ValueError("l2 0 does not go with kind: ridge; give strengths above 0")
        return self

    def _given(self, keys: set[str]) -> str:
        """Keys with their values and a `do`, in the order of the class."""
        given = [f"{key} {getattr(self, key)}" for key in type(self).model_fields if key in keys]
        return f"{' and '.join(given)} {'does' if len(given) == 1 else 'do'}"

    @property
    def standardized(self) -> bool:
        """Whether the features are standardized: yes, unless the entry says no or the backbone's layers take them."""
        return self.start_from == "random" if self.standardize is None else self.standardize

    @property
    def strengths(self) -> list[float]:
        """The L2 strengths to choose from; for ridge, where none is given, powers of ten."""
        if self.kind == "ridge" and "l2" not in self.model_fields_set:
            return [10.0**power for power in range(-6, 3)]
        return self.l2 if isinstance(self.l2, list) else [self.l2]

    def candidates(self, defaults: TrainingConfig) -> list[tuple[TrainingConfig, float]]:
        """The settings to choose from, each with its L2 strength: learning rates times strengths."""
        settings = self.training(defaults)
        rates = settings.learning_rate if isinstance(settings.learning_rate, list) else [settings.learning_rate]
        return [(settings.model_copy(update={"learning_rate": rate}), l2) for rate in rates for l2 in self.strengths]
