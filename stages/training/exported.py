"""Predicting with an exported ONNX file: without the deep-learning framework, whose import takes seconds."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from stages.artifacts.models import MODELS_FOLDER, ModelRecord
from stages.artifacts.reports import EXPORTED_MODELS
from stages.core.files import sha256_of

# The entry of an ONNX file that says from which record, and so from which weights, it was made.
RECORD_KEY = "record_sha256"


def record_checksum(model: str) -> str:
    """The checksum of the record of a model, which holds those of its weights and of its backbone."""
    return sha256_of(MODELS_FOLDER / model / "record.json")


def onnx_predictor(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The predictions of an ONNX file."""
    return _predictor(_session(file))


def exported_predictor(record: ModelRecord) -> Callable[[np.ndarray], np.ndarray] | None:
    """The predictions of the exported file of a model; None if there is none that predicts what the model predicts.

    A file computes in float32. A file of an earlier training is reported.
    """
    file = EXPORTED_MODELS / f"{record.name}.onnx"
    if not file.exists() or "bfloat16" in record.precisions:
        return None
    try:
        session = _session(file)
        made_from = json.loads(session.get_modelmeta().custom_metadata_map.get(RECORD_KEY, "null"))
    except Exception:  # the runtime raises many types of errors for damaged files
        made_from = None
    if made_from == record_checksum(record.name):
        return _predictor(session)
    print(
        f"predict: {file} is damaged or of an earlier training, and is not used. Run `python -m stages.export "
        f"{record.name}` to write it again.",
        file=sys.stderr,
    )
    return None


def _session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def _predictor(session: onnxruntime.InferenceSession) -> Callable[[np.ndarray], np.ndarray]:
    (images,) = session.get_inputs()
    return lambda pixels: session.run(None, {images.name: pixels})[0]
