"""Heads: the layers between a backbone, or its cached features, and the probabilities."""

from pathlib import Path

import keras
import numpy as np
from keras import layers

from stages.artifacts.features import FeaturesRecord
from stages.backbones.building import build_backbone, layer_names
from stages.backbones.cuts import above_cut, pool_output
from stages.backbones.pooling import prefix_tokens
from stages.backbones.pretrained import load_weights
from stages.config.heads import HeadConfig
from stages.config.networks import LayersConfig
from stages.probes.neighbors import VOTE_TEMPERATURE
from stages.probes.weights import NeighborWeights


def add_head(
    model: keras.Model, entry: LayersConfig, classes: int, l2: float, name: str, output: str = "glorot_uniform"
) -> keras.Model:
    """`model` with the dense layers of an entry and a softmax output layer of `classes` units, with random weights.

    Activations of more than one axis are flattened. l2: strength of the penalty on squared weights, 0 for none.
    output: Keras's initializer of the output layer.
    """
    penalty = keras.regularizers.L2(l2) if l2 else None
    x = model.output
    if len(x.shape) > 2:
        x = layers.Flatten(name="features_flat")(x)
    for number, units in enumerate(entry.hidden, start=1):
        x = layers.Dense(units, kernel_regularizer=penalty, name=f"dense{number}")(x)
        if entry.batch_normalization:
            x = layers.BatchNormalization(name=f"normalization{number}")(x)
        x = layers.Activation(entry.activation, name=f"activation{number}")(x)
        if entry.dropout:
            x = layers.Dropout(entry.dropout, name=f"dropout{number}")(x)
    if entry.dropout and not entry.hidden:
        x = layers.Dropout(entry.dropout, name="dropout1")(x)
    # Softmax in float32, also under a mixed precision policy: probabilities in bfloat16 have two digits.
    predictions = layers.Dense(
        classes, "softmax", kernel_initializer=output, kernel_regularizer=penalty, dtype="float32", name="predictions"
    )
    return keras.Model(model.input, predictions(x), name=name)


def build_head(
    entry: HeadConfig, record: FeaturesRecord, classes: int, l2: float = 0.0, above_weights: Path | None = None
) -> keras.Model:
    """A head from features to a softmax over `classes`; the weights of its output layer are zero.

    With more features than images, training leaves most of a random output layer as it was, which is noise in the
    predictions of other images. On MobileNetV2's features of 10 to 150 images it costs 6 to 9 points of accuracy.

    record: of the features. Input: (n, *record.shape) float32; float16 is cast. If features are standardized, the first
    layer, `standardize`, has mean 0 and variance 1 until `set_statistics` or a weights file gives it others. With
    `start_from: backbone` the layers below the output are those of the backbone above the cut, with the weights of the
    file `above_weights`, or random weights without it.
    """
    features = keras.Input(tuple(record.shape), dtype="float32", name="features")
    x = layers.Identity()(features)
    if entry.standardized:
        # Batch normalization that is never trained: only its arithmetic is used. float32: raw activations of some
        # layers reach thousands.
        x = layers.BatchNormalization(
            center=False, scale=False, epsilon=1e-12, trainable=False, dtype="float32", name="standardize"
        )(features)
    below = keras.Model(features, x)
    if entry.start_from == "random":
        return add_head(below, entry, classes, l2, "head", "zeros")
    backbone = build_backbone(record.architecture, record.image_size, record.preset)
    if record.cut != layer_names(backbone)[-1]:
        layers_above = above_cut(backbone, record.cut)
        if above_weights:
            load_weights(layers_above, above_weights, f"heads start from {above_weights}")
        below = keras.Model(features, layers_above(x)) if entry.standardized else layers_above
    return add_head(pool_output(below, "average", prefix_tokens(record.preset)), entry, classes, l2, "head", "zeros")


def build_neighbors(head: keras.Model, weights: NeighborWeights) -> keras.Model:
    """Nearest neighbors in the place of the output layer of a head on standardized features, in layers of Keras alone.

    Of equally similar training rows, `top_k` keeps the first, as `Neighbors` does.
    """
    set_statistics(head, weights.mean, weights.variance)
    x, (rows, classes), number = head.get_layer("standardize").output, weights.votes.shape, int(weights.neighbors[0])
    if len(x.shape) > 2:
        x = layers.Flatten(name="features_flat")(x)
    x = layers.UnitNormalization(dtype="float32", name="unit")(x)
    x = layers.Dense(rows, use_bias=False, dtype="float32", name="similarities")(x)
    similarity, nearest = keras.ops.top_k(x, number)
    votes = layers.Embedding(rows, classes, dtype="float32", name="votes")(nearest)
    weight = keras.ops.exp((similarity - similarity[:, :1]) / VOTE_TEMPERATURE)
    total = keras.ops.sum(votes * keras.ops.expand_dims(weight, -1), axis=1)
    share = total / keras.ops.sum(total, axis=1, keepdims=True)
    scores = keras.ops.log((share * number + 1 / classes) / (number + 1))
    predictions = layers.Dense(classes, "softmax", dtype="float32", name="predictions")
    model = keras.Model(head.input, predictions(scores), name="head")
    model.get_layer("similarities").set_weights([weights.unit.T])
    model.get_layer("votes").set_weights([weights.votes])
    predictions.set_weights([weights.scale * np.eye(classes), np.zeros(classes)])
    return model


def set_statistics(head: keras.Model, mean: np.ndarray, variance: np.ndarray) -> None:
    """Let a head standardize its features by the mean and variance of their channels, (c,) each."""
    head.get_layer("standardize").set_weights([mean, variance])
