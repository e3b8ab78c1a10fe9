"""Section `fine_tunes`: trained heads joined to their backbone again."""

from typing import Literal

from stages.config.fields import Positive, Reference
from stages.config.networks import ImageModelConfig


class FineTuneConfig(ImageModelConfig):
    """A trained head or a probe that is joined to its backbone again and trained further: from layer `unfreeze` up, or
    with the few weights of a `tuning`. Give one of the two."""

    head: Reference
    """The head or probe. It has the task and the backbone of the fine-tune."""
    features: Reference
    """The features that training starts from, if one of their cuts is below `unfreeze` and there is no augmentation.
    Otherwise, and with `tuning`, training starts from the images; then give the features of the head."""
    unfreeze: Positive | str | None = None
    """The lowest backbone layer or block that is trained, the number of layers below the head that are, or `all`."""
    tuning: Literal["lora", "bias", "normalization"] | None = None
    """The few weights of the backbone that are trained, at all depths: low-rank updates of the attention projections
    (Hu et al. 2022), all biases (Ben Zaken et al. 2022), or the scales and shifts of all normalization layers (Frankle
    et al. 2021)."""
    rank: Positive = 8
    """The rank of the updates of `tuning: lora`."""
