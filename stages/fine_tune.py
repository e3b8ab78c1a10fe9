"""Joins a trained head to its backbone and trains both on, from layer `unfreeze` upward: models/<fine-tune>.

Where the cached features of the entry lie below `unfreeze`, training starts from them and the frozen layers are not
run again; else it starts from the images. Both train the same model.
"""

from dataclasses import asdict

import keras

from stages.artifacts.features import CachedFeatures, read_all_features
from stages.artifacts.images import read_images
from stages.artifacts.models import MODELS_FOLDER, ModelRecord, Provenance, read_model_record
from stages.artifacts.tasks import read_task
from stages.artifacts.weights import read_weights_record
from stages.backbones.augmentation import with_augmentation
from stages.backbones.cuts import above_cut, freeze_batch_normalization, freeze_below, up_to_cut
from stages.backbones.layer_names import can_start_from, lowest_trained_layer
from stages.backbones.layer_table import layers_of
from stages.backbones.pretrained import load_backbone
from stages.config.fine_tunes import FineTuneConfig
from stages.config.heads import HeadConfig
from stages.core.errors import UserError
from stages.core.files import sha256_of
from stages.core.stage import run_stage
from stages.training.batches import examples_fingerprint, split_examples
from stages.training.full_model import join_head
from stages.training.optimizers import learning_rate_factors
from stages.training.repeats import BuiltModel, save_model, train_repeats
from stages.validation.study import Study


def main(study: Study, name: str) -> str:
    entry = study.fine_tunes[name]
    settings = entry.training(study.training)
    images, task = read_images(entry.dataset), read_task(entry.task)
    features, head_record = read_all_features(entry.features), read_model_record(entry.head)
    head_entry = study.heads[entry.head]
    weights = read_weights_record(entry.backbone)
    task.check_images(images.sha256, f"data/images/{entry.dataset}")
    task.check_images(features[0].record.images_sha256, f"data/features/{entry.features}")
    for what, sha256 in (("features", features[0].record.weights_sha256), ("head", head_record.weights_sha256)):
        if sha256 != weights.sha256:
            raise UserError(
                f"fine_tunes.{name}.{what}: {getattr(entry, what)!r} was made with other weights of {entry.backbone!r} "
                "than there are now; run `dvc repro`."
            )
    start = start_of(entry, features, weights.architecture, head_record.cut)
    strength = next((each.l2 for each in head_record.candidates if each.chosen), head_entry.strengths[0])

    def build(l2: float) -> BuiltModel:
        whole, factors = join(entry, head_entry, head_record, images.pixels.shape[1], len(task.classes), l2)
        trained = above_cut(whole, start.record.cut) if start else with_augmentation(whole, entry.augmentation)
        return BuiltModel(whole, trained, factors)

    origin = Provenance(
        kind="fine-tune",
        task=entry.task,
        backbone=entry.backbone,
        weights_sha256=weights.sha256,
        cut=head_record.cut,
        pooling=head_record.pooling,
    )
    if start:
        array, positions = start.array, lambda rows: start.positions(rows, f"task {task.name!r}")
    else:
        array, positions = images.pixels, lambda rows: rows
    examples = split_examples(task, array, positions, settings)
    fingerprint = [
        entry.model_dump(),
        settings.model_dump(),
        study.seed,
        asdict(head_record),
        sha256_of(MODELS_FOLDER / f"{entry.head}.weights.h5"),
        images.sha256,
        examples_fingerprint(examples),
    ]
    candidates = [(settings, 0.0 if head_entry.kind == "ridge" else strength)]
    whole, result = train_repeats(name, build, candidates, examples, examples["train"], study.seed, origin, fingerprint)
    return f"{save_model(name, whole, result)}, from {f'features {entry.features!r}' if start else 'images'}"


def start_of(
    entry: FineTuneConfig, features: list[CachedFeatures], architecture: str, cut: str
) -> CachedFeatures | None:
    """The cached features that training starts from: of the highest cut below the trained layers; or None.

    cut: of the head.
    """
    if entry.augmentation:
        return None
    lowest = lowest_trained_layer(architecture, entry.unfreeze, cut)
    layers = layers_of(architecture)
    fitting = [each for each in features if can_start_from(each.record.cut, each.record.pooling, layers, lowest)]
    return max(fitting, key=lambda each: list(layers).index(each.record.cut), default=None)


def join(
    entry: FineTuneConfig, head_entry: HeadConfig, head: ModelRecord, image_size: int, classes: int, l2: float = 0.0
) -> tuple[keras.Model, dict[str, float]]:
    """The backbone up to the cut of the head, and the trained head on it; frozen below `entry.unfreeze`.

    Returns a model from uint8 images (n, image_size, image_size, 3) to probabilities (n, classes), and the factors of
    its learning rates.
    """
    backbone, weights = load_backbone(entry.backbone, image_size)
    lower = up_to_cut(backbone, head.cut, head.pooling)
    file = MODELS_FOLDER / f"{entry.head}.weights.h5"
    whole, upper = join_head(entry.head, head_entry, file, lower, weights.architecture, head.cut, classes, l2)
    freeze_below(backbone, lowest_trained_layer(weights.architecture, entry.unfreeze, head.cut))
    if not entry.train_batch_normalization:
        freeze_batch_normalization(backbone)
        freeze_batch_normalization(upper)
    factors = learning_rate_factors(lower.layers, entry.layer_decay)
    return whole, factors


if __name__ == "__main__":
    run_stage(main, "fine_tunes")
