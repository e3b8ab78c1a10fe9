"""Section `fine_tunes`: trained heads joined to their backbone again."""

from typing import Annotated

from pydantic import Field

from stages.config.fields import Reference
from stages.config.networks import ImageModelConfig


class FineTuneConfig(ImageModelConfig):
    """A trained head joined to its backbone again and trained on, from backbone layer `unfreeze` upward.

    head: the trained head, of the same task and backbone.
    unfreeze: the lowest layer (or block) that is trained, the number of layers below the head that are, or all.
    features: cached activations that training may start from: where one of their cuts lies below `unfreeze` and no
        augmentation is asked for, the frozen layers are not run again. Those of the head, to start from the images.
    """

    head: Reference
    features: Reference
    unfreeze: Annotated[
        Annotated[int, Field(ge=1)] | str,
        Field(description="the name of a layer or block, a number of layers, or all"),
    ]
