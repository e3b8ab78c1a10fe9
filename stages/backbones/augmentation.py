"""Random changes of images in the training graph; in inference nothing is changed."""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from stages.config.augmentation import AugmentationConfig

FLIP_AXES = {"none": (), "horizontal": (2,), "vertical": (1,), "both": (1, 2)}


class Augment(layers.Layer):
    """Changes every image of a batch by itself, as its entry in the study says; see `schema.Augmentation`.

    Input and output (n, h, w, 3) uint8. In training only, or with `always` in every call: then flips are certain.
    The random numbers come from the seed of Keras at the time the layer is made.
    """

    def __init__(self, entry: AugmentationConfig, always: bool = False, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.always = always
        self.flip_axes = FLIP_AXES[entry.flip] if always else ()
        shear = math.tan(math.radians(entry.shear))
        fill = {"fill_mode": entry.fill, "dtype": "float32"}
        pixels = {"value_range": (0, 255), "dtype": "float32"}
        flip = {"horizontal": "horizontal", "vertical": "vertical", "both": "horizontal_and_vertical"}.get(entry.flip)
        steps = [
            (flip and not always, lambda: layers.RandomFlip(flip, dtype="float32")),
            (entry.rotation, lambda: layers.RandomRotation(entry.rotation / 360, **fill)),
            (entry.shift, lambda: layers.RandomTranslation(entry.shift, entry.shift, **fill)),
            (entry.zoom, lambda: layers.RandomZoom((-entry.zoom, entry.zoom), **fill)),
            (entry.shear, lambda: layers.RandomShear(shear, shear, **fill)),
            (entry.brightness, lambda: layers.RandomBrightness(entry.brightness, **pixels)),
            (entry.contrast, lambda: layers.RandomContrast(entry.contrast, **pixels)),
        ]
        self.steps = [make() for wanted, make in steps if wanted]
        self.noise = layers.GaussianNoise(entry.noise, dtype="float32")  # for values from 0 to 1

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Nothing depends on the shape."""

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
        """The output is as the input."""
        return keras.KerasTensor(images.shape, "uint8")


def with_augmentation(model: keras.Model, entry: AugmentationConfig | None) -> keras.Model:
    """`model` with random changes of its images in training; the layers are shared, without an entry it is the same."""
    if entry is None:
        return model
    images = keras.Input(model.input.shape[1:], dtype="uint8", name="images")
    return keras.Model(images, model(Augment(entry, name="augment")(images)), name="augmented")


def view_function(entry: AugmentationConfig) -> Callable[[np.ndarray], np.ndarray]:
    """A function that makes the view of images, (n, h, w, 3) uint8, that an entry describes."""
    images = keras.Input((None, None, 3), dtype="uint8")
    return keras.Model(images, Augment(entry, always=True)(images)).predict_on_batch
