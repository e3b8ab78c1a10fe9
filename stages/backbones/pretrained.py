"""Loads and saves weights: backbones with the weights in data/weights/<backbone>, and models without optimizer."""

import re
import warnings
from pathlib import Path

import keras
import numpy as np

from stages.artifacts.weights import WEIGHTS_FOLDER, WeightsRecord, read_weights_record
from stages.backbones.building import build_backbone
from stages.core.errors import UserError


def load_backbone(name: str, image_size: int) -> tuple[keras.Model, WeightsRecord]:
    """Build a backbone for images of `image_size` pixels a side and load its weights.

    Random weights depend on the current seed. Raises `UserError` if the weights do not fit the architecture.
    """
    record = read_weights_record(name)
    backbone = build_backbone(record.architecture, image_size)
    if record.file:
        load_weights(backbone, WEIGHTS_FOLDER / name / record.file, f"backbones.{name}.weights")
    return backbone, record


def load_weights(model: keras.Model, file: Path, what: str) -> None:
    """Load a weights file that has a weight for every layer of the model.

    what: the setting at fault, with which the message of the `UserError` starts.
    """
    # Keras only warns about layers that are missing in the file: NaN marks the weights that it did not load.
    model.set_weights([np.full(weight.shape, np.nan) for weight in model.weights])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(file)
        missing = [weight.path for weight in model.weights if np.isnan(keras.ops.convert_to_numpy(weight)).any()]
        if missing:
            raise ValueError(f"it has no weights for {missing[0]}")
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # h5py raises each of them for a damaged file
        # Keras appends a list of layers, or all numbers of a layer.
        reason = " ".join(re.split("List of objects|Target variable", str(error))[0].split()).rstrip(".")
        raise UserError(
            f"{what}: {file.name} does not fit {model.name} ({reason}). Give weights of this architecture."
        ) from None


def save_weights(model: keras.Model, file: Path) -> None:
    """Save the weights of a model to a file whose name ends in .weights.h5.

    Keras saves a compiled model with the state of its optimizer, which is two or three times as large; this does not.
    """
    keras.Model(model.inputs, model.outputs).save_weights(file)
