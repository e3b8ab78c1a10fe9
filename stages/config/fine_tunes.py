"""Section `fine_tunes`: trained heads joined to their backbone again."""

from stages.config.fields import Positive, Reference
from stages.config.networks import ImageModelConfig


class FineTuneConfig(ImageModelConfig):
    """A trained head or a probe that is joined to its backbone again and trained further, from layer `unfreeze` up."""

    head: Reference
    """The head or probe. It has the task and the backbone of the fine-tune."""
    features: Reference
    """The features that training starts from, if one of their cuts is below `unfreeze` and there is no augmentation.
    Otherwise training starts from the images; then give the features of the head."""
    unfreeze: Positive | str
    """The lowest backbone layer or block that is trained, the number of layers below the head that are, or `all`."""
