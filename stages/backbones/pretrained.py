"""Weights files: backbones with those of data/weights/<backbone>, and saving without the optimizer."""

import re
import warnings
from pathlib import Path

import keras
import numpy as np

from stages.artifacts.weights import WEIGHTS_FOLDER, WeightsRecord, read_weights_record
from stages.backbones.building import build_backbone
from stages.core.errors import UserError


def load_backbone(name: str, image_size: int) -> tuple[keras.Model, WeightsRecord]:
    """Build the backbone of an entry for images of `image_size` pixels a side and give it its weights.

    Random weights are drawn from the current seed. `UserError` when the weights do not fit the architecture.
    """
    record = read_weights_record(name)
    backbone = build_backbone(record.architecture, image_size)
    if record.file:
        load_weights(backbone, WEIGHTS_FOLDER / name / record.file, f"backbones.{name}.weights")
    return backbone, record


def load_weights(model: keras.Model, file: Path, what: str) -> None:
    """Load a weights file that must fill every layer of the model; `UserError` that begins with `what` when not."""
    # Keras only warns about layers that the file does not have. Numbers that are none mark what was not loaded.
    model.set_weights([np.full(weight.shape, np.nan) for weight in model.weights])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(file)
        empty = [weight.path for weight in model.weights if np.isnan(keras.ops.convert_to_numpy(weight)).any()]
        if empty:
            raise ValueError(f"it has no weights for {empty[0]}")
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # h5py raises each of them on a damaged file
        # Keras goes on with a list of layers, or all numbers of one.
        reason = " ".join(re.split("List of objects|Target variable", str(error))[0].split()).rstrip(".")
        raise UserError(f"{what}: {file.name} does not fit {model.name} ({reason}); give weights of it.") from None


def save_weights(model: keras.Model, file: Path) -> None:
    """Save the weights of a model (a name that ends in .weights.h5), and not the two or three times as large state of
    its optimizer, which Keras saves with a compiled model."""
    keras.Model(model.inputs, model.outputs).save_weights(file)
