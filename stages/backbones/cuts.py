"""Cutting a backbone, and freezing its lower part."""

from pathlib import Path

import keras
from keras import layers

from stages.backbones.building import layer_names
from stages.backbones.layer_table import layers_of
from stages.backbones.pretrained import save_weights

POOLING = {"average": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}


def up_to_cut(backbone: keras.Model, cut: str, pooling: str = "none") -> keras.Model:
    """The backbone from the images to layer `cut`, its activations pooled over the image where `pooling` says so.

    The layers are shared with `backbone`. `pooling` (`average`, `max`) needs activations (n, h, w, c) and returns
    (n, c); with `none` the activations keep their shape.
    """
    x = backbone.get_layer(cut).output
    if pooling != "none":
        x = POOLING[pooling](name="pooling")(x)
    return keras.Model(backbone.input, x, name="below")


def above_cut(model: keras.Model, cut: str) -> keras.Model:
    """The part of `model` above layer `cut`, from its activations to the output; the layers are shared.

    Every path from the image must pass through the cut (see `stages.backbones.registry.layers_of`).
    """
    return keras.Model(model.get_layer(cut).output, model.output, name="above")


def pool_output(model: keras.Model, pooling: str) -> keras.Model:
    """`model` with its last activations pooled over the image, where they are one; see `up_to_cut`."""
    if pooling == "none" or len(model.output.shape) != 4:
        return model
    return keras.Model(model.input, POOLING[pooling](name=f"{pooling}_pool")(model.output))


def freeze_below(backbone: keras.Model, lowest_trained: str | None) -> None:
    """Freeze the layers of a backbone below `lowest_trained`, which itself and everything above stays trainable; or
    all of them, for None.

    A frozen layer computes in training what it computes in inference: batch normalization keeps its statistics
    (Keras runs it in inference mode when it is not trainable), and dropout drops nothing.
    """
    names = layer_names(backbone)
    for name in names[: names.index(lowest_trained)] if lowest_trained else names:
        layer = backbone.get_layer(name)
        layer.trainable = False
        for rate in ("rate", "drop_path_rate"):  # of Keras's dropout layers; of the stochastic depth of ConvNeXt
            if isinstance(getattr(layer, rate, None), float):
                setattr(layer, rate, 0.0)


def freeze_batch_normalization(model: keras.Model) -> None:
    """Keep all batch normalization at its learned statistics: few new images would only blur them."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def write_above_cut(backbone: keras.Model, architecture: str, cut: str, file: Path) -> None:
    """Save the weights of the layers above a cut layer that separates them, for heads that start from these layers."""
    if layers_of(architecture)[cut].separates and cut != layer_names(backbone)[-1]:
        save_weights(above_cut(backbone, cut), file)
