"""Loads and saves weights: backbones with the weights in data/weights/<backbone>, and models without optimizer."""

import io
import math
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
from stages.backbones.presets import LEARNED_POSITIONS, image_size_problem
from stages.core.errors import UserError


def load_backbone(name: str, image_size: int) -> tuple[keras.Model, WeightsRecord]:
    """Build a backbone for images of `image_size` pixels a side and load its weights.

    Random weights depend on the current seed. Raises `UserError` if the weights do not fit the architecture, or the
    architecture does not take images of this size. Position embeddings that were trained for another size are
    interpolated.
    """
    record = read_weights_record(name)
    if record.preset and (problem := image_size_problem(record.preset, image_size)):
        raise UserError(
            f"backbones.{name}: {record.architecture} does not take images of {image_size} pixels, because {problem}"
        )
    backbone = build_backbone(record.architecture, image_size, record.preset)
    if record.file:
        file, where = WEIGHTS_FOLDER / name / record.file, f"backbones.{name}.weights"
        if record.preset and record.preset["class_name"] in LEARNED_POSITIONS and record.trained_size != image_size:
            trained = build_backbone(record.architecture, record.trained_size, record.preset)
            load_weights(trained, file, where)
            copy_interpolated(trained, backbone, record.preset["prefix_tokens"])
        else:
            load_weights(backbone, file, where)
    return backbone, record


def copy_interpolated(source: keras.Model, target: keras.Model, prefix: int) -> None:
    """Give a transformer the weights of the same one for another image size.

    Position embeddings of the patches (t, c) are interpolated over the image (Dosovitskiy et al. 2021, section 3.2),
    bicubic; those of the tokens before them are copied. prefix: the number of these tokens, registers included.
    DINOv2 has no positions of registers, says by `antialias_in_interpolation` how it was published, and has two tables:
    the trained one, and the one for the size of its images.
    """
    antialias = getattr(source.get_layer("embedding"), "antialias_in_interpolation", None)
    trained = next((weight for weight in source.weights if weight.path.endswith("/position_embeddings")), None)
    for old, new in zip(source.weights, target.weights, strict=True):
        if new.path.endswith("/interpolated_position_embeddings"):
            old = trained
        values = keras.ops.convert_to_numpy(old)
        if old.shape != new.shape:
            if values.dtype.kind == "i":  # the numbers of the positions
                values = np.arange(np.prod(new.shape)).reshape(new.shape)
            else:
                own = prefix if antialias is None else 1
                values = _interpolate(values, tuple(new.shape), own, antialias)
        new.assign(values)


def _interpolate(values: np.ndarray, shape: tuple[int, ...], prefix: int, antialias: bool | None) -> np.ndarray:
    """antialias: None for only where the image becomes smaller."""
    table = values.reshape(-1, values.shape[-1])
    own, patches = table[:prefix], table[prefix:]
    side, new_side = (math.isqrt(count - prefix) for count in (len(table), math.prod(shape[:-1])))
    grid = patches.reshape(side, side, -1)
    if antialias is False:
        matrix = bicubic_matrix(side, new_side)
        resized = np.einsum("ai,bj,ijc->abc", matrix, matrix, grid)
    else:
        smooth = new_side < side if antialias is None else antialias
        resized = keras.ops.image.resize(grid, (new_side, new_side), "bicubic", antialias=smooth)
    resized = keras.ops.convert_to_numpy(resized).reshape(new_side**2, -1)
    return np.concatenate([own, resized]).reshape(shape)


def bicubic_matrix(side: int, new_side: int) -> np.ndarray:
    """The matrix (new_side, side) that interpolates a row as PyTorch does, with which DINOv2 was published.

    Keys 1981 with a = -0.75, where Keras has -0.5.
    """
    a, places = -0.75, (np.arange(new_side) + 0.5) * side / new_side - 0.5
    matrix = np.zeros((new_side, side))
    for offset in (-1, 0, 1, 2):
        columns = np.floor(places).astype(int) + offset
        distance = np.abs(places - columns)
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        np.add.at(matrix, (np.arange(new_side), columns.clip(0, side - 1)), np.where(distance <= 1, near, far))
    return matrix


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
