"""Backbones: architectures with their own preprocessing as the first layer, from uint8 images to activations."""

from collections.abc import Callable

import keras
from keras import layers


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
        return PREPROCESSING[self.architecture](images)

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


def _published(application: Callable) -> Callable:
    """An architecture of keras.applications without its classification layers."""
    return lambda x: application(include_top=False, weights=None, input_tensor=x).output


BODIES = {
    "four_conv": _four_conv,
    "vgg16": _published(keras.applications.VGG16),
    "mobilenet_v2": _published(keras.applications.MobileNetV2),
}

PREPROCESSING = {
    "four_conv": lambda images: images / 127.5 - 1.0,
    "vgg16": keras.applications.vgg16.preprocess_input,
    "mobilenet_v2": keras.applications.mobilenet_v2.preprocess_input,
}


def build_backbone(architecture: str, image_size: int) -> keras.Model:
    """Build a backbone with random weights.

    architecture: a name of `stages.study.architectures.ARCHITECTURES`.
    image_size: side of the images in pixels.

    Returns a flat model from uint8 images (n, image_size, image_size, 3) in 0..255 to the activations of its last
    layer; its first two layers are the input and the preprocessing.
    """
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="images")
    x = Preprocessing(architecture, name="preprocessing")(images)
    return keras.Model(images, BODIES[architecture](x), name=architecture)


def layer_names(backbone: keras.Model) -> list[str]:
    """The layers of a backbone that a study can name: all but the input and the preprocessing, from below."""
    return [layer.name for layer in backbone.layers[2:]]
