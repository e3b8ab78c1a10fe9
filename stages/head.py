"""Trains a head on cached features, or solves it: models/<head>."""

from dataclasses import asdict, replace

from stages.base.command import run_stage
from stages.data.features import read_features
from stages.data.results import Origin
from stages.data.tasks import read_task
from stages.networks.heads import build_head, channel_statistics, set_statistics
from stages.study import Study
from stages.training.batches import content_of, examples_of
from stages.training.maps import map_features
from stages.training.repeats import Built, save_model, train_repeats
from stages.training.solving import solve_head


def main(study: Study, name: str) -> str:
    entry = study.heads[name]
    candidates = entry.candidates(study.training)
    settings, _ = candidates[0]
    task, features = read_task(entry.task), read_features(entry.features, entry.cut)
    record = features.record
    task.check_images(record.images_sha256, f"data/features/{entry.features}")
    origin = Origin(
        kind="head",
        task=entry.task,
        backbone=record.backbone,
        weights_sha256=record.weights_sha256,
        cut=record.cut,
        pooling=record.pooling,
        parameters_below=record.parameters,
        features_precision=record.precision,
    )
    examples = examples_of(task, features.array, lambda rows: features.positions(rows, f"task {task.name!r}"), settings)
    views = len(record.views) + 1
    shown = examples["train"].with_views(min(entry.views or views, views), record.images)
    statistics = channel_statistics(features.array, examples["train"].rows) if entry.standardised else None

    def build(l2: float = 0.0) -> Built:
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
        return Built(head, head)

    if entry.kind == "ridge":
        head, result = solve_head(
            name, lambda: build().whole, entry.strengths, examples, shown, statistics, settings, origin
        )
    else:
        made_of = [entry.model_dump(), settings.model_dump(), study.seed, asdict(record), content_of(examples)]
        head, result = train_repeats(name, build, candidates, examples, shown, study.seed, origin, made_of)
    result = replace(result, feature_map=map_features(examples["validation"], study.seed))
    return save_model(name, head, result)


if __name__ == "__main__":
    run_stage(main, "heads")
