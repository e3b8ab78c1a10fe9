"""Counts the multiply-adds of networks: a cost that is the same on every machine and in every run.

One multiply-add is a multiplication and an addition. Counted are convolutions, dense layers and the products of
attention, as in the papers on architectures. Layers that compute element by element (activations, normalization,
pooling, sums) count 0: together they are a few percent of the arithmetic.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import layers

from stages.backbones.building import inner_layers

# Of all of them, each output position costs as many multiply-adds as the kernels have weights.
COUNTED_LAYERS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense, layers.EinsumDense)
# The backward pass of a trained layer takes about twice the forward pass (Kaplan et al. 2020, section 2.1).
TRAINED_LAYER_FACTOR, FROZEN_LAYER_FACTOR = 3, 2


def multiply_adds(model: keras.Model, factors: tuple[int, int] = (1, 1)) -> int:
    """The multiply-adds of one image, or of the features of one image, from the input of a model to its output.

    model: functional or sequential, also with models as layers, or the part of one between two layers. factors:
    how many times layers with trained kernels count, and the others. Low-rank updates of kernels do not count: a model
    in use has them in its kernels. Raises `TypeError` for a layer with a matrix of weights that is
    not in `COUNTED_LAYERS`: how to count it must be added here.
    """
    graph = model._functional if isinstance(model, keras.Sequential) else model
    # Nodes, not layers: two models can share a layer, whose `output` is then ambiguous.
    nodes = [node for nodes in graph._nodes_by_depth.values() for node in nodes if not node.is_input]
    return sum(_of_node(node, factors) for node in nodes)


def training_multiply_adds(model: keras.Model, is_tuned: bool = False) -> int:
    """The multiply-adds of one image in a training step: 1 forward pass, and 2 more through layers that are trained.

    model: the part that is trained, as of `multiply_adds`. Frozen layers are taken to be below the trained ones; the
    optimizer's update of the weights is left out. is_tuned: whether weights are trained at all depths of a frozen
    backbone. Then the backward pass also takes the gradient through each frozen layer, but not that of its kernel.
    """
    return multiply_adds(model, (TRAINED_LAYER_FACTOR, FROZEN_LAYER_FACTOR if is_tuned else 1))


def _of_node(node: Any, factors: tuple[int, int]) -> int:
    """Those of one call of a layer; node: of the graph of the model."""
    layer = node.operation
    if isinstance(layer, keras.Model):
        return multiply_adds(layer, factors)
    if any(isinstance(part, COUNTED_LAYERS) for part in inner_layers(layer)):
        return _of_parts(layer, node, factors)
    return _of_layer(layer, node.outputs[0].shape[1:], factors)


def _of_parts(layer: layers.Layer, node: Any, factors: tuple[int, int]) -> int:
    """Those of one call of a layer that consists of layers, such as a block of a transformer."""
    calls: list[tuple[layers.Layer, list[Any], Any]] = []
    with _recording([layer, *inner_layers(layer)], calls):
        args, kwargs = keras.tree.map_structure(_of_one_image, (node.arguments.args, node.arguments.kwargs))
        layer(*args, **kwargs)
    total = 0
    for part, inputs, output in calls:
        if isinstance(part, COUNTED_LAYERS):
            total += _of_layer(part, output.shape, factors)
        elif "attention" in type(part).__name__.lower() and not any(
            "attention" in type(inner).__name__.lower() for inner in inner_layers(part)
        ):
            # Of queries and keys, and of their softmax and values: each for all pairs of tokens. Windows are a batch.
            queries, keys = tuple(inputs[0].shape), tuple(inputs[-1].shape)
            # The gradient through a frozen one takes both products backward twice too.
            factor = factors[0] if part.trainable_weights or factors[1] > 1 else 1
            total += factor * 2 * math.prod(queries[:-1]) * keys[-2] * queries[-1]
    return total


def _of_one_image(value: Any) -> Any:
    """Zeros in place of a tensor of the graph, for a batch of one image."""
    if not isinstance(value, keras.KerasTensor):
        return value
    return keras.ops.zeros([1 if size is None else size for size in value.shape], value.dtype)


@contextmanager
def _recording(parts: list[layers.Layer], calls: list[tuple[layers.Layer, list[Any], Any]]) -> Iterator[None]:
    """Append every call of some layers to a list: the layer, its tensors of at least two axes, and its output."""
    for part in parts:
        part.call = _recorded(part, part.call, calls)
    try:
        yield
    finally:
        for part in parts:
            part.call = part.call.original


def _recorded(part: layers.Layer, original: Callable[..., Any], calls: list) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        tensors = [value for value in (*args, *kwargs.values()) if len(getattr(value, "shape", ())) > 1]
        calls.append((part, tensors, output))
        return output

    call.original = original
    call.__signature__ = inspect.signature(original)  # Keras looks for arguments such as `training`
    return call


def _of_layer(layer: keras.Operation, shape: tuple[int | None, ...], factors: tuple[int, int]) -> int:
    """Those of a layer whose output of an image has this shape, (..., channels)."""
    all_kernels = [weight for weight in getattr(layer, "weights", []) if len(weight.shape) > 1]
    kernels = [weight for weight in all_kernels if not weight.name.startswith("lora_")]
    if not kernels:
        return 0
    if not isinstance(layer, COUNTED_LAYERS):
        raise TypeError(
            f"stages/backbones/multiply_adds.py cannot count layer {layer.name!r} ({type(layer).__name__}). Add its "
            "class to COUNTED_LAYERS, or its rule."
        )
    factor = factors[0 if any(weight.trainable for weight in all_kernels) else 1]
    if isinstance(layer, layers.EinsumDense):
        axes, output = layer.equation.split(",")[1].split("->")
        summed = math.prod(size for axis, size in zip(axes, layer.kernel.shape, strict=True) if axis not in output)
        return math.prod(shape) * summed * factor
    return math.prod(shape[:-1]) * sum(math.prod(kernel.shape) for kernel in kernels) * factor
