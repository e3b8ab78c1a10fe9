"""Settings of the numerical backend: repeatable stages, and the precision of a computation."""

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Layers built in the block compute in this precision, float32 or bfloat16; their weights are float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
