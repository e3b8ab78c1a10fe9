"""Random changes of images inside the training graph; inference leaves images unchanged."""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from stages.config.augmentation import AugmentationConfig

FLIP_AXES = {"none": (), "horizontal": (2,), "vertical": (1,), "both": (1, 2)}
KERAS_FLIPS = {"horizontal": "horizontal", "vertical": "vertical", "both": "horizontal_and_vertical"}


class Augment(layers.Layer):
    """Changes every image of a batch independently; see `AugmentationConfig` for the strengths.

    Input and output (n, h, w, 3) uint8. By default it changes images in training only; with `always` it does so in
    every call, and a flip is certain instead of having probability 1/2.
    The random numbers depend on the seed of Keras when the layer is created.
    """

    def __init__(self, entry: AugmentationConfig, always: bool = False, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.always = always
        self.flip_axes = FLIP_AXES[entry.flip] if always else ()
        flip = None if always else KERAS_FLIPS.get(entry.flip)
        shear = math.tan(math.radians(entry.shear))
        fill = {"fill_mode": entry.fill, "dtype": "float32"}
        pixels = {"value_range": (0, 255), "dtype": "float32"}
        steps = [
            (flip, lambda: layers.RandomFlip(flip, dtype="float32")),
            (entry.rotation, lambda: layers.RandomRotation(entry.rotation / 360, **fill)),
            (entry.shift, lambda: layers.RandomTranslation(entry.shift, entry.shift, **fill)),
            (entry.zoom, lambda: layers.RandomZoom((-entry.zoom, entry.zoom), **fill)),
            (entry.shear, lambda: layers.RandomShear(shear, shear, **fill)),
            (entry.brightness, lambda: layers.RandomBrightness(entry.brightness, **pixels)),
            (entry.contrast, lambda: layers.RandomContrast(entry.contrast, **pixels)),
        ]
        self.steps = [create() for strength, create in steps if strength]
        self.noise = layers.GaussianNoise(entry.noise, dtype="float32")  # of values from 0 to 1

    def build(self, shape: tuple[int | None, ...]) -> None:
        """No weight depends on the shape."""

    def call(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """Change the images; see the class."""
        if not (training or self.always):
            return images
        x = keras.ops.cast(images, "float32")
        for axis in self.flip_axes:
            x = keras.ops.flip(x, axis)
        for step in self.steps:
            x = step(x, training=True)
        x = 255 * self.noise(x / 255, training=True)
        return keras.ops.cast(keras.ops.clip(keras.ops.round(x), 0, 255), "uint8")

    def compute_output_spec(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """The output has the shape and type of the input."""
        return keras.KerasTensor(images.shape, "uint8")


def with_augmentation(model: keras.Model, entry: AugmentationConfig | None) -> keras.Model:
    """Return a model that changes its images in training before `model` sees them; the layers are shared.

    entry: the changes; None returns `model` itself.
    """
    if entry is None:
        return model
    images = keras.Input(model.input.shape[1:], dtype="uint8", name="images")
    return keras.Model(images, model(Augment(entry, name="augment")(images)), name="augmented")


def view_function(entry: AugmentationConfig) -> Callable[[np.ndarray], np.ndarray]:
    """A function that makes the view of images, (n, h, w, 3) uint8, that an entry describes."""
    images = keras.Input((None, None, 3), dtype="uint8")
    return keras.Model(images, Augment(entry, always=True)(images)).predict_on_batch
