"""Joins a trained head to its backbone and trains both on: models/<fine-tune>.

Of the backbone, the layers from `unfreeze` upward are trained, or the few weights of a `tuning`. If a cut layer of the
cached features is below `unfreeze`, training starts from the features and does not run the frozen layers again.
Otherwise it starts from the images. Both train the same model.
"""

from stages.artifacts.features import read_all_features
from stages.artifacts.images import read_images
from stages.artifacts.models import HeadProvenance, ModelRecord, Provenance, read_model_record
from stages.artifacts.tasks import read_task
from stages.artifacts.weights import WeightsRecord, read_weights_record
from stages.backbones.augmentation import with_augmentation
from stages.backbones.cached_features import starting_features
from stages.backbones.cuts import above_cut, freeze_batch_normalization, freeze_below, up_to_cut
from stages.backbones.layer_names import first_trained_layer
from stages.backbones.layer_table import layers_of
from stages.backbones.pooling import prefix_tokens
from stages.backbones.pretrained import load_backbone
from stages.backbones.tuning import tune
from stages.config.fine_tunes import FineTuneConfig
from stages.config.parsing import model_settings, parse_entry, parse_training
from stages.core.errors import UserError
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.training.batches import repeat_folds, split_examples
from stages.training.full_model import join_head, load_head
from stages.training.optimizers import learning_rate_factors
from stages.training.repeats import save_model, train_repeats
from stages.training.specification import BuiltModel, ModelDescription, TrainingData, TrainingSpec


def main(params: Params, name: str) -> str:
    entry = parse_entry(params, "fine_tunes", name, FineTuneConfig)
    settings = parse_training(params, entry)
    images, task = read_images(entry.dataset), read_task(entry.task)
    task.check_images(images.sha256, f"data/images/{entry.dataset}")
    features = read_all_features(entry.features)
    features[0].check_images(task)
    head_record, weights = read_model_record(entry.head), read_weights_record(entry.backbone)
    check_weights(name, entry, weights, features[0].record.weights_sha256, head_record)
    head = HeadProvenance.of(head_record)
    cut, pooling = head.features.cut, head.features.pooling
    layers, where = layers_of(weights.architecture, weights.preset), f"fine_tunes.{name}"
    lowest_trained = first_trained_layer(
        layers, entry.unfreeze or "all", cut, f"{where}.unfreeze", weights.architecture
    )
    other = f"{where}.features" if entry.features != head.features.name else None
    start = None if entry.augmentation else starting_features(features, lowest_trained, other)

    def build(repeat: int, l2: float) -> BuiltModel:
        backbone, _ = load_backbone(entry.backbone, images.image_size)
        lower = up_to_cut(backbone, cut, pooling, prefix_tokens(weights.preset))
        upper = load_head(head, repeat % head_record.repeats, len(task.classes), l2)
        model = join_head(name, upper, lower)
        if not entry.train_batch_normalization:
            freeze_batch_normalization(backbone)
            freeze_batch_normalization(upper)
        if entry.tuning:
            tune(lower, entry.tuning, entry.rank, f"{where}.tuning")
        else:
            freeze_below(backbone, lowest_trained)
        factors = learning_rate_factors(lower.layers, entry.layer_decay)
        trained = above_cut(model, start.record.cut) if start else with_augmentation(model, entry.augmentation)
        return BuiltModel(model, trained, factors, is_tuned=bool(entry.tuning))

    description = ModelDescription(
        name=name,
        kind="fine-tune",
        task=entry.task,
        dataset=entry.dataset,
        classes=task.classes,
        image_size=images.image_size,
        resize=images.resize,
        bits=images.bits,
        settings=model_settings(entry),
        seed=params.seed,
        provenance=Provenance(
            images_sha256=images.sha256,
            task_settings=task.settings,
            backbone=entry.backbone,
            architecture=weights.architecture,
            backbone_sha256=weights.sha256,
            cut=cut,
            pooling=pooling,
            lowest_trained_layer=lowest_trained,
            features=start.record if start else None,
            head=head,
            preset=weights.preset,
        ),
    )
    # The folds of the head's repeats, so that no validation image was trained on by the head, nor by networks below it.
    folds = repeat_folds(head.folds, settings.repeats)
    array, positions = (start.array, start.positions) if start else (images.pixels, lambda rows: rows)
    data = {}
    for fold in folds:
        examples = split_examples(task, array, positions, settings, fold)
        data[fold] = TrainingData(examples, examples["train"])
    shares_start = head_record.repeats == 1 or not head.settings.get("hidden")
    spec = TrainingSpec(description, [(settings, head_record.l2)], folds, shares_start)
    trained = train_repeats(spec, build, data)
    return f"{save_model(trained)}, from {f'features {entry.features!r}' if start else 'images'}"


def check_weights(
    name: str, entry: FineTuneConfig, weights: WeightsRecord, features_sha256: str, head: ModelRecord
) -> None:
    """Refuse features, or a head, that were made with other weights of the backbone."""
    for key, sha256 in (("features", features_sha256), ("head", head.provenance.backbone_sha256)):
        if sha256 != weights.sha256:
            raise UserError(
                f"fine_tunes.{name}.{key}: {getattr(entry, key)!r} was made with other weights of backbone "
                f"{entry.backbone!r}. Run `dvc repro`."
            )


if __name__ == "__main__":
    run_stage(main, "fine_tunes")
