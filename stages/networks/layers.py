"""Writes the table of layer names that studies are checked against: `python -m stages.networks.layers`."""

import json

import keras

from stages.base.files import write_text
from stages.networks.backbones import build_backbone, layer_names
from stages.study.architectures import ARCHITECTURES, LAYERS_FILE


def layer_table() -> dict[str, dict[str, bool]]:
    """Architecture -> layer, from the image upward -> whether every path to the last layer passes through it."""
    table = {}
    for name, architecture in ARCHITECTURES.items():
        backbone = build_backbone(name, max(64, architecture.smallest_image))
        table[name] = {layer: _separates(backbone, layer) for layer in layer_names(backbone)}
    return table


def _separates(backbone: keras.Model, cut: str) -> bool:
    """Whether the input can no longer be reached from the output when layer `cut` is taken out."""
    reached, waiting = set(), [backbone.output]
    while waiting:
        layer, node, _ = waiting.pop()._keras_history
        if layer.name == cut or layer.name in reached:
            continue
        reached.add(layer.name)
        waiting += layer._inbound_nodes[node].input_tensors
    return backbone.layers[0].name not in reached


if __name__ == "__main__":
    # One line an architecture: a change shows as a change of that line.
    lines = [f'  "{name}": {json.dumps(layers)}' for name, layers in layer_table().items()]
    write_text(LAYERS_FILE, "{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{LAYERS_FILE.name}: {len(lines)} architectures")
