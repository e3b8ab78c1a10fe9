"""Describes the layers of a built backbone: what a study can do at each of them."""

import keras

from stages.backbones.building import layer_names
from stages.backbones.layer_table import LayerTraits

SHAPES = {4: "image", 3: "tokens", 2: "vector"}  # by the number of axes, with that of the batch


def describe_layers(backbone: keras.Model) -> dict[str, LayerTraits]:
    """The layers of a backbone by name, lowest first."""
    separating = _separating_layers(backbone)
    return {
        name: LayerTraits(name in separating, SHAPES[len(backbone.get_layer(name).output.shape)])
        for name in layer_names(backbone)
    }


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
