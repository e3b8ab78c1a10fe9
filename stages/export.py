"""Writes a trained model as files that need nothing of this project: `python -m stages.export <model>`.

`<model>.keras` and `<model>.onnx` take uint8 images and give probabilities: the preprocessing is inside, and so are the
names of the classes. Both are read again and asked about the test images before they count as written.
"""

import argparse
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime

from stages.base.errors import UserError
from stages.base.files import atomic_file
from stages.data.images import read_images
from stages.data.results import ModelRecord, read_result
from stages.data.tasks import read_task
from stages.networks.portable import plain, write_onnx
from stages.study import Study
from stages.using.command import run_command
from stages.using.models import load_model, precisions

CHECKED = 256  # test images that are asked about
BATCH = 64
# By how much probabilities may differ from those stored after the training. float16: features cached in it have three
# digits; bfloat16: computations in it have two or three, and the exported model computes in float32.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
CLASSES_FILE = "classes.json"


def main(study: Study, given: argparse.Namespace) -> int:
    name = given.model
    trained = load_model(study, name, "float32")
    index, stored = stored_answers(name)
    images = read_images(trained.dataset)
    read_task(trained.record.task).check_images(images.sha256, f"data/images/{trained.dataset}")
    pixels = images.pixels[index]
    coarsest = coarsest_precision(study, name, trained.record)
    told = {"classes": trained.classes, "image_size": trained.image_size, "resize": trained.resize}
    model = plain(trained.model, name)
    paths = [given.folder / f"{name}.{kind}" for kind in ("keras", "onnx")]
    with atomic_file(paths[0]) as keras_file, atomic_file(paths[1]) as onnx_file:
        write_keras(model, told, keras_file)
        try:
            write_onnx(model, onnx_file)
            write_told(onnx_file, told)
            in_onnx = onnx_model(onnx_file)
        except Exception as error:  # the converter and the runtime raise nearly anything on layers they do not know
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{name}: its network cannot be written as ONNX ({reason}); use another backbone for the export."
            ) from None
        found = [difference(ask, pixels, stored) for ask in (keras_model(keras_file), in_onnx)]
        if not all(each <= TOLERANCES[coarsest] for each in found):  # no comparison holds for what is no number
            raise UserError(
                f"{name}: the exported model differs from the stored predictions by up to {np.max(found):.2g}, more "
                f"than the {TOLERANCES[coarsest]:g} that {coarsest} explains; run `dvc repro`, or where precision is "
                "bfloat16 set float32."
            )
    files = " and ".join(f"{path} ({path.stat().st_size / 1e6:.1f} MB)" for path in paths)
    print(
        f"export {name}: {files}; probabilities of {len(index)} test images differ from the stored ones by at most "
        f"{found[0]:.1e} and {found[1]:.1e} ({coarsest}: {TOLERANCES[coarsest]:g} allowed)"
    )
    return 0


def stored_answers(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the dataset (n,) of at most CHECKED test images, evenly spread, and the probabilities (n, classes) that
    the kept repeat gave them."""
    result = read_result(name)
    test = result.predictions["test"]
    chosen = np.unique(np.linspace(0, len(test.index) - 1, CHECKED).round().astype(int))
    return test.index[chosen], test.probabilities[result.record.kept_repeat][chosen]


def coarsest_precision(study: Study, name: str, record: ModelRecord) -> str:
    """The coarsest number format that the stored predictions went through."""
    entry = study.models[name]
    formats = {*precisions(study, name, record)}
    if hasattr(entry, "features"):
        formats.add(study.features[entry.features].storage)
    return max(formats, key=lambda each: TOLERANCES[each])


def write_keras(model: keras.Model, told: dict, file: Path) -> None:
    """Write a Keras file; what else is told of the model lies in it as `classes.json`, which Keras passes over."""
    model.save(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(CLASSES_FILE, json.dumps(told, ensure_ascii=False))


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
