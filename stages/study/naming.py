"""The names by which a study may call a layer: Keras's own, a block, or a short name of the literature."""

import re
from typing import Literal

from stages.study.architectures import layers_of

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


def names_of(architecture: str) -> list[str]:
    """The names to offer where one was wrong: all layers, or, where they are many, the blocks and `top`."""
    layers = list(layers_of(architecture))
    if len(layers) < SHORT_NAMES_FROM:
        return layers
    blocks = (re.match(r"(.*?block_?\d+[a-z]?|stage\d*|[a-z]+\d*)_", layer) for layer in layers)
    return [*dict.fromkeys(found[1] for found in blocks if found), layers[-1], "top"]
