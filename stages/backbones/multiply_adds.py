"""Counts the multiply-adds of networks: a cost that is the same on every machine and in every run.

One multiply-add is a multiplication and an addition. Counted are convolutions and dense layers, as in the papers on
architectures. Layers that compute element by element (activations, normalization, pooling, sums) count 0: together they
are a few percent of the arithmetic.
"""

import math

import keras
from keras import layers

# Of all of them, each output position costs as many multiply-adds as the kernels have weights.
COUNTED_LAYERS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense)
# The backward pass of a trained layer takes about twice the forward pass (Kaplan et al. 2020, section 2.1).
TRAINED_LAYER_FACTOR = 3


def multiply_adds(model: keras.Model, trained_factor: int = 1) -> int:
    """The multiply-adds of one image, or of the features of one image, from the input of a model to its output.

    model: functional or sequential, also with models as layers, or the part of one between two layers. trained_factor:
    how many times layers with trained weights count. Raises `TypeError` for a layer with a matrix of weights that is
    not in `COUNTED_LAYERS`: how to count it must be added here.
    """
    graph = model._functional if isinstance(model, keras.Sequential) else model
    # Nodes, not layers: two models can share a layer, whose `output` is then ambiguous.
    nodes = [node for nodes in graph._nodes_by_depth.values() for node in nodes if not node.is_input]
    return sum(_of_node(node.operation, node.outputs[0].shape, trained_factor) for node in nodes)


def training_multiply_adds(model: keras.Model) -> int:
    """The multiply-adds of one image in a training step: 1 forward pass, and 2 more through layers that are trained.

    model: the part that is trained, as of `multiply_adds`. Frozen layers are taken to be below the trained ones; the
    optimizer's update of the weights is left out.
    """
    return multiply_adds(model, TRAINED_LAYER_FACTOR)


def _of_node(layer: keras.Operation, shape: tuple[int | None, ...], trained_factor: int) -> int:
    """Those of one call of a layer with an output of this shape, (n, ..., channels)."""
    if isinstance(layer, keras.Model):
        return multiply_adds(layer, trained_factor)
    kernels = [weight for weight in getattr(layer, "weights", []) if len(weight.shape) > 1]
    if not kernels:
        return 0
    if not isinstance(layer, COUNTED_LAYERS):
        raise TypeError(
            f"stages/backbones/multiply_adds.py cannot count layer {layer.name!r} ({type(layer).__name__}). Add its "
            "class to COUNTED_LAYERS, or its rule."
        )
    positions, weights = math.prod(shape[1:-1]), sum(math.prod(kernel.shape) for kernel in kernels)
    return positions * weights * (trained_factor if layer.trainable_weights else 1)
