"""Computes the activations of a backbone at its cuts, once for all models: data/features/<features>.

Features know nothing of the split: every image of the dataset (or of the classes the entry lists) gets its features,
in the order of the images, and so does every changed copy of it that the entry asks for.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import keras
import numpy as np
from tqdm import tqdm

from stages.artifacts.costs import Cost, write_cost
from stages.artifacts.features import FEATURES_FOLDER, FeaturesRecord
from stages.artifacts.images import read_images
from stages.backbones.augmentation import Augment
from stages.backbones.building import layer_names
from stages.backbones.cuts import above_cut, up_to_cut
from stages.backbones.inference import Inference, fastest_inference, resolve_precision
from stages.backbones.layer_names import find_layer
from stages.backbones.layer_table import layers_of
from stages.backbones.pretrained import load_backbone, save_weights
from stages.backbones.runtime import computing_in, make_deterministic
from stages.config.augmentation import AugmentationConfig
from stages.core.errors import UserError
from stages.core.files import atomic_directory, write_json
from stages.core.prefetch import prefetch
from stages.core.stage import run_stage
from stages.splitting.classes import select_classes
from stages.validation.study import Study

BATCH = 64


def main(study: Study, name: str) -> str:
    entry = study.features[name]
    make_deterministic(seed=0)  # of the changed copies; nothing random is left in a trained backbone
    images = read_images(entry.dataset)
    chosen = select_classes(entry.classes, None, images.classes, f"features.{name}.classes")
    index = np.flatnonzero(images.table["label"].isin(chosen))
    image_size = images.pixels.shape[1]
    precision = resolve_precision(entry.precision, study.architecture(entry.backbone))
    with computing_in(precision):
        backbone, weights = load_backbone(entry.backbone, image_size)
        cuts = [find_layer(weights.architecture, cut, "highest") for cut in entry.cuts]
        parts = [up_to_cut(backbone, cut, entry.pooling) for cut in cuts]
    model = keras.Model(backbone.input, [part.output for part in parts])
    shapes = [list(part.output.shape[1:]) for part in parts]
    rows = len(index) * (1 + len(entry.views))

    with atomic_directory(FEATURES_FOLDER / name) as folder:
        start = time.perf_counter()
        # Before all else that may draw random numbers.
        changes = [lambda pixels: pixels, *(changer(view) for view in entry.views)]
        run = fastest_inference(model, weights.architecture, precision, rows, images.read(index[:BATCH]))
        with ExitStack() as opened:
            outs = []
            for cut, shape in zip(cuts, shapes, strict=True):
                (folder / cut).mkdir()
                file = (folder / cut / "features.npy").open("wb")
                outs.append(ArrayFile(opened.enter_context(file), (rows, *shape), entry.storage))
            for number, change in enumerate(changes):
                what = f"features.{name}" + (f", view {number + 1}" if number else "")
                extract(run, change, images.read, index, outs, what)
        seconds = time.perf_counter() - start
        np.save(folder / "index.npy", index, allow_pickle=False)
        for cut, shape, part in zip(cuts, shapes, parts, strict=True):
            write_above(backbone, weights.architecture, cut, folder / cut / "above.weights.h5")
            record = FeaturesRecord(
                dataset=entry.dataset,
                images_sha256=images.sha256,
                images=len(index),
                backbone=entry.backbone,
                weights_sha256=weights.sha256,
                architecture=weights.architecture,
                image_size=image_size,
                cut=cut,
                pooling=entry.pooling,
                precision=precision,
                storage=entry.storage,
                views=[view.model_dump() for view in entry.views],
                shape=shape,
                parameters=part.count_params(),
            )
            write_json(folder / cut / "record.json", asdict(record))
    write_cost("features", name, Cost.measured(seconds, rows / seconds))
    sizes = ", ".join(f"{'x'.join(map(str, shape))} at {cut}" for cut, shape in zip(cuts, shapes, strict=True))
    views = f" in {1 + len(entry.views)} views" if entry.views else ""
    return f"{len(index)} images{views} x {entry.storage} {sizes}, {rows / seconds:.0f} images/s"


def changer(view: AugmentationConfig) -> Callable[[np.ndarray], np.ndarray]:
    """A function that makes changed copies of images, (n, h, w, 3) uint8."""
    images = keras.Input((None, None, 3), dtype="uint8")
    return keras.Model(images, Augment(view, always=True)(images)).predict_on_batch


class ArrayFile:
    """An .npy file that is written row by row, so that memory does not grow with it."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: str):
        self.file, self.dtype = file, np.dtype(dtype)
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, described)

    def write(self, rows: np.ndarray) -> np.ndarray:
        """Write the next rows, which are returned as they were written."""
        with np.errstate(over="ignore"):
            written = rows.astype(self.dtype)
        self.file.write(written.tobytes())
        return written


def extract(
    run: Inference,
    change: Callable[[np.ndarray], np.ndarray],
    read: Callable[[np.ndarray], np.ndarray],
    index: np.ndarray,
    outs: list[ArrayFile],
    where: str,
) -> None:
    """Run images, or changed copies of them, through a network of one output or several, in batches, into `outs`.

    read: from rows of the dataset (m,) to their pixels (m, h, w, 3) uint8; the next batch is read while the network
    runs. index (n,): the rows to take. Raises `UserError` when an activation does not fit the dtype of `outs`.
    """
    batches = (read(index[start : start + BATCH]) for start in range(0, len(index), BATCH))
    with tqdm(total=len(index), desc=where, unit=" images", disable=None) as bar:
        for pixels in prefetch(batches):
            for out, activations in zip(outs, run(change(pixels)), strict=True):
                check(out.write(activations), activations, where)
            bar.update(len(pixels))


def check(written: np.ndarray, activations: np.ndarray, where: str) -> None:
    """Refuse what is not finite as it was written; see `extract`."""
    if np.isfinite(written).all():
        return
    entry, largest = where.split(",")[0], np.abs(activations).max()
    if not np.isfinite(largest):
        raise UserError(
            f"{entry}.backbone: an activation is {largest}: the weights are damaged or their training diverged; train "
            "the backbone again or give other weights."
        )
    raise UserError(
        f"{entry}.storage: an activation of {largest:g} does not fit {written.dtype}; set storage: float32."
    )


def write_above(backbone: keras.Model, architecture: str, cut: str, file: Path) -> None:
    """Save the weights of the layers above a cut that separates them, for heads that start from them."""
    if layers_of(architecture)[cut].separates and cut != layer_names(backbone)[-1]:
        save_weights(above_cut(backbone, cut), file)


if __name__ == "__main__":
    run_stage(main, "features")
