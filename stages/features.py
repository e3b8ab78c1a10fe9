"""Computes the activations of a backbone at the cut layer, once for all models: data/features/<features>.

Features know nothing of the split: every image of the dataset (or of the classes the entry lists) gets its features,
in the order of the images.
"""

import time
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from stages.base.command import run_stage
from stages.base.errors import UserError
from stages.base.files import atomic_directory, write_json
from stages.data.costs import Cost, write_cost
from stages.data.features import FOLDER, FeatureRecord
from stages.data.images import read_images
from stages.data.tasks import select_classes
from stages.networks.backbones import layer_names
from stages.networks.cuts import above, below
from stages.networks.pretrained import load_backbone, save_weights
from stages.networks.runtime import make_deterministic
from stages.study import Study
from stages.study.architectures import layers_of

BATCH = 64


def main(study: Study, name: str) -> str:
    entry = study.features[name]
    make_deterministic(seed=0)  # nothing random is left in a trained backbone
    images = read_images(entry.dataset)
    chosen = select_classes(entry.classes, None, images.classes, f"features.{name}.classes")
    index = np.flatnonzero(images.table["label"].isin(chosen))
    image_size = images.pixels.shape[1]
    backbone, weights = load_backbone(entry.backbone, image_size)
    model = below(backbone, entry.cut, entry.pooling)
    shape = list(model.output.shape[1:])

    with atomic_directory(FOLDER / name) as folder:
        start = time.perf_counter()
        array = np.lib.format.open_memmap(
            folder / "features.npy", mode="w+", dtype=entry.storage, shape=(len(index), *shape)
        )
        extract(model, images.pixels, index, array, f"features.{name}")
        seconds = time.perf_counter() - start
        np.save(folder / "index.npy", index, allow_pickle=False)
        write_above(backbone, weights.architecture, entry.cut, folder / "above.weights.h5")
        record = FeatureRecord(
            dataset=entry.dataset,
            images_sha256=images.sha256,
            images=len(index),
            backbone=entry.backbone,
            weights_sha256=weights.sha256,
            architecture=weights.architecture,
            image_size=image_size,
            cut=entry.cut,
            pooling=entry.pooling,
            precision=keras.config.floatx(),
            storage=entry.storage,
            views=1,
            shape=shape,
            parameters=model.count_params(),
        )
        write_json(folder / "record.json", asdict(record))
    write_cost("features", name, Cost.measured(seconds, len(index) / seconds))
    size = f"{'x'.join(map(str, shape))} {entry.storage}"
    return f"{len(index)} images x {size} at {entry.cut}, {len(index) / seconds:.0f} images/s"


def extract(model: keras.Model, pixels: np.ndarray, index: np.ndarray, out: np.ndarray, where: str) -> None:
    """Run the images through a model, a batch at a time, into `out`.

    pixels (n, h, w, 3) uint8; index (m,) the rows to take; out (m, ...) float16 or float32, written in place and
    often memory-mapped. Raises `UserError` when an activation does not fit the dtype of `out`.
    """
    with tqdm(total=len(index), desc=where, unit=" images", disable=None) as bar:
        for start in range(0, len(index), BATCH):
            rows = index[start : start + BATCH]
            activations = model.predict_on_batch(pixels[rows])
            with np.errstate(over="ignore"):
                out[start : start + len(rows)] = activations
            if not np.isfinite(out[start : start + len(rows)]).all():
                largest = np.abs(activations).max()
                if not np.isfinite(largest):
                    raise UserError(
                        f"{where}.backbone: an activation is {largest}: the weights are damaged or their training "
                        "diverged; train the backbone again or give other weights."
                    )
                raise UserError(
                    f"{where}.storage: an activation of {largest:g} does not fit {out.dtype}; set storage: float32."
                )
            bar.update(len(rows))


def write_above(backbone: keras.Model, architecture: str, cut: str, file: Path) -> None:
    """Save the weights of the layers above a cut that separates them, for heads that start from them."""
    if layers_of(architecture)[cut].separates and cut != layer_names(backbone)[-1]:
        save_weights(above(backbone, cut), file)


if __name__ == "__main__":
    run_stage(main, "features")
