"""Backbones: architectures with their own preprocessing as the first layer, from uint8 images to activations."""

import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from stages.backbones.registry import ARCHITECTURES

PIXEL_LAYERS = (layers.Rescaling, layers.Normalization)  # the preprocessing that some applications have inside
IMAGENET_DEVIATIONS = (0.229, 0.224, 0.225)  # red, green, blue; of values from 0 to 1


@keras.saving.register_keras_serializable(package="stages")
class Preprocessing(layers.Layer):
    """uint8 pixels as the architecture expects them.

    It belongs to the backbone and has no settings of its own, so that no study can feed one backbone with the
    scaling of another. Input (n, h, w, 3) in 0..255; output float of the same shape.
    """

    def __init__(self, architecture: str, **kwargs):
        super().__init__(**kwargs)
        self.architecture = architecture

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Scale the pixels; see the class."""
        images = keras.ops.cast(images, self.compute_dtype)
        return _preprocess(self.architecture, images)

    def get_config(self) -> dict:
        """What a saved model needs to make the layer again."""
        return {**super().get_config(), "architecture": self.architecture}


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


BODIES = {"four_conv": _four_conv, "simple_cnn": _simple_cnn}


def _published(architecture: str, x: keras.KerasTensor) -> keras.KerasTensor:
    """An architecture of keras.applications without its classification layers."""
    described = ARCHITECTURES[architecture]
    application = getattr(keras.applications, described.application)
    options = {"alpha": described.alpha} if described.alpha else {}
    return application(include_top=False, weights=None, input_tensor=x, **options).output


def _preprocess(architecture: str, images: keras.KerasTensor) -> keras.KerasTensor:
    """The published preprocessing, which stands in the module of the application; the project's own: -1 to 1."""
    if (application := ARCHITECTURES[architecture].application) is None:
        return images / 127.5 - 1.0
    module = sys.modules[getattr(keras.applications, application).__module__]
    return module.preprocess_input(images)


def affine_preprocessing(preprocessing: Callable[[np.ndarray], keras.KerasTensor]) -> list[np.ndarray]:
    """Kernel (3, 3) and bias (3,) float32 of a preprocessing, from what it makes of black and of the pure colors."""
    colors = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.uint8)
    found = keras.ops.convert_to_numpy(preprocessing(colors.reshape(4, 1, 1, 3))).reshape(4, 3).astype(np.float64)
    return [((found[1:] - found[0]) / 255).astype(np.float32), found[0].astype(np.float32)]


def build_backbone(architecture: str, image_size: int) -> keras.Model:
    """Build a backbone with random weights.

    architecture: a name of `stages.backbones.registry.ARCHITECTURES`.
    image_size: side of the images in pixels.

    Returns a flat model from uint8 images (n, image_size, image_size, 3) in 0..255 to the activations of its last
    layer; its first two layers are the input and the preprocessing.
    """
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="images")
    x = Preprocessing(architecture, dtype="float32", name="preprocessing")(images)
    body = BODIES.get(architecture)
    backbone = keras.Model(images, body(x) if body else _published(architecture, x), name=architecture)
    return _as_if_first(backbone, corrected=architecture.startswith("efficientnet_b"))


def _as_if_first(backbone: keras.Model, corrected: bool) -> keras.Model:
    """The backbone with the names its layers have when it is the first that a process builds, and with preprocessing
    in float32 whatever the policy: pixels of two digits would be coarser than the published ones.

    Some applications leave the naming of layers to Keras, which counts on from one model to the next. corrected: divide
    by the root of the standard deviation after the layer `normalization`, as Keras does with EfficientNet's ImageNet
    weights only: their file holds standard deviations where variances belong
    (https://github.com/tensorflow/tensorflow/issues/49930).
    """
    numbered = [(layer.name, re.fullmatch(rf"({_snake(layer)})(?:_(\d+))?", layer.name)) for layer in backbone.layers]
    kinds = sorted((found[1], int(found[2] or 0), name) for name, found in numbered if found)
    names, places = {}, Counter()
    for kind, _, name in kinds:
        names[name] = f"{kind}_{places[kind]}" if places[kind] else kind
        places[kind] += 1
    changed = {name: {"name": other} for name, other in names.items() if name != other}
    for layer in backbone.layers:
        if isinstance(layer, PIXEL_LAYERS) and layer.compute_dtype != "float32":
            changed[layer.name] = {**changed.get(layer.name, {}), "dtype": "float32"}
    if not corrected and not changed:
        return backbone
    factors = [1 / math.sqrt(deviation) for deviation in IMAGENET_DEVIATIONS]
    scale = layers.Rescaling(factors, dtype="float32", name="standard_deviation")

    def copied(layer: layers.Layer) -> layers.Layer:
        if layer is backbone.layers[0]:
            return layer
        return type(layer).from_config({**layer.get_config(), **changed.get(layer.name, {})})

    def called(layer: layers.Layer, *args: Any, **kwargs: Any) -> keras.KerasTensor:
        x = layer(*args, **kwargs)
        return scale(x) if corrected and layer.name == "normalization" else x

    clone = keras.models.clone_model(backbone, clone_function=copied, call_function=called)
    return keras.Model(clone.input, clone.output, name=backbone.name)


def _snake(layer: layers.Layer) -> str:
    """The class of a layer as Keras writes it in the names it makes up: Conv2D is conv2d."""
    name = re.sub(r"\W+", "", type(layer).__name__)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def layer_names(backbone: keras.Model) -> list[str]:
    """The layers of a backbone that a study can name: all but the input and the preprocessing, from below."""
    return [layer.name for layer in backbone.layers[2:]]
