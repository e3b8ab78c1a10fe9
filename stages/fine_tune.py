"""Joins a trained head to its backbone and trains both on, from layer `unfreeze` upward: models/<fine-tune>.

Where the cached features of the entry lie below `unfreeze`, training starts from them and the frozen layers are not
run again; else it starts from the images. Both train the same model.
"""

from dataclasses import asdict

import keras

from stages.base.command import run_stage
from stages.base.errors import UserError
from stages.base.files import sha256_of
from stages.data.features import Features, read_all_features
from stages.data.images import read_images
from stages.data.results import FOLDER, ModelRecord, Origin, read_record
from stages.data.tasks import read_task
from stages.data.weights import read_weights_record
from stages.networks.augmentation import augmented
from stages.networks.cuts import above, below, freeze_batch_normalization, freeze_below
from stages.networks.pretrained import load_backbone
from stages.networks.whole import join_head
from stages.study import Study
from stages.study.architectures import layers_of
from stages.study.references import lowest_trained, starts_below
from stages.study.schema import FineTune, Head
from stages.training.batches import content_of, examples_of
from stages.training.compiling import layer_factors
from stages.training.repeats import Built, save_model, train_repeats


def main(study: Study, name: str) -> str:
    entry = study.fine_tunes[name]
    settings = entry.training(study.training)
    images, task = read_images(entry.dataset), read_task(entry.task)
    features, head_record = read_all_features(entry.features), read_record(entry.head)
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

    def build(l2: float) -> Built:
        whole, factors = join(entry, head_entry, head_record, images.pixels.shape[1], len(task.classes), l2)
        trained = above(whole, start.record.cut) if start else augmented(whole, entry.augmentation)
        return Built(whole, trained, factors)

    origin = Origin(
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
    examples = examples_of(task, array, positions, settings)
    made_of = [
        entry.model_dump(),
        settings.model_dump(),
        study.seed,
        asdict(head_record),
        sha256_of(FOLDER / f"{entry.head}.weights.h5"),
        images.sha256,
        content_of(examples),
    ]
    candidates = [(settings, 0.0 if head_entry.kind == "ridge" else strength)]
    whole, result = train_repeats(name, build, candidates, examples, examples["train"], study.seed, origin, made_of)
    return f"{save_model(name, whole, result)}, from {f'features {entry.features!r}' if start else 'images'}"


def start_of(entry: FineTune, features: list[Features], architecture: str, cut: str) -> Features | None:
    """The cached features that training starts from: of the highest cut below the trained layers; or None.

    cut: of the head.
    """
    if entry.augmentation:
        return None
    lowest = lowest_trained(architecture, entry.unfreeze, cut)
    layers = layers_of(architecture)
    fitting = [each for each in features if starts_below(each.record.cut, each.record.pooling, layers, lowest)]
    return max(fitting, key=lambda each: list(layers).index(each.record.cut), default=None)


def join(
    entry: FineTune, head_entry: Head, head: ModelRecord, image_size: int, classes: int, l2: float = 0.0
) -> tuple[keras.Model, dict[str, float]]:
    """The backbone up to the cut of the head, and the trained head on it; frozen below `entry.unfreeze`.

    Returns a model from uint8 images (n, image_size, image_size, 3) to probabilities (n, classes), and the factors of
    its learning rates.
    """
    backbone, weights = load_backbone(entry.backbone, image_size)
    lower = below(backbone, head.cut, head.pooling)
    file = FOLDER / f"{entry.head}.weights.h5"
    whole, upper = join_head(entry.head, head_entry, file, lower, weights.architecture, head.cut, classes, l2)
    freeze_below(backbone, lowest_trained(weights.architecture, entry.unfreeze, head.cut))
    if not entry.train_batch_normalization:
        freeze_batch_normalization(backbone)
        freeze_batch_normalization(upper)
    factors = layer_factors(lower.layers, entry.layer_decay)
    return whole, factors


if __name__ == "__main__":
    run_stage(main, "fine_tunes")
