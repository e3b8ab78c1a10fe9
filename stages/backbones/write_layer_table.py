"""Writes the table of layers, `layers.json`: `python -m stages.backbones.write_layer_table [architecture ...]`.

Without arguments it builds every architecture; with names it updates only these entries. See `layer_table`.
"""

import json
import sys
import textwrap
from collections.abc import Iterable

import keras

from stages.backbones.building import build_backbone, layer_names
from stages.backbones.layer_table import LAYERS_FILE, LayerTraits
from stages.backbones.registry import ARCHITECTURES
from stages.core.files import write_json
from stages.core.wording import counted, did_you_mean

LINE_WIDTH = 112  # with quotes, comma and indentation of the JSON: 119


def main(names: list[str]) -> str:
    """Write the table; returns a summary. names: the architectures to update, all if empty."""
    if unknown := [name for name in names if name not in ARCHITECTURES]:
        suggestion = did_you_mean(unknown[0], ARCHITECTURES)
        raise SystemExit(f"write_layer_table: architecture {unknown[0]!r} does not exist{suggestion}.")
    table = json.loads(LAYERS_FILE.read_text(encoding="utf-8")) if names else {}
    table |= {name: format_layers(layers) for name, layers in build_layer_table(names or ARCHITECTURES).items()}
    write_json(LAYERS_FILE, {name: table[name] for name in ARCHITECTURES if name in table})
    return f"{LAYERS_FILE.name}: {counted(len(table), 'architecture')}"


def build_layer_table(architectures: Iterable[str] = ARCHITECTURES) -> dict[str, dict[str, LayerTraits]]:
    """Build architectures and return, for each, its layers by name, lowest first."""
    table = {}
    for architecture in architectures:
        backbone = build_backbone(architecture, max(64, ARCHITECTURES[architecture].smallest_image))
        separating = _separating_layers(backbone)
        table[architecture] = {
            layer: LayerTraits(layer in separating, len(backbone.get_layer(layer).output.shape) == 4)
            for layer in layer_names(backbone)
        }
    return table


def _separating_layers(backbone: keras.Model) -> set[str]:
    """The layers through which every path from the input to the output passes.

    Keras lists operations in topological order. An operation separates if no operation before it has an output that an
    operation after it uses.
    """
    last_use = {}
    for position, operation in enumerate(backbone.operations):
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                last_use[tensor._keras_history.operation.name] = position
    separating, open_until = set(), 0
    for position, operation in enumerate(backbone.operations):
        if open_until <= position:
            separating.add(operation.name)
        open_until = max(open_until, last_use.get(operation.name, position))
    return separating


def format_layers(layers: dict[str, LayerTraits]) -> list[str]:
    """Format the layers of an architecture as lines of `layers.json`; see `layer_table` for the marks."""
    marks = {layer: "s" * traits.separates + "f" * (not traits.image) for layer, traits in layers.items()}
    words = " ".join(f"{layer}:{mark}" if mark else layer for layer, mark in marks.items())
    return textwrap.wrap(words, LINE_WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    print(main(sys.argv[1:]))
