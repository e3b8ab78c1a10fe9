"""Writes the table of layer names that studies are checked against: `python -m stages.networks.layers`."""

import json
from dataclasses import asdict

import keras

from stages.base.files import write_text
from stages.networks.backbones import build_backbone, layer_names
from stages.study.architectures import ARCHITECTURES, LAYERS_FILE, Layer


def layer_table() -> dict[str, dict[str, Layer]]:
    """Architecture -> name of a layer, from the image upward -> what can be done at it."""
    table = {}
    for name, architecture in ARCHITECTURES.items():
        backbone = build_backbone(name, max(64, architecture.smallest_image))
        table[name] = {
            layer: Layer(_separates(backbone, layer), len(backbone.get_layer(layer).output.shape) == 4)
            for layer in layer_names(backbone)
        }
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
    table = layer_table()
    blocks = []
    for name, layers in table.items():  # one line a layer: json.dumps alone writes one line a value
        lines = [f'    "{layer}": {json.dumps(asdict(of))}' for layer, of in layers.items()]
        blocks.append(f'  "{name}": {{\n' + ",\n".join(lines) + "\n  }")
    write_text(LAYERS_FILE, "{\n" + ",\n".join(blocks) + "\n}\n")
    print(f"{LAYERS_FILE.name}: {len(table)} architectures")
