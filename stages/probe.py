"""Solves a probe on cached features: models/<probe>. Needs no deep-learning framework."""

import time

import numpy as np
import pandas as pd

from stages.artifacts.costs import Cost
from stages.artifacts.models import ModelRecord, ModelResult, Predictions, Provenance, cross_entropy, write_model
from stages.artifacts.tasks import read_task
from stages.backbones.cached_features import read_features
from stages.config.parsing import model_settings, parse_entry, parse_training
from stages.config.probes import ProbeConfig
from stages.core.errors import UserError
from stages.core.measurement import process_peak_memory
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.probes.ridge import LARGEST_MATRIX, solve_ridge, solving_multiply_adds
from stages.probes.selection import accuracy, choose_probe
from stages.probes.speed import measure_inference
from stages.probes.standardization import StandardizedFeatures, channel_statistics
from stages.probes.weights import ProbeWeights, write_probe
from stages.training.batches import Examples, class_weights, split_examples
from stages.training.calibration import fit_temperature
from stages.training.pca import project_features

# The keys of section `training` that decide what a probe is solved on.
TRAINING_KEYS = ("max_train_per_class", "train_fraction", "class_weights")


def main(params: Params, name: str) -> str:
    entry = parse_entry(params, "probes", name, ProbeConfig)
    settings = parse_training(params, entry)
    task, features = read_task(entry.task), read_features(entry.features, entry.cut)
    features.check_images(task)
    examples = split_examples(task, features.array, features.positions, settings)
    views = features.record.views_used(entry.views)
    train_views, validation = examples["train"].with_views(views, features.record.images), examples["validation"]
    check_size(name, train_views)

    start = time.perf_counter()
    standardized = StandardizedFeatures(features.array, *channel_statistics(features.array, examples["train"].rows))
    weights = np.ones(len(train_views.rows))
    if settings.class_weights == "balanced":
        weights = class_weights(train_views.labels).astype(np.float64)
    solutions = solve_ridge(standardized, train_views.rows, train_views.targets(), weights, entry.strengths)
    probe, candidates = choose_probe(solutions, standardized, validation.rows, validation.labels)
    probabilities = {split: probe.probabilities(standardized, part.rows) for split, part in examples.items()}
    seconds, peak_memory = time.perf_counter() - start, process_peak_memory()
    inference = measure_inference(probe, standardized, validation.rows)

    stored = ProbeWeights(standardized.mean, standardized.variance, probe.kernel, probe.bias)
    solved = probe.kernel.size + probe.bias.size
    record = ModelRecord(
        name=name,
        kind="probe",
        task=entry.task,
        dataset=task.dataset,
        classes=task.classes,
        image_size=features.record.image_size,
        resize=features.record.resize,
        settings=model_settings(entry),
        training={key: getattr(settings, key) for key in TRAINING_KEYS},
        seed=params.seed,
        fold=0,
        provenance=Provenance.on_features(task, features.record),
        train_images=len(examples["train"].rows),
        repeats=1,
        best_repeat=0,
        epochs=[1],
        trained_parameters=solved,
        total_parameters=features.record.parameters + solved + stored.mean.size + stored.variance.size,
        multiply_adds=features.record.multiply_adds + probe.kernel.size,
        training_multiply_adds=solving_multiply_adds(len(train_views.rows), len(probe.kernel)),
        temperature=fit_temperature([(probabilities["validation"], validation.labels)], len(validation.labels)),
        candidates=candidates,
    )
    result = ModelResult(
        record=record,
        cost=Cost.measured(seconds, len(train_views.rows) / seconds, peak_memory, inference),
        history=history_of(probabilities, examples),
        predictions={split: Predictions(examples[split].index, part[None]) for split, part in probabilities.items()},
        pca=project_features(validation, params.seed),
    )
    write_model(result, lambda path: write_probe(path, stored))
    return (
        f"l2 {probe.l2:g} of {len(solutions)}, {seconds:.1f} s, validation accuracy "
        f"{accuracy(probabilities['validation'], validation.labels):.1%}"
    )


def check_size(name: str, train_views: Examples) -> None:
    """Refuse a probe whose matrix would not fit into memory."""
    size = min(int(np.prod(train_views.array.shape[1:])), len(train_views.rows))
    if size > LARGEST_MATRIX:
        raise UserError(
            f"probes.{name}: ridge regression needs a matrix of {size} x {size}; the limit is {LARGEST_MATRIX} rows "
            "(2 GiB). Pool the features (pooling: average), or set max_train_per_class."
        )


def history_of(probabilities: dict[str, np.ndarray], examples: dict[str, Examples]) -> pd.DataFrame:
    """The history of a model that is solved: one epoch."""
    row = {"repeat": 0, "epoch": 1}
    for split in ("train", "validation"):
        row[f"{split}_loss"] = cross_entropy(probabilities[split], examples[split].labels)
        row[f"{split}_accuracy"] = accuracy(probabilities[split], examples[split].labels)
    return pd.DataFrame([row])


if __name__ == "__main__":
    run_stage(main, "probes")
