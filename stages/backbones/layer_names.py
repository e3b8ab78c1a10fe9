"""The names by which a study may call a layer: Keras's own, a block, or a short name of the literature."""

import re
from typing import Literal

from stages.backbones.layer_table import LayerTraits, layers_of

SHORT_NAMES_FROM = 40  # layers; of so many, the blocks are listed instead
# pool4 is block4_pool, conv4_2 is block4_conv2: VGG, as Simonyan & Zisserman 2015 and Long et al. 2015 count.
LITERATURE = [(r"pool(\d)", r"block\1_pool"), (r"conv(\d)_(\d)", r"block\1_conv\2")]


def find_layer(architecture: str, name: str, end: Literal["lowest", "highest"]) -> str | None:
    """The layer that a study calls `name`: a layer, `top` for the last, a short name, or a block; or None.

    A block is whatever comes before an underscore in the names of some layers (block4, block_14, conv5_block1); `end`
    says which of its layers is meant.
    """
    layers = list(layers_of(architecture))
    if name in layers:
        return name
    if name == "top":
        return layers[-1]
    for pattern, full in LITERATURE:
        if (found := re.sub(f"^{pattern}$", full, name)) in layers:
            return found
    block = [layer for layer in layers if layer.startswith(f"{name}_")]
    return (block[0] if end == "lowest" else block[-1]) if block else None


def selectable_layers(architecture: str) -> list[str]:
    """The names to offer where one was wrong: all layers, or, where they are many, the blocks and `top`."""
    layers = list(layers_of(architecture))
    if len(layers) < SHORT_NAMES_FROM:
        return layers
    blocks = (re.match(r"(.*?block_?\d+[a-z]?|stage\d*|[a-z]+\d*)_", layer) for layer in layers)
    return [*dict.fromkeys(found[1] for found in blocks if found), layers[-1], "top"]


def can_start_from(cut: str, pooling: str, layers: dict[str, LayerTraits], lowest: str) -> bool:
    """Whether training that changes the layers from `lowest` upward can start from features at a cut.

    layers: of the architecture, see `layers_of`.
    """
    names = list(layers)
    return names.index(cut) < names.index(lowest) and pooling == "none" and layers[cut].separates


def lowest_trained_layer(architecture: str, named: str | int, upto: str | None = None) -> str | None:
    """The lowest layer that is trained where a study says `named`: all, a layer or block, or a number of layers.

    upto: the cut of the head, above which the backbone has no layers; None for its last layer. None where there is no
    such layer.
    """
    layers = list(layers_of(architecture))
    layers = layers[: layers.index(upto) + 1] if upto else layers
    if named == "all":
        return layers[0]
    if isinstance(named, int):
        return layers[-named] if named <= len(layers) else None
    found = find_layer(architecture, named, "lowest")
    return found if found in layers else None
