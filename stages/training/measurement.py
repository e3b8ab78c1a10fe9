"""Measures how fast a trained model predicts, and the memory that its training took."""

import keras
import numpy as np

from stages.artifacts.costs import InferenceTime
from stages.core.measurement import BATCH, milliseconds_per_image, process_peak_memory


def measure_inference(model: keras.Model) -> InferenceTime:
    """The time of a model: from uint8 images, or of a head from the features of images, to probabilities.

    A head is used together with its backbone, as one model. So what the call of a model takes by itself is subtracted,
    measured with a model that does nothing.
    """
    shape, generator = (BATCH, *model.input.shape[1:]), np.random.default_rng(0)
    if model.input.dtype == "uint8":
        images = generator.integers(0, 256, shape, dtype=np.uint8)
        return InferenceTime.measured(*milliseconds_per_image(model.predict_on_batch, images))
    features = generator.random(shape, dtype=np.float32)
    empty_input = keras.Input(shape[1:])
    empty = keras.Model(empty_input, keras.layers.Identity()(empty_input)[..., :1])
    times = zip(
        milliseconds_per_image(model.predict_on_batch, features),
        milliseconds_per_image(empty.predict_on_batch, features),
        strict=True,
    )
    return InferenceTime.measured(*(max(0.0, time - call) for time, call in times))


def peak_memory() -> float | None:
    """The largest memory in MB so far: of the GPU, if TensorFlow has one; otherwise of the process, or None."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    return process_peak_memory()
