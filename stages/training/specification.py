"""What is trained and how, and the examples to train on: what the stages hand to the training."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np

from stages.artifacts.models import Provenance
from stages.config.training import TrainingConfig
from stages.training.batches import Examples, examples_fingerprint


@dataclass(frozen=True)
class BuiltModel:
    """A model built for one repeat.

    full_model: the model that is stored. trained: the part that is trained: the same model, or the layers above cached
    features, which share their weights with it. factors: of the learning rate of single weights, by their path.
    is_tuned: whether few weights of a frozen backbone are trained, see `stages.backbones.tuning`.
    """

    full_model: keras.Model
    trained: keras.Model
    factors: dict[str, float] = field(default_factory=dict)
    is_tuned: bool = False


Build = Callable[[int, float], BuiltModel]  # from the number of the repeat, from 0, and the L2 strength


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What is known of a model before its training; see `ModelRecord`.

    parameters_below, multiply_adds_below: weights of the backbone below the features that the model is trained on, and
    its multiply-adds of one image.
    """

    name: str
    kind: str
    task: str
    dataset: str
    classes: list[str]
    image_size: int
    resize: str
    settings: dict[str, Any]
    seed: int
    provenance: Provenance
    parameters_below: int = 0
    multiply_adds_below: int = 0
    bits: int | None = None


@dataclass(frozen=True)
class TrainingSpec:
    """What is trained, and how.

    candidates: training settings, each with an L2 strength. If there are several, all are trained in the first repeat,
    and only the one with the lowest validation loss in the others. folds: the validation part that each repeat holds
    out. shares_start: whether all repeats start from the same weights, but for those of an output layer.
    """

    description: ModelDescription
    candidates: list[tuple[TrainingConfig, float]]
    folds: list[int]
    shares_start: bool = False

    @property
    def repeats(self) -> int:
        """Trainings from different seeds."""
        return len(self.folds)

    def fingerprint(self, data: "dict[int, TrainingData]") -> list[Any]:
        """Everything that the training depends on but the code, as JSON. data: fold -> examples."""
        candidates = [(settings.model_dump(), l2) for settings, l2 in self.candidates]
        examples = [examples_fingerprint(data[fold].examples) for fold in self.folds]
        return [asdict(self.description), candidates, self.folds, examples]

    def repeat_seed(self, number: int) -> int:
        """The seed of a repeat, counted from 0."""
        return int(np.random.SeedSequence([self.description.seed, number]).generate_state(1)[0])


@dataclass(frozen=True)
class TrainingData:
    """The examples of all splits with one fold, and the training examples in all views that a model is trained on.

    Test examples are only predicted, after training.
    """

    examples: dict[str, Examples]
    train_views: Examples
