"""Trains a head on cached features: models/<head>."""

from dataclasses import replace

from stages.artifacts.features import FEATURES_FOLDER
from stages.artifacts.models import Provenance
from stages.artifacts.seen_images import read_seen_images
from stages.artifacts.tasks import read_task
from stages.backbones.cached_features import read_features
from stages.backbones.layer_names import bypassed_cut
from stages.backbones.layer_table import layers_of
from stages.config.heads import HeadConfig
from stages.config.parsing import model_settings, parse_entry, parse_training
from stages.core.errors import UserError
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.probes.standardization import channel_statistics
from stages.splitting.leaks import clean_folds
from stages.training.batches import repeat_folds, split_examples
from stages.training.heads import build_head, set_statistics
from stages.training.pca import project_features
from stages.training.repeats import save_model, train_repeats
from stages.training.specification import BuiltModel, ModelDescription, TrainingData, TrainingSpec


def main(params: Params, name: str) -> str:
    entry = parse_entry(params, "heads", name, HeadConfig)
    settings = parse_training(params, entry)
    task, features = read_task(entry.task), read_features(entry.features, entry.cut)
    features.check_images(task)
    record = features.record
    if entry.start_from == "backbone":  # the check does not know the layers of every preset
        layers = layers_of(record.architecture, record.preset)
        if problem := bypassed_cut(f"heads.{name}", entry.features, record.cut, layers, record.architecture):
            raise UserError(problem)
    clean = clean_folds(task, read_seen_images(FEATURES_FOLDER / entry.features), f"heads.{name}")
    folds = repeat_folds(clean, settings.repeats)
    data, statistics = {}, {}
    for fold in folds:
        examples = split_examples(task, features.array, features.positions, settings, fold)
        train_views = examples["train"].with_views(record.views_used(entry.views), record.images)
        data[fold] = TrainingData(examples, train_views)
        if entry.standardized:
            statistics[fold] = channel_statistics(features.array, examples["train"].rows)

    def build(repeat: int, l2: float) -> BuiltModel:
        head = build_head(entry, record, len(task.classes), l2, features.folder / "above.weights.h5")
        if entry.standardized:
            set_statistics(head, *statistics[folds[repeat]])
        return BuiltModel(head, head)

    description = ModelDescription(
        name=name,
        kind="head",
        task=entry.task,
        dataset=task.dataset,
        classes=task.classes,
        image_size=record.image_size,
        resize=record.resize,
        bits=record.bits,
        settings=model_settings(entry),
        seed=params.seed,
        provenance=Provenance.on_features(task, record),
        parameters_below=record.parameters,
        multiply_adds_below=record.multiply_adds,
    )
    trained = train_repeats(
        TrainingSpec(description, entry.candidates(settings), folds, shares_start=not entry.hidden), build, data
    )
    pca = project_features(data[folds[0]].examples["validation"], params.seed)
    return save_model(replace(trained, result=replace(trained.result, pca=pca)))


if __name__ == "__main__":
    run_stage(main, "heads")
