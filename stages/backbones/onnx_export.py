"""Networks in ONNX, which other programs run: layers that converters know, and the file itself."""

import logging
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import layers
from tf2onnx.graph import Graph, Node
from tf2onnx.handler import tf_op

from stages.backbones.building import Preprocessing, affine_preprocessing


def inference_model(model: keras.Model, name: str) -> keras.Model:
    """The model with layers of Keras alone, and of these with such as ONNX converters know; all others are shared."""

    def called(layer: layers.Layer, *args: keras.KerasTensor, **kwargs: bool) -> keras.KerasTensor:
        if isinstance(layer, keras.Model) and not isinstance(layer, keras.Sequential):  # a head
            return inference_model(layer, layer.name)(*args)
        if isinstance(layer, Preprocessing):
            # Every published preprocessing is an affine map of a pixel's three channels, and so is a dense layer.
            numbers = layers.Rescaling(1.0, dtype="float32", name="pixels")(*args)
            scaling = layers.Dense(3, dtype="float32", name="preprocessing")
            scaled = scaling(numbers)
            scaling.set_weights(affine_preprocessing(layer))
            return scaled
        if isinstance(layer, layers.Normalization):
            mean, variance = (keras.ops.convert_to_numpy(each).reshape(-1) for each in (layer.mean, layer.variance))
            scale = 1 / np.sqrt(variance)
            return layers.Rescaling(scale.tolist(), (-mean * scale).tolist(), dtype="float32", name=layer.name)(*args)
        if isinstance(layer, layers.Conv2D) and 1 < layer.groups == layer.filters == args[0].shape[-1]:
            shared = {key: getattr(layer, key) for key in ("strides", "padding", "use_bias", "name")}
            depthwise = layers.DepthwiseConv2D(layer.kernel_size, **shared)
            convolved = depthwise(*args)
            kernel, *bias = layer.get_weights()
            depthwise.set_weights([kernel.swapaxes(2, 3), *bias])
            return convolved
        return layer(*args, **kwargs)

    clone = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=called)
    return keras.Model(clone.input, clone.output, name=name)


@tf_op("Erfc")
class Erfc:
    """The complement of the error function, in GELU, which tf2onnx does not know: 1 - erf."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: object) -> None:
        """Replace a node of the graph, as tf2onnx asks of a handler for operations up from opset 9."""
        name, inputs, outputs = node.name, node.input, node.output
        shapes, dtypes = node.output_shapes, node.output_dtypes
        graph.remove_node(name)
        one = graph.make_const(f"{name}/one", np.float32(1))
        erf = graph.make_node("Erf", inputs, shapes=shapes, dtypes=dtypes)
        graph.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def write_onnx(model: keras.Model, file: Path) -> None:
    """Write a model of layers that converters know, see `inference_model`, as an ONNX file; its images are uint8 (n, h, w, 3)."""
    model(np.zeros((1, *model.input.shape[1:]), np.uint8))  # Keras exports only what was called
    # What is written is checked; the converter's own words are of optimizations that it could not make.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Keras's bridge to the converter
        model.export(file, format="onnx", verbose=False)
