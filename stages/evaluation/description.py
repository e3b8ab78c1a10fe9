"""Facts about the tasks and models of a study that the report states beside their metrics."""

from typing import Any

import numpy as np
import pandas as pd

from stages.artifacts.tasks import SPLITS
from stages.evaluation.candidates import describe_candidates
from stages.evaluation.costs import lineage, pareto_front
from stages.evaluation.ensembles import combined_repeats
from stages.evaluation.learning_curves import AMOUNT
from stages.evaluation.study_results import StudyResults
from stages.splitting.summary import summary_sentences

# Those that are the same on every machine.
PARETO_COSTS = ("total_training_multiply_adds", "multiply_adds")


def describe_study(study: StudyResults, metrics: dict[str, Any]) -> dict[str, Any]:
    """The content of reports/study.json; metrics: model -> its part of metrics.json."""
    return {
        "tasks": {name: _describe_task(study, name, metrics) for name in study.tasks},
        "models": {model: _describe_model(study, model) for model in study.results},
    }


def _describe_task(study: StudyResults, name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """images: split -> the number of images of each class. notes: sentences. pareto_fronts: cost -> models.

    The validation images are those of all folds on which the models are compared. The train images are those of fold 0,
    as many as any repeat can use.
    """
    task, models = study.tasks[name], study.models(name)
    rows = {split: task.rows(split) for split in SPLITS}
    rows["validation"] = pd.concat([task.rows("validation", fold=fold) for fold in study.compared(name).folds])
    task_metrics = {model: metrics[model] for model in models}
    candidates = {model: study.results[model].record.candidates for model in models}
    return {
        "dataset": task.dataset,
        "models": models,
        "classes": task.classes,
        "images": {split: np.bincount(rows[split]["label"], minlength=len(task.classes)).tolist() for split in SPLITS},
        "notes": [
            *summary_sentences(task.summary, task.name, task.dataset),
            *(describe_candidates(model, tried) for model, tried in candidates.items() if len(tried) > 1),
        ],
        "pareto_fronts": {cost: pareto_front(task_metrics, cost) for cost in PARETO_COSTS},
        "combined_repeats": combined_repeats(study, models, metrics),
        "first_unreadable": task.summary.first_unreadable,
    }


def _describe_model(study: StudyResults, model: str) -> dict[str, Any]:
    """built_on: names of models and features. accuracies: split -> that of each repeat. folds: of each repeat.

    limits: the settings by which the model is trained on fewer images.
    """
    result = study.results[model]
    record = result.record
    return {
        "kind": record.kind,
        "task": record.task,
        "backbone": record.provenance.backbone,
        "cut": " + ".join(record.provenance.cuts),
        "best_repeat": record.best_repeat,
        "folds": record.folds,
        "limits": {key: record.training[key] for key in sorted(AMOUNT) if record.training.get(key) is not None},
        "built_on": lineage(model, study.records).ancestors,
        "machine": result.cost.machine,
        "accuracies": {split: part.accuracies for split, part in study.predictions[model].items()},
    }
