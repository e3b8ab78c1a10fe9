"""Section `probes`: classifiers on features that are solved, not trained."""

from typing import Annotated, Literal

from pydantic import Field

from stages.config.fields import LayerOrNull, PositiveOrNull, Reference
from stages.config.training import ClassWeights, ModelConfig, TrainFraction

Strength = Annotated[float, Field(gt=0)]
DEFAULT_STRENGTHS = {
    "ridge": [10.0**power for power in range(-6, 3)],
    "logistic": [10.0**power for power in range(-4, 2)],
}
DEFAULT_NEIGHBORS = [1, 5, 10, 20, 50, 100, 200]


class ProbeConfig(ModelConfig):
    """A classifier on standardized features that is solved without a learning rate, which takes seconds."""

    features: Reference
    """The features that the probe is solved on."""
    cut: LayerOrNull | Annotated[list[str], Field(min_length=1)] = None
    """The cut of the features; required if they have several. A list joins the pooled features of several cuts."""
    kind: Literal["ridge", "logistic", "nearest_neighbors"] = "ridge"
    """`ridge`, the fastest, is ridge regression of the classes (Hoerl & Kennard 1970); `logistic` is multinomial
    logistic regression, with the loss and the penalty of a linear head; `nearest_neighbors` lets the
    training images that are most similar by cosine vote, weighted by exp(similarity / 0.07) (Caron et al. 2021)."""
    views: PositiveOrNull = None
    """The number of views of each training image, 1 for the image alone; null for all."""
    l2: Strength | Annotated[list[Strength], Field(min_length=1)] | None = None
    """The strength of the L2 penalty. With a list, the value with the lowest validation loss is used; null for the
    powers of ten from 1e-6 to 100 of `ridge`, and from 1e-4 to 10 of `logistic`."""
    neighbors: (
        Annotated[int, Field(ge=1)] | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None
    ) = None
    """The number of `nearest_neighbors`. With a list, the value with the lowest validation loss is used; null for 1, 5,
    10, 20, 50, 100 and 200, without those above the number of training rows."""
    class_weights: ClassWeights = None
    """`balanced` gives every class the same total weight, whatever its number of images."""
    train_fraction: TrainFraction = None
    """The share of the training images of each class that is used."""
    max_train_per_class: PositiveOrNull = None
    """The largest number of training images of each class."""

    @property
    def cuts(self) -> list[str | None]:
        """The cuts as a list; None stands for the only one of the features."""
        return self.cut if isinstance(self.cut, list) else [self.cut]

    @property
    def choices(self) -> list[float]:
        """The L2 strengths, or numbers of neighbors, to choose from."""
        if self.kind == "nearest_neighbors":
            given = DEFAULT_NEIGHBORS if self.neighbors is None else self.neighbors
            return given if isinstance(given, list) else [given]
        if self.l2 is None:
            return DEFAULT_STRENGTHS[self.kind]
        return self.l2 if isinstance(self.l2, list) else [self.l2]
