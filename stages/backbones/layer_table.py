"""The layers of each architecture and their properties, without building a network.

Building a network takes seconds of imports, so `layers.json` lists the layers of every architecture. A layer name is
followed by `:s` if the layer separates, by `:f` if its activations are flat, by `:sf` if both.
`python -m stages.backbones.write_layer_table` writes the file, and a test compares it with the networks.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LAYERS_FILE = Path(__file__).with_name("layers.json")


@dataclass(frozen=True)
class LayerTraits:
    """What a study can do at a layer.

    separates: whether every path from the image to the last layer passes through it. The layers above can then run on
    its activations alone.
    image: whether its activations have the axes of an image (h, w, c). They can then be pooled.
    """

    separates: bool
    image: bool


@cache
def layers_of(architecture: str) -> dict[str, LayerTraits]:
    """The layers of an architecture by name, lowest first."""
    lines = json.loads(LAYERS_FILE.read_text(encoding="utf-8"))[architecture]
    marked = (layer.partition(":") for layer in " ".join(lines).split())
    return {name: LayerTraits("s" in marks, "f" not in marks) for name, _, marks in marked}
