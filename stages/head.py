"""Trains a head on cached features: models/<head>."""

from stages.base.command import run_stage
from stages.data.features import read_features
from stages.data.results import Origin
from stages.data.tasks import read_task
from stages.networks.heads import build_head
from stages.study import Study
from stages.training.batches import examples_of
from stages.training.repeats import Built, save_model, train_repeats


def main(study: Study, name: str) -> str:
    entry = study.heads[name]
    settings = entry.training(study.training)
    task, features = read_task(entry.task), read_features(entry.features)
    record = features.record
    task.check_images(record.images_sha256, f"data/features/{entry.features}")

    def build() -> Built:
        head = build_head(
            entry,
            len(task.classes),
            record.shape,
            record.architecture,
            record.image_size,
            record.cut,
            features.folder / "above.weights.h5",
        )
        return Built(head, head)

    origin = Origin(
        kind="head",
        task=entry.task,
        backbone=record.backbone,
        weights_sha256=record.weights_sha256,
        cut=record.cut,
        pooling=record.pooling,
        parameters_below=record.parameters,
    )
    examples = examples_of(
        task,
        features.array,
        lambda rows: features.positions(rows, f"task {task.name!r}"),
        settings.max_train_per_class,
    )
    head, result = train_repeats(name, build, examples, settings, study.seed, origin)
    return save_model(name, head, result)


if __name__ == "__main__":
    run_stage(main, "heads")
