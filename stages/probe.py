"""Solves a probe on cached features: models/<probe>. Needs no deep-learning framework."""

import numpy as np
import pandas as pd

from stages.artifacts.costs import Cost
from stages.artifacts.features import FEATURES_FOLDER
from stages.artifacts.models import ModelRecord, ModelResult, Predictions, Provenance, write_model
from stages.artifacts.seen_images import read_seen_images
from stages.artifacts.tasks import SPLITS, read_task
from stages.backbones.cached_features import read_joined_features
from stages.config.parsing import model_settings, parse_entry, parse_training
from stages.config.probes import ProbeConfig
from stages.core.measurement import process_peak_memory
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.probes.speed import measure_inference
from stages.probes.weights import write_probe
from stages.splitting.leaks import clean_folds
from stages.training.batches import repeat_folds, split_examples
from stages.training.calibration import fit_temperature
from stages.training.pca import project_features
from stages.training.probe_repeats import SolvedProbe, check_neighbors, check_size, history_of, solve_probe

# The keys of section `training` that decide what a probe is solved on.
TRAINING_KEYS = ("max_train_per_class", "train_fraction", "class_weights")


def main(params: Params, name: str) -> str:
    entry = parse_entry(params, "probes", name, ProbeConfig)
    settings = parse_training(params, entry)
    task, features = read_task(entry.task), read_joined_features(entry.features, entry.cuts, f"probes.{name}.cut")
    features.check_images(task)
    clean = clean_folds(task, read_seen_images(FEATURES_FOLDER / entry.features), f"probes.{name}")
    folds = repeat_folds(clean, min(settings.repeats, len(clean)))  # a second solution for a fold would be the same
    parts = [split_examples(task, features.array, features.positions, settings, fold) for fold in folds]
    views = features.record.views_used(entry.views)
    check_size(name, entry.kind, parts[0]["train"].with_views(views, features.record.images))

    check_neighbors(name, entry, [part["train"].with_views(views, features.record.images) for part in parts])

    solved: list[SolvedProbe] = []
    for examples in parts:  # it is chosen in the first repeat, as heads choose their settings
        choices = [solved[0].choice] if solved else entry.choices
        solved.append(solve_probe(entry, features, examples, choices, settings.class_weights == "balanced"))
    memory, weights = process_peak_memory(), solved[0].weights
    record = ModelRecord(
        name=name,
        kind="probe",
        task=entry.task,
        dataset=task.dataset,
        classes=task.classes,
        image_size=features.record.image_size,
        resize=features.record.resize,
        bits=features.record.bits,
        settings=model_settings(entry),
        training={key: getattr(settings, key) for key in TRAINING_KEYS},
        seed=params.seed,
        provenance=Provenance.on_features(task, features.record),
        repeats=len(folds),
        folds=folds,
        best_repeat=0,  # repeats differ in their folds only, which says nothing about the weights
        train_images=len(parts[0]["train"].rows),
        epochs=[1] * len(folds),
        trained_parameters=weights.parameters,
        total_parameters=features.record.parameters + weights.parameters + weights.mean.size + weights.variance.size,
        multiply_adds=features.record.multiply_adds + weights.multiply_adds,
        training_multiply_adds=sum(repeat.multiply_adds for repeat in solved) // len(solved),
        temperature=fit_temperature(
            [
                (repeat.probabilities["validation"], examples["validation"].labels)
                for repeat, examples in zip(solved, parts, strict=True)
            ],
            sum(len(examples["validation"].rows) for examples in parts),
        ),
        candidates=solved[0].candidates,
    )
    seconds = sum(repeat.seconds for repeat in solved)
    images = views * sum(len(examples["train"].rows) for examples in parts)
    histories = [history_of(repeat, part) for repeat, part in zip(solved, parts, strict=True)]
    result = ModelResult(
        record=record,
        cost=Cost.measured(
            seconds / len(solved),
            images / seconds,
            memory,
            measure_inference(solved[0].probe, solved[0].features, parts[0]["validation"].rows),
        ),
        history=pd.DataFrame([{"repeat": number, "epoch": 1, **row} for number, row in enumerate(histories)]),
        predictions={
            split: Predictions.of_repeats(
                [examples[split].index for examples in parts], [repeat.probabilities[split] for repeat in solved]
            )
            for split in SPLITS
        },
        pca=project_features(parts[0]["validation"], params.seed),
    )
    write_model(result, lambda repeat, path: write_probe(path, solved[repeat].weights))
    validation_accuracy = np.mean([row["validation_accuracy"] for row in histories])
    setting = "neighbors" if entry.kind == "nearest_neighbors" else "l2"
    return (
        f"{len(folds)} x {setting} {solved[0].choice:g} of {len(entry.choices)}, {result.cost.seconds:.1f} s each, "
        f"validation accuracy {validation_accuracy:.1%}"
    )


if __name__ == "__main__":
    run_stage(main, "probes")
