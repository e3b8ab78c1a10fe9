"""Trains a head on cached features: models/<head>."""

from dataclasses import replace

from stages.artifacts.models import Provenance
from stages.artifacts.tasks import read_task
from stages.backbones.cached_features import read_features
from stages.config.heads import HeadConfig
from stages.config.parsing import model_settings, parse_entry, parse_training
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.probes.standardization import channel_statistics
from stages.training.batches import examples_fingerprint, split_examples
from stages.training.heads import build_head, set_statistics
from stages.training.pca import project_features
from stages.training.repeats import BuiltModel, ModelDescription, TrainingSpec, save_model, train_repeats


def main(params: Params, name: str) -> str:
    entry = parse_entry(params, "heads", name, HeadConfig)
    settings = parse_training(params, entry)
    task, features = read_task(entry.task), read_features(entry.features, entry.cut)
    features.check_images(task)
    record = features.record
    examples = split_examples(task, features.array, features.positions, settings)
    train_views = examples["train"].with_views(record.views_used(entry.views), record.images)
    statistics = channel_statistics(features.array, examples["train"].rows) if entry.standardized else None

    def build(l2: float) -> BuiltModel:
        head = build_head(entry, record, len(task.classes), l2, features.folder / "above.weights.h5")
        if statistics:
            set_statistics(head, *statistics)
        return BuiltModel(head, head)

    description = ModelDescription(
        name=name,
        kind="head",
        task=entry.task,
        dataset=task.dataset,
        classes=task.classes,
        image_size=record.image_size,
        resize=record.resize,
        settings=model_settings(entry),
        seed=params.seed,
        provenance=Provenance.on_features(task, record),
        parameters_below=record.parameters,
        multiply_adds_below=record.multiply_adds,
    )
    spec = TrainingSpec(description, entry.candidates(settings), examples_fingerprint(examples))
    head, result = train_repeats(spec, build, examples, train_views)
    return save_model(head, replace(result, pca=project_features(examples["validation"], params.seed)))


if __name__ == "__main__":
    run_stage(main, "heads")
