"""Resolves the names and numbers by which a study selects layers, without building a network."""

import re
from collections.abc import Iterable
from typing import Literal

from stages.backbones.layer_table import layers_of

MAX_LISTED_LAYERS = 40  # an architecture with this many layers or more lists its blocks instead
# pool4 is block4_pool and conv4_2 is block4_conv2 in VGG: the names of Simonyan & Zisserman 2015 and Long et al. 2015.
NAMES_IN_LITERATURE = [(r"pool(\d)", r"block\1_pool"), (r"conv(\d)_(\d)", r"block\1_conv\2")]


def find_layer(architecture: str, name: str, end: Literal["lowest", "highest"]) -> str | None:
    """Return the layer that a study calls `name`, or None if the architecture does not have it.

    name: a layer, `top` for the last layer, a short name of the literature, or a block. A block is a prefix that layer
    names share before an underscore: block4, block_14, conv5_block1.
    end: which layer of a block is meant.
    """
    layers = list(layers_of(architecture))
    if name in layers:
        return name
    if name == "top":
        return layers[-1]
    for pattern, template in NAMES_IN_LITERATURE:
        if (layer := re.sub(f"^{pattern}$", template, name)) in layers:
            return layer
    block = [layer for layer in layers if layer.startswith(f"{name}_")]
    return (block[0] if end == "lowest" else block[-1]) if block else None


def selectable_layers(architecture: str) -> list[str]:
    """The names to suggest after a wrong one: all layers, or the blocks and `top` of a deep architecture."""
    layers = list(layers_of(architecture))
    if len(layers) < MAX_LISTED_LAYERS:
        return layers
    matches = (re.match(r"(.*?block_?\d+[a-z]?|stage\d*|[a-z]+\d*)_", layer) for layer in layers)
    return [*dict.fromkeys(match[1] for match in matches if match), layers[-1], "top"]


def lowest_trained_layer(architecture: str, trainable: str | int, cut: str | None = None) -> str | None:
    """Return the lowest layer that a study trains, or None if it does not exist.

    trainable: `all`, a layer or block from which training reaches upward, or a number of upper layers.
    cut: the highest layer that the model uses; None for the last layer of the backbone.
    """
    layers = list(layers_of(architecture))
    layers = layers[: layers.index(cut) + 1] if cut else layers
    if trainable == "all":
        return layers[0]
    if isinstance(trainable, int):
        return layers[-trainable] if trainable <= len(layers) else None
    layer = find_layer(architecture, trainable, "lowest")
    return layer if layer in layers else None


def starting_cut(architecture: str, cuts: Iterable[str], pooling: str, lowest: str) -> str | None:
    """Return the highest cut from whose cached features a fine-tune can start, or None if it must start from images.

    Training can start at a cut below the trained layers through which all paths pass, if the features are not pooled.

    cuts, pooling: of the features. lowest: the lowest trained layer.
    """
    layers = layers_of(architecture)
    names = list(layers)
    usable = [cut for cut in cuts if layers[cut].separates and names.index(cut) < names.index(lowest)]
    return max(usable, key=names.index, default=None) if pooling == "none" else None
