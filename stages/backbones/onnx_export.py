"""Writes networks as ONNX files: replaces the layers that the converter does not support, and converts."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers
from tf2onnx.graph import Graph, Node
from tf2onnx.handler import tf_op

from stages.backbones.building import inner_layers
from stages.backbones.preprocessing import Preprocessing, affine_preprocessing


def inference_model(model: keras.Model, name: str) -> keras.Model:
    """Return a model with the same outputs, made of Keras layers that ONNX converters support.

    Layers that need no replacement are shared with `model`.
    """

    def call_layer(layer: layers.Layer, *args: keras.KerasTensor, **kwargs: bool) -> keras.KerasTensor:
        if isinstance(layer, keras.Model) and not isinstance(layer, keras.Sequential):  # a head
            return inference_model(layer, layer.name)(*args)
        if isinstance(layer, Preprocessing):
            return _call_preprocessing(layer, *args)
        if isinstance(layer, layers.Normalization):
            return _call_normalization(layer, *args)
        if type(layer).__name__ == "DeiTEncoderBlock":  # whose second output would be None in a file of Keras
            return layer(*args, return_attention_scores=True)[0]
        if _is_grouped(layer):
            is_depthwise = layer.groups == layer.filters == args[0].shape[-1]
            return (_call_depthwise if is_depthwise else _call_groups)(layer, *args)
        for inner in inner_layers(layer):
            if _is_grouped(inner) and inner.groups == inner.filters:
                inner.call = _depthwise_call(inner)  # of a block of KerasHub; a file of Keras has its own call again
        return layer(*args, **kwargs)

    clone = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call_layer)
    return keras.Model(clone.input, clone.output, name=name)


def _call_preprocessing(layer: Preprocessing, images: keras.KerasTensor) -> keras.KerasTensor:
    """Call a dense layer over the channels that computes the affine map of the preprocessing."""
    pixels = layers.Rescaling(1.0, dtype="float32", name="pixels")(images)
    dense = layers.Dense(3, dtype="float32", name="preprocessing")
    output = dense(pixels)
    dense.set_weights(affine_preprocessing(layer))
    return output


def _call_normalization(layer: layers.Normalization, x: keras.KerasTensor) -> keras.KerasTensor:
    """Call a rescaling layer with the mean and variance of the normalization."""
    mean, variance = (keras.ops.convert_to_numpy(value).reshape(-1) for value in (layer.mean, layer.variance))
    scale = 1 / np.sqrt(variance)
    return layers.Rescaling(scale.tolist(), (-mean * scale).tolist(), dtype="float32", name=layer.name)(x)


def _is_grouped(layer: layers.Layer) -> bool:
    return isinstance(layer, layers.Conv2D) and layer.groups > 1


def _call_groups(layer: layers.Conv2D, x: keras.KerasTensor) -> keras.KerasTensor:
    """Call a convolution per group of a grouped one, and join their outputs."""
    kernel, *bias = layer.get_weights()
    channels, filters = kernel.shape[2], layer.filters // layer.groups
    outputs = []
    for group in range(layer.groups):
        name = f"{layer.name}_group{group}"
        part = layers.Conv2D(
            filters, layer.kernel_size, layer.strides, layer.padding, use_bias=layer.use_bias, name=name
        )
        outputs.append(part(x[..., group * channels : (group + 1) * channels]))
        own = slice(group * filters, (group + 1) * filters)
        part.set_weights([kernel[..., own], *(values[own] for values in bias)])
    return layer.activation(layers.Concatenate(name=layer.name)(outputs))


def _depthwise_call(layer: layers.Conv2D) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    def call(x: keras.KerasTensor) -> keras.KerasTensor:
        kernel = keras.ops.swapaxes(layer.kernel, 2, 3)
        x = keras.ops.depthwise_conv(x, kernel, layer.strides, layer.padding)
        return layer.activation(x + layer.bias if layer.use_bias else x)

    return call


def _call_depthwise(layer: layers.Conv2D, x: keras.KerasTensor) -> keras.KerasTensor:
    """Call a depthwise convolution with the kernel of a convolution that has one group per channel."""
    options = {key: getattr(layer, key) for key in ("strides", "padding", "use_bias", "name")}
    depthwise = layers.DepthwiseConv2D(layer.kernel_size, **options)
    output = depthwise(x)
    kernel, *bias = layer.get_weights()
    depthwise.set_weights([kernel.swapaxes(2, 3), *bias])
    return output


@tf_op("Erfc")
class Erfc:
    """Converts the complementary error function, which GELU uses and tf2onnx does not support: 1 - erf."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: object) -> None:
        """Replace a node of the graph; tf2onnx calls this for ONNX opsets from 9 on."""
        name, inputs, outputs = node.name, node.input, node.output
        shapes, dtypes = node.output_shapes, node.output_dtypes
        graph.remove_node(name)
        constant = graph.make_const(f"{name}/one", np.float32(1))
        erf = graph.make_node("Erf", inputs, shapes=shapes, dtypes=dtypes)
        difference = [constant.output[0], erf.output[0]]
        graph.make_node("Sub", difference, name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def write_onnx(model: keras.Model, file: Path) -> None:
    """Write a model as an ONNX file from uint8 images (n, h, w, 3) to its outputs.

    model: made of layers that the converter supports; see `inference_model`.
    """
    model(np.zeros((1, *model.input.shape[1:]), np.uint8))  # Keras exports only models that have been called
    # The caller compares the outputs of the file; the converter logs only optimizations that it could not make.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from Keras's call of the converter
        model.export(file, format="onnx", verbose=False)
