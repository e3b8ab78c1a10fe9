"""Section `networks`: models that are trained on images in one step."""

from typing import Annotated, Literal

from pydantic import Field

from stages.config.augmentation import AugmentationConfig
from stages.config.fields import Entry, Factor, LayerOrNull, NotNegative, Pooling, Positive, Reference, ShareOrZero
from stages.config.training import TrainedModelConfig


class LayersConfig(Entry):
    """The dense layers between a backbone, or its features, and the output layer."""

    hidden: list[Annotated[int, Field(ge=1, le=65_536)]] = Field([])
    """The number of units of each dense layer below the output layer."""
    activation: Literal["relu", "gelu", "silu", "tanh", "elu"] = "relu"
    """The activation of the dense layers."""
    batch_normalization: bool = False
    """Batch normalization between each dense layer and its activation."""
    dropout: ShareOrZero = 0.0
    """The share of units that are dropped after each dense layer in training; without dense layers, before the output
    layer."""
    l2: NotNegative = 0.0
    """The strength of the L2 penalty on the weights of the dense layers and the output layer."""


class ImageModelConfig(TrainedModelConfig):
    """The keys of models that are trained on images."""

    dataset: Reference
    """The dataset of the task."""
    backbone: Reference
    """The backbone below the head, and the weights that it starts from."""
    augmentation: AugmentationConfig | None = None
    """Random changes of the training images."""
    layer_decay: Factor = 1.0
    """The learning rate of each backbone layer, as a factor of that of the layer above (discriminative learning rates,
    Howard & Ruder 2018). The head has the full learning rate."""
    train_batch_normalization: bool | None = None
    """Whether the batch normalization of trained layers is trained too; null: only in a fully trained network."""


class NetworkConfig(ImageModelConfig, LayersConfig):
    """A model that is trained on images in one step: all layers, the upper layers, or only its head."""

    cut: LayerOrNull = None
    """The layer or block that the head is put on; null for the last."""
    pooling: Pooling = "average"
    """Pooling of the backbone's activations, as of features; `none` flattens them."""
    trainable: Positive | str = "all"
    """The lowest backbone layer or block that is trained, a number of upper layers, `all`, or `head`, which freezes the
    backbone but runs it in every epoch."""
