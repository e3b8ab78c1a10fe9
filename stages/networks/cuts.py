"""Cutting a backbone, putting heads on it, and freezing its lower part."""

import keras
from keras import layers

from stages.networks.backbones import layer_names

POOLING = {"average": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}


def below(backbone: keras.Model, cut: str, pooling: str = "none") -> keras.Model:
    """The backbone from the images to layer `cut`, its activations pooled over the image where `pooling` says so.

    The layers are shared with `backbone`. `pooling` (`average`, `max`) needs activations (n, h, w, c) and returns
    (n, c); with `none` the activations keep their shape.
    """
    x = backbone.get_layer(cut).output
    if pooling != "none":
        x = POOLING[pooling](name="pooling")(x)
    return keras.Model(backbone.input, x, name="below")


def above(model: keras.Model, cut: str) -> keras.Model:
    """The part of `model` above layer `cut`, from its activations to the output; the layers are shared.

    Every path from the image must pass through the cut (see `stages.study.architectures.layers_of`).
    """
    return keras.Model(model.get_layer(cut).output, model.output, name="above")


def with_predictions(model: keras.Model, classes: int, name: str) -> keras.Model:
    """`model` with a new softmax output layer of `classes` units; activations of images are averaged first."""
    x = model.output
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name="average_pool")(x)
    # Softmax in float32, also under a mixed precision policy: probabilities in bfloat16 have two digits.
    x = layers.Dense(classes, activation="softmax", dtype="float32", name="predictions")(x)
    return keras.Model(model.inputs, x, name=name)


def dense_head(feature_shape: tuple[int, ...], hidden: list[int], dropout: float, classes: int) -> keras.Model:
    """A head with random weights: dense layers (relu) of `hidden` units, dropout after each, softmax on top.

    feature_shape: shape of the features of one image; more than one axis is flattened.
    dropout: share of the units dropped in training, 0 to below 1.
    """
    features = keras.Input(feature_shape, dtype="float32", name="features")
    x = layers.Flatten(name="flatten")(features) if len(feature_shape) > 1 else features
    for number, units in enumerate(hidden, start=1):
        x = layers.Dense(units, activation="relu", name=f"dense{number}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout{number}")(x)
    x = layers.Dense(classes, activation="softmax", dtype="float32", name="predictions")(x)
    return keras.Model(features, x, name="head")


def freeze_below(backbone: keras.Model, lowest_trained: str) -> None:
    """Freeze the layers of a backbone below `lowest_trained`, which itself and everything above stays trainable.

    A frozen layer computes in training what it computes in inference: batch normalisation keeps its statistics
    (Keras runs it in inference mode when it is not trainable), and dropout drops nothing.
    """
    names = layer_names(backbone)
    for name in names[: names.index(lowest_trained)]:
        layer = backbone.get_layer(name)
        layer.trainable = False
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0


def freeze_batch_normalization(model: keras.Model) -> None:
    """Keep all batch normalisation at its learned statistics: few new images would only blur them."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
