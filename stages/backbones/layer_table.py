"""The layers of each architecture and their properties, without building a network.

Building a network takes seconds of imports, so `layers.json` lists the layers of every architecture. A layer name is
followed by `:s` if the layer separates, by `:f` if its activations are flat, by `:t` if they are tokens, or by both.
`python -m stages.backbones.write_layer_table` writes the file, and a test compares it with the networks.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

LAYERS_FILE = Path(__file__).with_name("layers.json")


@dataclass(frozen=True)
class LayerTraits:
    """What a study can do at a layer.

    separates: whether every path from the image to the last layer passes through it. The layers above can then run on
    its activations alone.
    shape: of the activations of an image: `image` (h, w, c), `tokens` (t, c) of a transformer, `vector` (c,).
    """

    separates: bool
    shape: Literal["image", "tokens", "vector"]


MARKS = {"f": "vector", "t": "tokens"}


def layers_of(architecture: str, preset: dict[str, Any] | None = None) -> dict[str, LayerTraits]:
    """The layers of a backbone by name, lowest first. preset: of a backbone of KerasHub, see `WeightsRecord`."""
    return parse_layers(preset["layers"] if preset else " ".join(_table()[architecture]))


def parse_layers(text: str) -> dict[str, LayerTraits]:
    """The layers in a text of names with marks."""
    layers = {}
    for layer in text.split():
        name, _, marks = layer.partition(":")
        shape = next((shape for mark, shape in MARKS.items() if mark in marks), "image")
        layers[name] = LayerTraits("s" in marks, shape)
    return layers


def format_layers(layers: dict[str, LayerTraits]) -> str:
    """The text of layers, as `parse_layers` reads it."""
    letters = {shape: mark for mark, shape in MARKS.items()}
    marks = {name: "s" * traits.separates + letters.get(traits.shape, "") for name, traits in layers.items()}
    return " ".join(f"{name}:{mark}" if mark else name for name, mark in marks.items())


@cache
def _table() -> dict[str, list[str]]:
    return json.loads(LAYERS_FILE.read_text(encoding="utf-8"))
