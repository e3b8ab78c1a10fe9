"""Builds backbones: networks from uint8 images to activations, with their own preprocessing as the first layer."""

import math
import re
from collections import Counter
from typing import Any

import keras
from keras import layers

from stages.backbones.preprocessing import Preprocessing
from stages.backbones.presets import POSITIONS
from stages.backbones.registry import ARCHITECTURES

PIXEL_LAYERS = (layers.Rescaling, layers.Normalization)  # the preprocessing inside some applications
IMAGENET_DEVIATIONS = (0.229, 0.224, 0.225)  # red, green, blue; of values from 0 to 1


def build_backbone(architecture: str, image_size: int, preset: dict[str, Any] | None = None) -> keras.Model:
    """Build a backbone with random weights.

    architecture: a name in `stages.backbones.registry.ARCHITECTURES`, or with `preset` any name. image_size: side of
    the images in pixels. preset: of a backbone of KerasHub, see `WeightsRecord`.

    Returns a flat model from uint8 images (n, image_size, image_size, 3) in 0..255 to the activations of its last
    layer. Its first two layers are the input and the preprocessing.
    """
    if preset:
        from stages.backbones.preset_models import build_preset  # KerasHub takes seconds to import

        return build_preset(preset, image_size, architecture)
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="images")
    x = Preprocessing(architecture, dtype="float32", name="preprocessing")(images)
    build_own = OWN_NETWORKS.get(architecture)
    output = build_own(x) if build_own else _build_application(architecture, x)
    return _standardized(keras.Model(images, output, name=architecture))


def layer_names(backbone: keras.Model) -> list[str]:
    """The layers of a backbone that a study can name, lowest first: all but the input and the preprocessing."""
    return [layer.name for layer in backbone.layers[2:] if layer.name != POSITIONS]


def inner_layers(operation: keras.Operation) -> list[layers.Layer]:
    """The layers in a layer of a model, such as those of a block of a transformer, at any depth."""
    return list(operation._flatten_layers(include_self=False)) if isinstance(operation, layers.Layer) else []


def _four_conv(x: keras.KerasTensor) -> keras.KerasTensor:
    """Four 3x3 convolutions, two max-pooling layers and a fully connected layer, with dropout."""
    for number, filters in enumerate((32, 32, 64, 64), start=1):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        if number % 2 == 0:
            x = layers.MaxPooling2D(name=f"pool{number // 2}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(512, activation="relu", name="fc1")(x)
    return layers.Dropout(0.5, name="dropout")(x)


def _simple_cnn(x: keras.KerasTensor) -> keras.KerasTensor:
    """Four 3x3 convolutions, each followed by max pooling, flattened."""
    for number, filters in enumerate((16, 64, 128, 128), start=1):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(name=f"pool{number}")(x)
    return layers.Flatten(name="flatten")(x)


OWN_NETWORKS = {"four_conv": _four_conv, "simple_cnn": _simple_cnn}


def _build_application(architecture: str, x: keras.KerasTensor) -> keras.KerasTensor:
    """Build an architecture of keras.applications without its classification layers."""
    entry = ARCHITECTURES[architecture]
    application = getattr(keras.applications, entry.application)
    options = {"alpha": entry.alpha} if entry.alpha else {}
    return application(include_top=False, weights=None, input_tensor=x, **options).output


def _standardized(backbone: keras.Model) -> keras.Model:
    """Rebuild a backbone where Keras builds it differently from the published network.

    Names: some applications let Keras number their layers, and it keeps counting from model to model. The result has
    the names of the first model of a process.
    Precision: preprocessing inside the network computes in float32 whatever the policy, because bfloat16 keeps only two
    to three digits of a pixel.
    EfficientNet B0 to B7: a division by the root of the standard deviation after the layer `normalization`. Keras does
    this for its ImageNet weights only, whose file holds standard deviations where variances belong
    (https://github.com/tensorflow/tensorflow/issues/49930).
    """
    rescaled = backbone.name.startswith("efficientnet_b")
    changes = {name: {"name": new_name} for name, new_name in renumbered(backbone).items() if name != new_name}
    for layer in backbone.layers:
        if isinstance(layer, PIXEL_LAYERS) and layer.compute_dtype != "float32":
            changes[layer.name] = {**changes.get(layer.name, {}), "dtype": "float32"}
    if not rescaled and not changes:
        return backbone
    factors = [1 / math.sqrt(deviation) for deviation in IMAGENET_DEVIATIONS]
    rescaling = layers.Rescaling(factors, dtype="float32", name="standard_deviation")

    def copy_layer(layer: layers.Layer) -> layers.Layer:
        if layer is backbone.layers[0]:
            return layer
        return type(layer).from_config({**layer.get_config(), **changes.get(layer.name, {})})

    def call_layer(layer: layers.Layer, *args: Any, **kwargs: Any) -> keras.KerasTensor:
        x = layer(*args, **kwargs)
        return rescaling(x) if rescaled and layer.name == "normalization" else x

    clone = keras.models.clone_model(backbone, clone_function=copy_layer, call_function=call_layer)
    return keras.Model(clone.input, clone.output, name=backbone.name)


def renumbered(backbone: keras.Model) -> dict[str, str]:
    """Map the names that Keras gave to layers (conv2d_7) to those in a new process (conv2d, conv2d_1, ...)."""
    automatic = []
    for layer in backbone.layers:
        base = _automatic_name(layer)
        if match := re.fullmatch(rf"{base}(?:_(\d+))?", layer.name):
            automatic.append((base, int(match[1] or 0), layer.name))
    names, counts = {}, Counter()
    for base, _, name in sorted(automatic):
        names[name] = f"{base}_{counts[base]}" if counts[base] else base
        counts[base] += 1
    return names


def _automatic_name(layer: layers.Layer) -> str:
    """The name that Keras derives from the class of a layer, without a number: Conv2D is conv2d."""
    name = re.sub(r"\W+", "", type(layer).__name__)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
