"""Preprocessing of pixels: the published scaling of each architecture, as a Keras layer and as an affine map."""

import sys
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from stages.backbones.registry import ARCHITECTURES


@keras.saving.register_keras_serializable(package="stages")
class Preprocessing(layers.Layer):
    """Scales uint8 pixels as the architecture expects them.

    The layer belongs to the backbone and has no settings of its own, so no study can feed a backbone with the scaling
    of another one. Input (n, h, w, 3) in 0..255; output float of the same shape.
    """

    def __init__(self, architecture: str, **kwargs):
        super().__init__(**kwargs)
        self.architecture = architecture

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Scale the pixels; see the class."""
        images = keras.ops.cast(images, self.compute_dtype)
        application = ARCHITECTURES[self.architecture].application
        if application is None:  # the project's own networks take values from -1 to 1
            return images / 127.5 - 1.0
        module = sys.modules[getattr(keras.applications, application).__module__]
        return module.preprocess_input(images)

    def get_config(self) -> dict:
        """Return the arguments from which Keras rebuilds the layer of a saved model."""
        return {**super().get_config(), "architecture": self.architecture}


def affine_preprocessing(preprocessing: Callable[[np.ndarray], keras.KerasTensor]) -> list[np.ndarray]:
    """Return the kernel (3, 3) and the bias (3,), float32, of a preprocessing: pixels @ kernel + bias.

    Every published preprocessing is an affine map of the three channels of a pixel. Its outputs for black and for pure
    red, green and blue determine the map.
    """
    colors = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.uint8)
    outputs = keras.ops.convert_to_numpy(preprocessing(colors.reshape(4, 1, 1, 3))).reshape(4, 3).astype(np.float64)
    return [((outputs[1:] - outputs[0]) / 255).astype(np.float32), outputs[0].astype(np.float32)]
