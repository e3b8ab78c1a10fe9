"""Settings of the deep-learning backend: determinism and the precision of computations."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import keras


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and the backend, and restrict the backend to deterministic operations.

    Equal inputs then give equal bytes on one machine with one number of threads. Keras forgets the models built before;
    otherwise it would continue to number layer names, which it writes into weights files.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        # It warns that functions are compiled again, as they must be for every model and repeat.
        tf.get_logger().setLevel(logging.ERROR)


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Layers built inside the context compute in this precision, float32 or bfloat16; their weights are float32."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)
