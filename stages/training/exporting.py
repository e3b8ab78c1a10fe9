"""Writing a trained model as a Keras or ONNX file, and checking that the file predicts what the model predicted."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from stages.artifacts.images import read_images
from stages.artifacts.models import ModelRecord, read_predictions
from stages.backbones.onnx_export import inference_model
from stages.backbones.runtime import make_deterministic
from stages.core.errors import UserError
from stages.training.calibration import at_temperature
from stages.training.full_model import load_calibrated_model

CHECKED_IMAGES = 256  # test images at most
BATCH = 64
# By how much probabilities may differ from those stored after the training. float16: features cached in it have three
# digits; bfloat16: computations in it have two or three, and the exported model computes in float32.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
METADATA_FILE = "classes.json"

Predictor = Callable[[np.ndarray], np.ndarray]  # from uint8 images (n, h, w, 3) to probabilities (n, classes)


@dataclass(frozen=True)
class Export:
    """A model ready to be written, and the predictions that its file must give.

    model: of layers of Keras alone, from uint8 images (n, image_size, image_size, 3) to calibrated probabilities
    (n, classes). metadata: class names, image size and resizing. pixels: test images, (n, image_size, image_size, 3)
    uint8. stored: their probabilities (n, classes) float32 after the training, calibrated in the same way. precision:
    the coarsest number format behind these.
    """

    model: keras.Model
    metadata: dict[str, Any]
    pixels: np.ndarray
    stored: np.ndarray
    precision: str
    temperature: float

    @property
    def tolerance(self) -> float:
        """The largest difference in probabilities that the precision explains; a temperature below 1 increases it."""
        return TOLERANCES[self.precision] / min(1, self.temperature)

    def compare(self, *predictors: Predictor) -> tuple[list[float], str]:
        """The largest difference in probabilities of each predictor, and the problem if one exceeds the tolerance."""
        differences = [largest_difference(predict, self.pixels, self.stored) for predict in predictors]
        if all(difference <= self.tolerance for difference in differences):  # false for NaN
            return differences, ""
        return differences, (
            f"the predictions of the exported model differ from the stored ones by up to {np.max(differences):.2g}; "
            f"the tolerance for {self.precision} is {self.tolerance:g}"
        )


def prepare_export(record: ModelRecord, precision: str | None = None) -> Export:
    """Load a calibrated model for its export. precision: of the computation, None for the one it was trained in.

    `UserError` if its weights, its predictions or the images are missing or do not belong together.
    """
    make_deterministic(0)  # a trained model leaves nothing to chance
    images = read_images(record.dataset)
    if images.sha256 != record.provenance.images_sha256:
        raise UserError(
            f"data/images/{record.dataset} does not hold the images that {record.name} was trained on. Run "
            "`dvc checkout`, or `dvc repro`."
        )
    test = read_predictions(record.name)["test"]
    checked = np.unique(np.linspace(0, len(test.index) - 1, CHECKED_IMAGES).round().astype(int))
    return Export(
        model=inference_model(load_calibrated_model(record, precision), record.name),
        metadata={
            **{key: getattr(record, key) for key in ("classes", "image_size", "resize")},
            **({"bits": record.bits} if record.bits else {}),
        },
        pixels=images.pixels[test.index[checked]],
        stored=at_temperature(test.probabilities[record.best_repeat][checked], record.temperature),
        precision=coarsest_precision(record),
        temperature=record.temperature,
    )


def coarsest_precision(record: ModelRecord) -> str:
    """The coarsest number format that the stored predictions went through."""
    formats = {*record.precisions}
    if features := record.provenance.features:
        formats |= {features.precision, features.storage}
    return max(formats, key=TOLERANCES.__getitem__)


def write_keras(model: keras.Model, metadata: dict[str, Any], file: Path) -> None:
    """Write a Keras file; the metadata lies in it as `classes.json`, which Keras ignores.

    The bytes are the same on every run: the dates that Keras and zip write are left out, and the memory addresses by
    which Keras identifies shared objects are replaced by numbers from 0.
    """
    numbers: dict[str, int] = {}
    saved = file.with_name(f".partial-saved-{file.name}")
    try:
        model.save(saved)
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(file, "w") as target:
            for name in sorted(source.namelist()):
                with source.open(name) as old, target.open(zipfile.ZipInfo(name), "w", force_zip64=True) as new:
                    if name == "config.json":
                        numbered = re.sub(
                            r'(?<="shared_object_id": )\d+',
                            lambda match: str(numbers.setdefault(match[0], len(numbers))),
                            old.read().decode(),
                        )
                        new.write(numbered.encode())
                    elif name == "metadata.json":
                        new.write(json.dumps({"keras_version": json.load(old)["keras_version"]}).encode())
                    else:
                        shutil.copyfileobj(old, new)
            target.writestr(zipfile.ZipInfo(METADATA_FILE), json.dumps(metadata, ensure_ascii=False))
    finally:
        saved.unlink(missing_ok=True)


def write_onnx_metadata(file: Path, metadata: dict[str, Any]) -> None:
    """Write the metadata into an ONNX file, each value as JSON."""
    graph = onnx.load(file)
    onnx.helper.set_model_props(graph, {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()})
    onnx.save(graph, file)


def keras_predictor(file: Path) -> Predictor:
    """The predictions of a Keras file."""
    return keras.saving.load_model(file, compile=False).predict_on_batch


def largest_difference(predict: Predictor, pixels: np.ndarray, stored: np.ndarray) -> float:
    """The largest difference between the probabilities (n, classes) of a predictor and the stored ones."""
    batches = [predict(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    return float(np.abs(np.concatenate(batches) - stored).max())
