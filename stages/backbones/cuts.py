"""Cuts backbones at a layer, pools their activations, and freezes their lower layers."""

from pathlib import Path

import keras
from keras import layers

from stages.backbones.building import layer_names
from stages.backbones.layer_table import layers_of
from stages.backbones.pretrained import save_weights

POOLING = {"average": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
DROP_RATES = ("rate", "drop_path_rate")  # of Keras's dropout layers, and of the stochastic depth of ConvNeXt


def up_to_cut(backbone: keras.Model, cut: str, pooling: str = "none") -> keras.Model:
    """Return the backbone from the images to layer `cut`; it shares its layers with `backbone`.

    pooling: `none` keeps the shape of the activations; `average` and `max` need activations (n, h, w, c) and return
    (n, c).
    """
    x = backbone.get_layer(cut).output
    if pooling != "none":
        # The name is unique, so that one model can have several cuts.
        x = POOLING[pooling](name=f"{cut}_pooling")(x)
    return keras.Model(backbone.input, x, name="below")


def above_cut(model: keras.Model, cut: str) -> keras.Model:
    """Return the part of `model` above layer `cut`, from its activations to the output; the layers are shared.

    The cut must separate: every path from the image passes through it (see `LayerTraits.separates`).
    """
    return keras.Model(model.get_layer(cut).output, model.output, name="above")


def pool_output(model: keras.Model, pooling: str) -> keras.Model:
    """Pool the output of `model` over the image (see `up_to_cut`); a flat output stays as it is."""
    if pooling == "none" or len(model.output.shape) != 4:
        return model
    return keras.Model(model.input, POOLING[pooling](name=f"{pooling}_pool")(model.output))


def freeze_below(backbone: keras.Model, lowest_trained: str | None) -> None:
    """Freeze the layers below `lowest_trained`, or the whole backbone for None.

    A frozen layer computes the same in training as in inference: batch normalization uses its stored statistics (Keras
    runs it in inference mode if it is not trainable), and dropout drops nothing.
    """
    names = layer_names(backbone)
    for name in names[: names.index(lowest_trained)] if lowest_trained else names:
        layer = backbone.get_layer(name)
        layer.trainable = False
        for rate in DROP_RATES:
            if isinstance(getattr(layer, rate, None), float):
                setattr(layer, rate, 0.0)


def freeze_batch_normalization(model: keras.Model) -> None:
    """Freeze the statistics of all batch normalization layers: a few new images estimate them worse."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def write_above_cut(backbone: keras.Model, architecture: str, cut: str, file: Path) -> None:
    """Save the weights of the layers above a cut layer that separates them, for heads that start from these layers."""
    if layers_of(architecture)[cut].separates and cut != layer_names(backbone)[-1]:
        save_weights(above_cut(backbone, cut), file)
