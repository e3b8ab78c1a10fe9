"""Section `features`: activations of a backbone that are computed once."""

from typing import Annotated, Literal

from pydantic import Field

from stages.config.augmentation import AUGMENTATION, AugmentationConfig
from stages.config.fields import Classes, Entry, Layer, Reference


class FeaturesConfig(Entry):
    """The activations of a backbone at the cut for all images of a dataset, or of some of its classes.

    dataset: whose images. backbone: whose activations; one with trained weights.
    cut: the layer or block whose activations are kept, or several of them, computed in one pass over the images.
    classes: of which images; null for all. Heads on these features have tasks of no other classes.
    pooling: of the activations over the image, which are a vector then. storage: float16 holds numbers up to 65,504.
    views: changed copies of every image that are cached beside it and used for training only, one for each item.
    precision: of the computation; auto: bfloat16 where the processor computes in it and the features stand it.
    """

    dataset: Reference
    backbone: Reference
    cut: Annotated[
        Layer | Annotated[list[Layer], Field(min_length=1)],
        Field(description="the name of a layer or block, or a list of them"),
    ]
    classes: Classes | None = None
    pooling: Literal["none", "average", "max"] = "none"
    storage: Literal["float16", "float32"] = "float16"
    views: Annotated[list[AugmentationConfig], Field(description=f"a list, each item {AUGMENTATION}")] = []
    precision: Literal["auto", "float32", "bfloat16"] = "float32"

    @property
    def cuts(self) -> list[str]:
        """The cuts, also where there is one."""
        return [self.cut] if isinstance(self.cut, str) else self.cut
