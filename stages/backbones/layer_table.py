"""What can be known of the layers of an architecture without building it."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LAYERS_FILE = Path(__file__).with_name("layers.json")


@dataclass(frozen=True)
class LayerTraits:
    """What can be done at a layer.

    separates: every path from the image to the last layer passes through it, so that the layers above can be run from
    its activations alone. image: its activations are an image (h, w, c), so that they can be pooled.
    """

    separates: bool
    image: bool


@cache
def layers_of(architecture: str) -> dict[str, LayerTraits]:
    """The layers of an architecture by name, from the image upward."""
    lines = json.loads(LAYERS_FILE.read_text(encoding="utf-8"))[architecture]
    marked = (layer.partition(":") for layer in " ".join(lines).split())
    return {name: LayerTraits("s" in marks, "f" not in marks) for name, _, marks in marked}
