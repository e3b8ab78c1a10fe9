"""Whole models, from uint8 images to probabilities: networks, and heads joined to their backbone."""

from pathlib import Path

import keras

from stages.backbones.cuts import freeze_batch_normalization, freeze_below, pool_output, up_to_cut
from stages.backbones.layer_names import find_layer, lowest_trained_layer
from stages.backbones.pretrained import load_backbone, load_weights
from stages.config.heads import HeadConfig
from stages.config.networks import NetworkConfig
from stages.training.heads import add_head, build_head


def build_network(
    name: str, entry: NetworkConfig, image_size: int, classes: int, l2: float = 0.0
) -> tuple[keras.Model, keras.Model]:
    """A network as its entry describes it, its backbone with the weights it starts from, its head with random ones.

    Returns the network, from uint8 images (n, image_size, image_size, 3) to probabilities (n, classes), and the part of
    it that is the backbone; they share their layers.
    """
    backbone, record = load_backbone(entry.backbone, image_size)
    cut = find_layer(record.architecture, entry.cut or "top", "highest")
    freeze(backbone, entry, record.architecture, cut)
    lower = up_to_cut(backbone, cut)
    return add_head(pool_output(lower, entry.pooling), entry, classes, l2, name), lower


def freeze(backbone: keras.Model, entry: NetworkConfig, architecture: str, cut: str) -> None:
    """Freeze what the entry does not train: the layers below `trainable`, and batch normalization."""
    if entry.trainable != "all":
        head_only = entry.trainable == "head"
        freeze_below(backbone, None if head_only else lowest_trained_layer(architecture, entry.trainable, cut))
    trained = entry.train_batch_normalization
    if not (entry.trainable == "all" if trained is None else trained):
        freeze_batch_normalization(backbone)


def join_head(
    name: str,
    entry: HeadConfig,
    weights: Path,
    lower: keras.Model,
    architecture: str,
    cut: str,
    classes: int,
    l2: float = 0.0,
) -> tuple[keras.Model, keras.Model]:
    """A trained head on the part of a backbone whose activations it was trained on.

    name, entry: of the head. weights: its weights file. lower: the backbone up to the cut, from uint8 images
    (n, h, w, 3) to activations. Returns the whole model, from images to probabilities (n, classes), and the head in it;
    they share their layers.
    """
    shape, image_size = list(lower.output.shape[1:]), lower.input.shape[1]
    head = build_head(entry, classes, shape, architecture, image_size, cut, l2)
    load_weights(head, weights, f"heads.{name}")
    return keras.Model(lower.input, head(lower.output), name=name), head
