"""Computes the activations of a backbone at its cut layers, once for all models: data/features/<features>.

Features know nothing of the split: every image of the dataset (or of the classes that the entry lists) gets its
features, in the order of the images, and so does every view that the entry asks for.
"""

import time

import keras
import numpy as np

from stages.artifacts.costs import FeaturesCost, InferenceTime, write_cost
from stages.artifacts.features import FEATURES_FOLDER, FeaturesRecord, write_features_record
from stages.artifacts.images import read_images
from stages.artifacts.seen_images import images_seen_by, write_seen_images
from stages.artifacts.weights import WeightsRecord, read_weights_record
from stages.backbones.augmentation import view_function
from stages.backbones.cuts import up_to_cut, write_above_cut
from stages.backbones.extraction import BATCH, FeaturesWriter, extract
from stages.backbones.inference import fastest_inference, resolve_precision
from stages.backbones.layer_names import cut_layer, same_layer
from stages.backbones.layer_table import layers_of
from stages.backbones.multiply_adds import multiply_adds
from stages.backbones.pooling import check_pooling, prefix_tokens
from stages.backbones.pretrained import load_backbone
from stages.backbones.runtime import computing_in, make_deterministic
from stages.config.features import FeaturesConfig
from stages.config.parsing import parse_entry
from stages.core import measurement
from stages.core.errors import UserError
from stages.core.files import atomic_directory
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.wording import counted
from stages.splitting.classes import select_classes


def main(params: Params, name: str) -> str:
    entry = parse_entry(params, "features", name, FeaturesConfig)
    make_deterministic(seed=0)  # of the views; a trained backbone leaves nothing to chance
    images = read_images(entry.dataset)
    labels = select_classes(entry.classes, images.classes, f"features.{name}.classes")
    index = np.flatnonzero(images.table["label"].isin(labels))
    weights = read_weights_record(entry.backbone)
    cuts, layers = find_cuts(name, entry, weights), layers_of(weights.architecture, weights.preset)
    precision = resolve_precision(entry.precision, weights.architecture)
    with computing_in(precision):
        backbone, _ = load_backbone(entry.backbone, images.image_size)
        parts = [up_to_cut(backbone, cut, entry.pooling, prefix_tokens(weights.preset)) for cut in cuts]
    records = [
        FeaturesRecord(
            name=name,
            dataset=entry.dataset,
            images_sha256=images.sha256,
            images=len(index),
            image_size=images.image_size,
            resize=images.resize,
            backbone=entry.backbone,
            weights_sha256=weights.sha256,
            architecture=weights.architecture,
            cut=cut,
            pooling=entry.pooling,
            precision=precision,
            storage=entry.storage,
            views=[view.model_dump() for view in entry.views],
            shape=list(part.output.shape[1:]),
            parameters=part.count_params(),
            multiply_adds=multiply_adds(part),
            bits=images.bits,
            preset=weights.preset,
        )
        for cut, part in zip(cuts, parts, strict=True)
    ]
    rows = len(index) * records[0].views_used(None)

    with atomic_directory(FEATURES_FOLDER / name) as folder:
        start = time.perf_counter()
        # Before all else that may draw random numbers.
        views = [None, *(view_function(view) for view in entry.views)]
        model = keras.Model(backbone.input, [part.output for part in parts])
        run = fastest_inference(model, weights.architecture, precision, rows, images.read(index[:BATCH]))
        writers = [FeaturesWriter.create(folder, record, rows) for record in records]
        for number, view in enumerate(views, start=1):
            description = f"features.{name}" + (f", view {number}" if view else "")
            extract(run, view, images.read, index, writers, description)
        seconds = time.perf_counter() - start
        np.save(folder / "index.npy", index, allow_pickle=False)
        write_seen_images(folder, images_seen_by(entry.backbone))
        for record in records:
            write_above_cut(backbone, layers[record.cut], record.cut, folder / record.cut / "above.weights.h5")
            write_features_record(folder / record.cut, record)
    times = {record.cut: measure(part, images.read(index[:BATCH])) for record, part in zip(records, parts, strict=True)}
    write_cost("features", name, FeaturesCost.measured(seconds, rows / seconds, times))
    sizes = ", ".join(f"{'x'.join(map(str, record.shape))} at {record.cut}" for record in records)
    in_views = f" in {counted(len(views), 'view')}" if entry.views else ""
    return f"{counted(len(index), 'image')}{in_views}, {entry.storage} {sizes}, {rows / seconds:.0f} images/s"


def find_cuts(name: str, entry: FeaturesConfig, weights: WeightsRecord) -> list[str]:
    """The cut layers of an entry; `UserError` if one does not exist or cannot be pooled as the entry says."""
    layers, where = layers_of(weights.architecture, weights.preset), f"features.{name}"
    cuts = [cut_layer(layers, cut, f"{where}.cut", weights.architecture) for cut in entry.cuts]
    for number, cut in enumerate(cuts):
        check_pooling(f"{where}.pooling", entry.pooling, cut, layers[cut], weights.preset)
        if cut in cuts[:number]:
            raise UserError(same_layer(f"{where}.cut", entry.cuts[cuts.index(cut)], entry.cuts[number], cut))
    return cuts


def measure(part: keras.Model, images: np.ndarray) -> InferenceTime:
    """The time of a backbone up to a cut layer. images: some, (n, h, w, 3) uint8."""
    batch = np.resize(images, (measurement.BATCH, *images.shape[1:]))
    return InferenceTime.measured(*measurement.milliseconds_per_image(part.predict_on_batch, batch))


if __name__ == "__main__":
    run_stage(main, "features")
