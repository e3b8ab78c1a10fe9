"""The fastest way to run a frozen network on the processor of this machine, with the activations of Keras."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

# Architectures that ONNX Runtime runs faster than Keras, and those whose features stand bfloat16: the cosine of every
# feature vector with that in float32 is at least 0.999. `python -m benchmarks.features` measures both.
ON_ONNX_RUNTIME = frozenset({"efficientnet_b0", "mobilenet", "mobilenet_v2"})
IN_BFLOAT16 = frozenset({"vgg16"})
CONVERTED_FROM = 1_000  # images: of fewer, the conversion takes longer than it saves
AGREEMENT = 1e-3  # of the largest activation; ONNX Runtime comes within 1e-5

Inference = Callable[[np.ndarray], list[np.ndarray]]
CPU_INFO = Path("/proc/cpuinfo")


def resolve_precision(precision: str, architecture: str) -> str:
    """float32 or bfloat16; for `auto` bfloat16 where the processor computes in it and the architecture stands it."""
    if precision != "auto":
        return precision
    return "bfloat16" if architecture in IN_BFLOAT16 and has_bfloat16() else "float32"


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16 or AMX); known on Linux only."""
    flags = CPU_INFO.read_text(encoding="utf-8").split() if CPU_INFO.exists() else []
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def fastest_inference(
    model: keras.Model, architecture: str, precision: str, images: int, sample: np.ndarray
) -> Inference:
    """A function that runs a model over a batch of images: uint8 (n, h, w, 3) to its outputs, a list of (n, ...).

    images: how many there will be. sample: the first of them; both ways must agree on them, else Keras it is.
    """
    on_keras = keras_inference(model)
    if (
        architecture not in ON_ONNX_RUNTIME
        or precision != "float32"
        or images < CONVERTED_FROM
        or keras.distribution.list_devices("gpu")
    ):
        return on_keras
    try:
        on_onnx_runtime = onnx_inference(model)
        found = on_onnx_runtime(sample)
    except Exception:  # the converter and the runtime raise nearly anything on layers they do not know
        return on_keras
    return on_onnx_runtime if agree(found, on_keras(sample)) else on_keras


def agree(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """Whether activations are the same but for the order of sums."""
    return all(
        one.shape == other.shape and np.abs(one - other).max() <= AGREEMENT * np.abs(other).max()
        for one, other in zip(found, expected, strict=True)
    )


def keras_inference(model: keras.Model) -> Inference:
    """Run a model as Keras does; see `fastest_inference`."""

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        found = model.predict_on_batch(pixels)
        return [each.astype(np.float32) for each in (found if isinstance(found, list) else [found])]

    return run


def onnx_inference(model: keras.Model) -> Inference:
    """Run a model converted to ONNX; see `fastest_inference`."""
    # Both are slow to import, and most stages need neither.
    import onnxruntime

    from stages.backbones.onnx_export import inference_model, write_onnx

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write_onnx(inference_model(model, "below"), file)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda pixels: session.run(None, {images.name: pixels})
