"""Runs a frozen network in the fastest way that this machine offers: in Keras or in ONNX Runtime."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

# Architectures that ONNX Runtime runs faster than Keras, and architectures whose features tolerate bfloat16: every
# feature vector has a cosine of at least 0.999 with its float32 version. `python -m benchmarks.features` measures both.
FASTER_IN_ONNX_RUNTIME = frozenset({"efficientnet_b0", "mobilenet", "mobilenet_v2"})
TOLERATES_BFLOAT16 = frozenset({"vgg16"})
MIN_IMAGES_TO_CONVERT = 1_000  # for fewer, the conversion takes longer than it saves
OUTPUT_TOLERANCE = 1e-3  # relative to the largest activation; ONNX Runtime differs from Keras by about 1e-5

Inference = Callable[[np.ndarray], list[np.ndarray]]
CPU_INFO = Path("/proc/cpuinfo")


def resolve_precision(precision: str, architecture: str) -> str:
    """Return float32 or bfloat16; `auto` is bfloat16 if the processor and the architecture support it."""
    if precision != "auto":
        return precision
    return "bfloat16" if architecture in TOLERATES_BFLOAT16 and has_bfloat16() else "float32"


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16 (AVX512-BF16 or AMX); detected on Linux only."""
    flags = CPU_INFO.read_text(encoding="utf-8").split() if CPU_INFO.exists() else []
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def fastest_inference(
    model: keras.Model, architecture: str, precision: str, images: int, sample: np.ndarray
) -> Inference:
    """Return a function that runs a model on a batch: uint8 images (n, h, w, 3) to outputs, a list of (n, ...) float32.

    images: how many images the function will process.
    sample: the first batch. If Keras and ONNX Runtime disagree on it, Keras runs the model.
    """
    run_keras = keras_inference(model)
    if (
        architecture not in FASTER_IN_ONNX_RUNTIME
        or precision != "float32"
        or images < MIN_IMAGES_TO_CONVERT
        or keras.distribution.list_devices("gpu")
    ):
        return run_keras
    try:
        run_onnx = onnx_inference(model)
        outputs = run_onnx(sample)
    except Exception:  # the converter and the runtime raise many types of errors for layers that they do not support
        return run_keras
    return run_onnx if outputs_agree(outputs, run_keras(sample)) else run_keras


def outputs_agree(outputs: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """Whether outputs have the same shapes and differ only by rounding."""
    return all(
        actual.shape == reference.shape
        and np.abs(actual - reference).max() <= OUTPUT_TOLERANCE * np.abs(reference).max()
        for actual, reference in zip(outputs, expected, strict=True)
    )


def keras_inference(model: keras.Model) -> Inference:
    """Run a model in Keras; see `fastest_inference`."""

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        outputs = model.predict_on_batch(pixels)
        return [output.astype(np.float32) for output in (outputs if isinstance(outputs, list) else [outputs])]

    return run


def onnx_inference(model: keras.Model) -> Inference:
    """Convert a model to ONNX and run it in ONNX Runtime; see `fastest_inference`."""
    # Imported here because both are slow to import, and most stages need neither.
    import onnxruntime

    from stages.backbones.onnx_export import inference_model, write_onnx

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write_onnx(inference_model(model, "below"), file)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda pixels: session.run(None, {images.name: pixels})
