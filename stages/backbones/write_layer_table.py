"""Writes the table of layer names that studies are checked against: `python -m stages.backbones.write_layer_table`.

With names of architectures behind it, only theirs are written anew.
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
from stages.core.wording import did_you_mean

LINE_WIDTH = 112  # with quotes, comma and indentation of the JSON: 119


def build_layer_table(architectures: Iterable[str] = ARCHITECTURES) -> dict[str, dict[str, LayerTraits]]:
    """Architecture -> name of a layer, from the image upward -> what can be done at it."""
    table = {}
    for name in architectures:
        backbone = build_backbone(name, max(64, ARCHITECTURES[name].smallest_image))
        separating = _separating(backbone)
        table[name] = {
            layer: LayerTraits(layer in separating, len(backbone.get_layer(layer).output.shape) == 4)
            for layer in layer_names(backbone)
        }
    return table


def _separating(backbone: keras.Model) -> set[str]:
    """The layers through which every path from the input to the output leads.

    The layers stand in an order in which each comes after those it takes from; such a layer is the only one so far
    that any later layer takes from.
    """
    operations, last_use = backbone.operations, {}
    for place, operation in enumerate(operations):
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                last_use[tensor._keras_history.operation.name] = place
    found, open_until = set(), 0
    for place, operation in enumerate(operations):
        if open_until <= place:
            found.add(operation.name)
        open_until = max(open_until, last_use.get(operation.name, place))
    return found


def as_lines(layers: dict[str, LayerTraits]) -> list[str]:
    """The layers of an architecture as `layers.json` has them: many to a line, each `name:marks` or only its name."""
    marks = {layer: "s" * of.separates + "f" * (not of.image) for layer, of in layers.items()}
    words = " ".join(f"{layer}:{mark}" if mark else layer for layer, mark in marks.items())
    return textwrap.wrap(words, LINE_WIDTH, break_long_words=False, break_on_hyphens=False)


def main(names: list[str]) -> str:
    if unknown := [name for name in names if name not in ARCHITECTURES]:
        raise SystemExit(f"layers: there is no architecture {unknown[0]!r}{did_you_mean(unknown[0], ARCHITECTURES)}.")
    table = json.loads(LAYERS_FILE.read_text(encoding="utf-8")) if names else {}
    table |= {name: as_lines(layers) for name, layers in build_layer_table(names or ARCHITECTURES).items()}
    write_json(LAYERS_FILE, {name: table[name] for name in ARCHITECTURES if name in table})
    return f"{LAYERS_FILE.name}: {len(table)} architectures"


if __name__ == "__main__":
    print(main(sys.argv[1:]))
