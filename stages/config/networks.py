"""Section `networks`: whole models trained end to end."""

from typing import Annotated, Literal

from pydantic import Field

from stages.config.augmentation import AUGMENTATION, AugmentationConfig
from stages.config.fields import Entry, Factor, Hidden, LayerOrNull, NotNegative, Reference, ShareOrZero
from stages.config.training import ModelConfig


class LayersConfig(Entry):
    """The layers between a backbone and the output: dense layers, each followed by its activation.

    hidden: units of each dense layer below the output layer. activation: after each of them.
    batch_normalization: between each dense layer and its activation. dropout: share of the units dropped after each
    dense layer, in training only; without dense layers, of the inputs of the output layer. l2: strength of the penalty
    on the squared weights of the dense layers and the output layer.
    """

    hidden: Hidden = []
    activation: Literal["relu", "gelu", "silu", "tanh", "elu"] = "relu"
    batch_normalization: bool = False
    dropout: ShareOrZero = 0.0
    l2: NotNegative = 0.0


class ImageModelConfig(ModelConfig):
    """The keys of models that are trained on images.

    dataset: that of the task. backbone: what its lower layers are, and the weights they start from.
    augmentation: random changes of the training images.
    layer_decay: the learning rate of each backbone layer is that of the layer above times this (discriminative
        learning rates, Howard & Ruder 2018); the head has the full learning rate.
    train_batch_normalization: whether batch normalization of the trained layers learns and follows the new images;
        null: only where the whole network is trained.
    """

    dataset: Reference
    backbone: Reference
    augmentation: Annotated[AugmentationConfig | None, Field(description=AUGMENTATION)] = None
    layer_decay: Factor = 1.0
    train_batch_normalization: Annotated[bool | None, Field(description="true, false or null")] = None


class NetworkConfig(ImageModelConfig, LayersConfig):
    """A whole model trained end to end.

    cut: the layer or block the head stands on; null for the last. pooling: of its activations over the image, or none:
        they are flattened.
    trainable: `all`, the lowest backbone layer (or block) that is trained, the number of upper layers that are, or
        `head`: the backbone is frozen and runs in every epoch, as in studies without cached features.
    """

    cut: LayerOrNull = None
    pooling: Literal["average", "max", "none"] = "average"
    trainable: Annotated[
        Annotated[int, Field(ge=1)] | str,
        Field(description="all, head, the name of a layer or block, or a number of layers"),
    ] = "all"
