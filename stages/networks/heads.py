"""Heads as their entry in the study describes them."""

from pathlib import Path

import keras

from stages.networks.backbones import build_backbone, layer_names
from stages.networks.cuts import above, dense_head, with_predictions
from stages.networks.pretrained import load_weights
from stages.study.schema import Head


def build_head(
    entry: Head,
    classes: int,
    feature_shape: list[int],
    architecture: str,
    image_size: int,
    cut: str,
    above_weights: Path | None = None,
) -> keras.Model:
    """A head from features of `feature_shape` to a softmax over `classes`, its output layer with random weights.

    With `start_from: backbone` the layers below the output are those of the backbone (`architecture`, `image_size`)
    above the cut, with the weights of the file `above_weights`, or random ones where none is given.
    """
    if entry.start_from == "random":
        return dense_head(tuple(feature_shape), entry.hidden, entry.dropout, classes)
    backbone = build_backbone(architecture, image_size)
    if cut == layer_names(backbone)[-1]:
        features = keras.Input(tuple(feature_shape), dtype="float32", name="features")
        return with_predictions(keras.Model(features, keras.layers.Identity()(features)), classes, "head")
    layers_above = above(backbone, cut)
    if above_weights:
        load_weights(layers_above, above_weights, f"heads start from {above_weights}")
    return with_predictions(layers_above, classes, "head")
