"""Cuts backbones at a layer, pools their activations, and freezes their lower layers."""

from pathlib import Path

import keras
from keras import layers

from stages.backbones.building import inner_layers, layer_names
from stages.backbones.layer_table import LayerTraits
from stages.backbones.pooling import BOTH, CLASS_TOKEN
from stages.backbones.pretrained import save_weights

IMAGE_POOLING = {"average": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
TOKEN_POOLING = {"average": layers.GlobalAveragePooling1D, "max": layers.GlobalMaxPooling1D}
DROP_RATES = ("rate", "drop_path_rate", "drop_prob")  # of dropout, and of stochastic depth in ConvNeXt and Swin


def up_to_cut(backbone: keras.Model, cut: str, pooling: str = "none", prefix: int = 0) -> keras.Model:
    """Return the backbone from the images to layer `cut`; it shares its layers with `backbone`.

    pooling: `none` keeps the shape of the activations; the others return (n, c), see `possible_poolings`. `average` and
    `max` are over the image or over the tokens of its patches; `class_token_and_average` returns (n, 2 c). prefix: how
    many tokens come before those of the patches.
    """
    x = backbone.get_layer(cut).output
    # The name is unique, so that one model can have several cuts.
    return keras.Model(backbone.input, _pool(x, pooling, prefix, f"{cut}_pooling"), name="below")


def up_to_cuts(backbone: keras.Model, cuts: list[str], pooling: str = "none", prefix: int = 0) -> keras.Model:
    """Return the backbone from the images to one or several cut layers, whose vectors it joins; see `up_to_cut`."""
    parts = [up_to_cut(backbone, cut, pooling, prefix) for cut in cuts]
    if len(parts) == 1:
        return parts[0]
    joined = layers.Concatenate(name="joined_cuts")([part.output for part in parts])
    return keras.Model(backbone.input, joined, name="below")


def _pool(x: keras.KerasTensor, pooling: str, prefix: int, name: str) -> keras.KerasTensor:
    if pooling == "none":
        return x
    if len(x.shape) == 4:
        return IMAGE_POOLING[pooling](name=name)(x)
    if pooling == BOTH:
        parts = [_pool(x, part, prefix, f"{name}_{part}") for part in (CLASS_TOKEN, "average")]
        return layers.Concatenate(name=name)(parts)
    if pooling == CLASS_TOKEN:
        token = layers.Cropping1D((0, x.shape[1] - 1), name=f"{name}_token")(x)
        return layers.Reshape((x.shape[2],), name=name)(token)
    if prefix:
        x = layers.Cropping1D((prefix, 0), name=f"{name}_patches")(x)
    return TOKEN_POOLING[pooling](name=name)(x)


def above_cut(model: keras.Model, cut: str) -> keras.Model:
    """Return the part of `model` above layer `cut`, from its activations to the output; the layers are shared.

    The cut must separate: every path from the image passes through it (see `LayerTraits.separates`).
    """
    return keras.Model(model.get_layer(cut).output, model.output, name="above")


def pool_output(model: keras.Model, pooling: str, prefix: int = 0) -> keras.Model:
    """Pool the output of `model` (see `up_to_cut`); a flat output stays as it is."""
    if pooling == "none" or len(model.output.shape) == 2:
        return model
    return keras.Model(model.input, _pool(model.output, pooling, prefix, f"{pooling}_pool"))


def freeze_below(backbone: keras.Model, lowest_trained: str | None) -> None:
    """Freeze the layers below `lowest_trained`, or the whole backbone for None.

    A frozen layer computes the same in training as in inference: batch normalization uses its stored statistics (Keras
    runs it in inference mode if it is not trainable), and dropout drops nothing.
    """
    names = [layer.name for layer in backbone.layers]
    for layer in backbone.layers[: names.index(lowest_trained)] if lowest_trained else backbone.layers:
        layer.trainable = False
        for part in [layer, *inner_layers(layer)]:
            for rate in DROP_RATES:
                if isinstance(getattr(part, rate, None), float):
                    setattr(part, rate, 0.0)


def freeze_batch_normalization(model: keras.Model) -> None:
    """Freeze the statistics of all batch normalization layers: a few new images estimate them worse."""
    for layer in model.layers:
        for part in [layer, *inner_layers(layer)]:
            if isinstance(part, layers.BatchNormalization):
                part.trainable = False


def write_above_cut(backbone: keras.Model, traits: LayerTraits, cut: str, file: Path) -> None:
    """Save the weights of the layers above a cut layer that separates them, for heads that start from these layers.

    traits: of the cut layer.
    """
    if traits.separates and cut != layer_names(backbone)[-1]:
        save_weights(above_cut(backbone, cut), file)
