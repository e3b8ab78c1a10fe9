"""Settings of the numerical backend that make a stage repeatable."""

import keras


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and the backend, and let the backend use deterministic operations only.

    On one machine with one thread count, equal inputs then give equal bytes. Models built before are forgotten: Keras
    would number the names of the next ones on, and write them into weights files.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
