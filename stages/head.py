"""Trains a head on cached features, or solves it: models/<head>."""

from dataclasses import asdict, replace

from stages.artifacts.features import read_features
from stages.artifacts.models import Provenance
from stages.artifacts.tasks import read_task
from stages.core.stage import run_stage
from stages.probes.standardization import channel_statistics
from stages.training.batches import examples_fingerprint, split_examples
from stages.training.heads import build_head, set_statistics
from stages.training.pca import project_features
from stages.training.repeats import BuiltModel, save_model, train_repeats
from stages.training.solving import solve_head
from stages.validation.study import Study


def main(study: Study, name: str) -> str:
    entry = study.heads[name]
    candidates = entry.candidates(study.training)
    settings, _ = candidates[0]
    task, features = read_task(entry.task), read_features(entry.features, entry.cut)
    record = features.record
    task.check_images(record.images_sha256, f"data/features/{entry.features}")
    origin = Provenance(
        kind="head",
        task=entry.task,
        backbone=record.backbone,
        weights_sha256=record.weights_sha256,
        cut=record.cut,
        pooling=record.pooling,
        parameters_below=record.parameters,
        features_precision=record.precision,
    )
    examples = split_examples(
        task, features.array, lambda rows: features.positions(rows, f"task {task.name!r}"), settings
    )
    views = len(record.views) + 1
    shown = examples["train"].with_views(min(entry.views or views, views), record.images)
    statistics = channel_statistics(features.array, examples["train"].rows) if entry.standardized else None

    def build(l2: float = 0.0) -> BuiltModel:
        head = build_head(
            entry,
            len(task.classes),
            record.shape,
            record.architecture,
            record.image_size,
            record.cut,
            l2,
            features.folder / "above.weights.h5",
        )
        if statistics:
            set_statistics(head, *statistics)
        return BuiltModel(head, head)

    if entry.kind == "ridge":
        head, result = solve_head(
            name, lambda: build().whole, entry.strengths, examples, shown, statistics, settings, origin
        )
    else:
        fingerprint = [
            entry.model_dump(),
            settings.model_dump(),
            study.seed,
            asdict(record),
            examples_fingerprint(examples),
        ]
        head, result = train_repeats(name, build, candidates, examples, shown, study.seed, origin, fingerprint)
    result = replace(result, feature_map=project_features(examples["validation"], study.seed))
    return save_model(name, head, result)


if __name__ == "__main__":
    run_stage(main, "heads")
