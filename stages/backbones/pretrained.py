"""Loads and saves weights: backbones with the weights in data/weights/<backbone>, and models without optimizer."""

import io
import re
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

import h5py
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
        raise UserError(f"{what}: {file.name} does not fit {model.name} ({reason}). {_remedy(file)}") from None


def _remedy(file: Path) -> str:
    """What to do about weights that do not fit, from the layout of their file."""
    nested = old = False
    with suppress(OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile):  # a damaged file
        source = io.BytesIO(zipfile.ZipFile(file).read("model.weights.h5")) if file.suffix == ".keras" else file
        with h5py.File(source) as content:
            layers = content.get("model_weights", content)
            old = "layer_names" in layers.attrs
            # The groups in a layer's group are its variables, or the layers of a model that is a layer.
            nested = any(
                len({PurePosixPath(weight).parent for weight in layer.attrs["weight_names"]}) > 1
                if old
                else "layers" in layer
                for layer in (layers if old else content["layers"]).values()
                if not old or "weight_names" in layer.attrs
            )
    if nested:
        return (
            "The file is of a model that has the backbone as one of its layers. Save the weights of that layer alone, "
            "as by model.layers[0].save_weights('backbone.weights.h5') (model.summary() shows its place), and give "
            "that file."
        )
    if old:
        return (
            "Give weights of this architecture. If the model has further layers on top, load it in Keras and save it "
            "by model.save_weights('backbone.weights.h5')."
        )
    return "Give weights of this architecture."


def save_weights(model: keras.Model, file: Path) -> None:
    """Save the weights of a model to a file whose name ends in .weights.h5.

    Keras saves a compiled model with the state of its optimizer, which is two or three times as large; this does not.
    """
    keras.Model(model.inputs, model.outputs).save_weights(file)
