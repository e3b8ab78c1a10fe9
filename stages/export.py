"""Writes a trained model as files that need nothing of this project: `python -m stages.export <model>`.

`<model>.keras` and `<model>.onnx` take uint8 images and give probabilities: the preprocessing is inside, and so are the
names of the classes. Both are read again and asked about the test images before they count as written.
"""

import argparse
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime

from stages.artifacts.images import read_images
from stages.artifacts.models import ModelRecord, read_result
from stages.artifacts.tasks import read_task
from stages.backbones.onnx_export import inference_model, write_onnx
from stages.core.command import run_command
from stages.core.errors import UserError
from stages.core.files import atomic_file
from stages.training.trained_model import load_trained_model, precisions
from stages.validation.study import Study

CHECKED = 256  # test images that are asked about
BATCH = 64
# By how much probabilities may differ from those stored after the training. float16: features cached in it have three
# digits; bfloat16: computations in it have two or three, and the exported model computes in float32.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
CLASSES_FILE = "classes.json"


@dataclass(frozen=True)
class Export:
    """A model as it is written, and what its file is compared with.

    model: of layers of Keras alone, from uint8 images (n, image_size, image_size, 3) to probabilities (n, classes).
    told: what else a user of the file must know. pixels: test images, (n, image_size, image_size, 3) uint8. stored:
    the probabilities (n, classes) float32 they were given after the training. precision: the coarsest behind these.
    """

    model: keras.Model
    record: ModelRecord
    told: dict
    pixels: np.ndarray
    stored: np.ndarray
    precision: str

    def compare(self, *files: Callable[[np.ndarray], np.ndarray]) -> tuple[list[float], str]:
        """By how much the probabilities of each file differ, and what is wrong where the precision explains it not."""
        found = [difference(ask, self.pixels, self.stored) for ask in files]
        if all(each <= TOLERANCES[self.precision] for each in found):  # no comparison holds for what is no number
            return found, ""
        return found, (
            f"the exported model differs from the stored predictions by up to {np.max(found):.2g}, more than the "
            f"{TOLERANCES[self.precision]:g} that {self.precision} explains"
        )


def main(study: Study, given: argparse.Namespace) -> int:
    name = given.model
    export = export_of(study, name, "float32")
    paths = [given.folder / f"{name}.{kind}" for kind in ("keras", "onnx")]
    with atomic_file(paths[0]) as keras_file, atomic_file(paths[1]) as onnx_file:
        write_keras(export.model, export.told, keras_file)
        try:
            write_onnx(export.model, onnx_file)
            write_told(onnx_file, export.told)
            in_onnx = onnx_model(onnx_file)
        except Exception as error:  # the converter and the runtime raise nearly anything on layers they do not know
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{name}: its network cannot be written as ONNX ({reason}); use another backbone for the export."
            ) from None
        found, problem = export.compare(keras_model(keras_file), in_onnx)
        if problem:
            raise UserError(f"{name}: {problem}; run `dvc repro`, or where precision is bfloat16 set float32.")
    files = " and ".join(f"{path} ({path.stat().st_size / 1e6:.1f} MB)" for path in paths)
    print(
        f"export {name}: {files}; probabilities of {len(export.pixels)} test images differ from the stored ones by at "
        f"most {found[0]:.1e} and {found[1]:.1e} ({export.precision}: {TOLERANCES[export.precision]:g} allowed)"
    )
    return 0


def export_of(study: Study, name: str, precision: str | None = None) -> Export:
    """A model of the study as it is to be written; precision: of the computation, None for that of its training."""
    trained = load_trained_model(study, name, precision)
    index, stored = stored_answers(name)
    images = read_images(trained.dataset)
    read_task(trained.record.task).check_images(images.sha256, f"data/images/{trained.dataset}")
    told = {"classes": trained.classes, "image_size": trained.image_size, "resize": trained.resize}
    coarsest = coarsest_precision(study, name, trained.record)
    return Export(inference_model(trained.model, name), trained.record, told, images.pixels[index], stored, coarsest)


def stored_answers(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the dataset (n,) of at most CHECKED test images, evenly spread, and the probabilities (n, classes) that
    the kept repeat gave them."""
    result = read_result(name)
    test = result.predictions["test"]
    chosen = np.unique(np.linspace(0, len(test.index) - 1, CHECKED).round().astype(int))
    return test.index[chosen], test.probabilities[result.record.best_repeat][chosen]


def coarsest_precision(study: Study, name: str, record: ModelRecord) -> str:
    """The coarsest number format that the stored predictions went through."""
    entry = study.models[name]
    formats = {*precisions(study, name, record)}
    if hasattr(entry, "features"):
        formats.add(study.features[entry.features].storage)
    return max(formats, key=lambda each: TOLERANCES[each])


def write_keras(model: keras.Model, told: dict, file: Path) -> None:
    """Write a Keras file; what else is told of the model lies in it as `classes.json`, which Keras passes over.

    The same bytes on every run: without the dates that Keras and zip put in, and with places in memory, by which Keras
    tells what layers share, replaced by numbers from 0.
    """
    places: dict[str, int] = {}
    saved = file.with_name(f".partial-saved-{file.name}")
    try:
        model.save(saved)
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(file, "w") as new:
            for name in sorted(old.namelist()):
                with old.open(name) as source, new.open(zipfile.ZipInfo(name), "w", force_zip64=True) as target:
                    if name == "config.json":
                        numbered = re.sub(
                            r'(?<="shared_object_id": )\d+',
                            lambda found: str(places.setdefault(found[0], len(places))),
                            source.read().decode(),
                        )
                        target.write(numbered.encode())
                    elif name == "metadata.json":
                        metadata = json.load(source)
                        target.write(json.dumps({"keras_version": metadata["keras_version"]}).encode())
                    else:
                        shutil.copyfileobj(source, target)
            new.writestr(zipfile.ZipInfo(CLASSES_FILE), json.dumps(told, ensure_ascii=False))
    finally:
        saved.unlink(missing_ok=True)


def write_told(file: Path, told: dict) -> None:
    """Write what else is told of the model into the metadata of its ONNX file, each value as JSON."""
    graph = onnx.load(file)
    onnx.helper.set_model_props(graph, {key: json.dumps(value, ensure_ascii=False) for key, value in told.items()})
    onnx.save(graph, file)


def keras_model(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A Keras file as a function from uint8 images (n, h, w, 3) to probabilities (n, classes)."""
    return keras.saving.load_model(file, compile=False).predict_on_batch


def onnx_model(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """An ONNX file as a function from uint8 images (n, h, w, 3) to probabilities (n, classes)."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda pixels: session.run(None, {images.name: pixels})[0]


def difference(ask: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, stored: np.ndarray) -> float:
    """The largest difference between the probabilities (n, classes) of a model and the stored ones."""
    found = [ask(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    return float(np.abs(np.concatenate(found) - stored).max())


if __name__ == "__main__":
    parser = argparse.ArgumentParser("export", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="a network, a head or a fine-tune of the study")
    parser.add_argument("--folder", type=Path, default=Path("exports"), help="where to write it (exports)")
    run_command(parser, main)
