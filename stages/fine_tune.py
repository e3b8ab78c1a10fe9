"""Joins a trained head to its backbone and trains both on, from layer `unfreeze` upward: models/<fine-tune>.

Where the cached features of the entry lie below `unfreeze`, training starts from them and the frozen layers are not
run again; else it starts from the images. Both train the same model.
"""

import keras

from stages.base.command import run_stage
from stages.base.errors import UserError
from stages.data.features import read_features
from stages.data.images import read_images
from stages.data.results import FOLDER, ModelRecord, Origin, read_record
from stages.data.tasks import read_task
from stages.data.weights import read_weights_record
from stages.networks.cuts import above, below, freeze_batch_normalization, freeze_below
from stages.networks.heads import build_head
from stages.networks.pretrained import load_backbone, load_weights
from stages.study import Study
from stages.study.architectures import layers_of
from stages.study.references import starts_below
from stages.study.schema import FineTune, Head
from stages.training.batches import examples_of
from stages.training.repeats import Built, save_model, train_repeats


def main(study: Study, name: str) -> str:
    entry = study.fine_tunes[name]
    settings = entry.training(study.training)
    images, task = read_images(entry.dataset), read_task(entry.task)
    features, head = read_features(entry.features), read_record(entry.head)
    weights = read_weights_record(entry.backbone)
    task.check_images(images.sha256, f"data/images/{entry.dataset}")
    task.check_images(features.record.images_sha256, f"data/features/{entry.features}")
    for what, sha256 in (("features", features.record.weights_sha256), ("head", head.weights_sha256)):
        if sha256 != weights.sha256:
            raise UserError(
                f"fine_tunes.{name}.{what}: {getattr(entry, what)!r} was made with other weights of {entry.backbone!r} "
                "than there are now; run `dvc repro`."
            )
    from_features = starts_below(features.record, layers_of(weights.architecture), entry.unfreeze)
    image_size = images.pixels.shape[1]

    def build() -> Built:
        whole = join(entry, study.heads[entry.head], head, image_size, len(task.classes))
        return Built(whole, above(whole, features.record.cut) if from_features else whole)

    origin = Origin(
        kind="fine-tune",
        task=entry.task,
        backbone=entry.backbone,
        weights_sha256=weights.sha256,
        cut=head.cut,
        pooling=head.pooling,
    )
    if from_features:
        array, positions = features.array, lambda rows: features.positions(rows, f"task {task.name!r}")
    else:
        array, positions = images.pixels, lambda rows: rows
    examples = examples_of(task, array, positions, settings.max_train_per_class)
    whole, result = train_repeats(name, build, examples, settings, study.seed, origin)
    start = f"features {entry.features!r}" if from_features else "images"
    return f"{save_model(name, whole, result)}, from {start}"


def join(entry: FineTune, head_entry: Head, head: ModelRecord, image_size: int, classes: int) -> keras.Model:
    """The backbone up to the cut of the head, and the trained head on it; frozen below `entry.unfreeze`.

    Returns a model from uint8 images (n, image_size, image_size, 3) to probabilities (n, classes).
    """
    backbone, weights = load_backbone(entry.backbone, image_size)
    lower = below(backbone, head.cut, head.pooling)
    shape = list(lower.output.shape[1:])
    upper = build_head(head_entry, classes, shape, weights.architecture, image_size, head.cut)
    load_weights(upper, FOLDER / f"{entry.head}.weights.h5", f"heads.{entry.head}")
    freeze_below(backbone, entry.unfreeze)
    freeze_batch_normalization(backbone)
    return keras.Model(lower.input, upper(lower.output), name="fine_tune")


if __name__ == "__main__":
    run_stage(main, "fine_tunes")
