"""Section `features`: activations of a backbone that are computed once."""

from typing import Annotated, Literal

from pydantic import Field

from stages.config.augmentation import AugmentationConfig
from stages.config.fields import Classes, Entry, Pooling, Reference


class FeaturesConfig(Entry):
    """The activations of a backbone at one or more cut layers, for the images of a dataset."""

    dataset: Reference
    """The dataset of the images."""
    backbone: Reference
    """A backbone or network with trained weights."""
    cut: str | Annotated[list[str], Field(min_length=1)]
    """The layer or block whose activations are stored. One pass over the images computes a whole list of them."""
    classes: Classes | None = None
    """The classes of the images; null for all. They must include all classes of the tasks that use the features."""
    pooling: Pooling = "none"
    """Pooling of the activations over the image, which makes them a vector. Of the tokens of a transformer, `average`
    and `max` use those of the patches, `class_token` takes that of the class, and `class_token_and_average` joins it
    with the average."""
    storage: Literal["float16", "float32"] = "float16"
    """The stored type. `float16` holds numbers up to 65,504."""
    views: list[AugmentationConfig] = Field([])
    """Augmentations. For each, a changed copy of every image is stored too, and used for training only."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """The precision of the computation. `auto` is bfloat16 if the processor supports it and the error stays small."""

    @property
    def cuts(self) -> list[str]:
        """The cuts as a list."""
        return [self.cut] if isinstance(self.cut, str) else self.cut
