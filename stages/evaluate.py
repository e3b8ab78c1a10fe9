"""Computes the metrics of every model from its predictions: reports/metrics.json, and tables for report and DVC.

Needs neither Keras nor a GPU: a change in a metric reruns no training. Models that params.yaml does not name are
ignored.
"""

from pathlib import Path
from typing import Any

from stages.artifacts.leftovers import refuse_leftovers
from stages.artifacts.models import stored_megabytes
from stages.artifacts.reports import REPORTS_FOLDER, write_table, write_tables
from stages.core.files import atomic_directory, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.wording import counted
from stages.evaluation.calibration import reliability
from stages.evaluation.costs import model_costs
from stages.evaluation.description import describe_study
from stages.evaluation.formatting import rounded
from stages.evaluation.metrics import class_metrics, compute_metrics, model_metrics, summarize
from stages.evaluation.study_results import StudyResults, read_study
from stages.evaluation.tables import (
    concat_models,
    confusion_table,
    mean_curves,
    models_table,
    pca_table,
    task_mistakes,
)


def main(params: Params) -> str:
    refuse_leftovers(params)  # their hashes would get into dvc.lock
    return evaluate(params, REPORTS_FOLDER)


def evaluate(params: Params, reports: Path) -> str:
    """Write metrics and tables of all models of the study into the folder `reports`."""
    study = read_study(params)
    metrics, classes = {}, {}
    for model, predictions in study.predictions.items():
        arrays = {
            # The training images only say how closely a model fits them: that needs no intervals.
            split: compute_metrics(part, params.seed if split == "test" else None, with_roc_auc=split != "train")
            for split, part in predictions.items()
        }
        metrics[model] = model_metrics(study.results[model], predictions, arrays)
        stored = rounded(stored_megabytes(study.records[model]))
        metrics[model]["cost"] = {**model_costs(model, study.results), "stored_megabytes": stored}
        classes[model] = class_metrics(predictions["test"], arrays["test"], study.task_of(model).classes)

    write_json(reports / "metrics.json", metrics)
    # Names that no other file has: `dvc exp show` makes a short column of each.
    accuracies = {model: round(values["validation"]["accuracy"], 4) for model, values in metrics.items()}
    write_json(reports / "validation_accuracy.json", accuracies)
    with atomic_directory(reports / "summary") as folder:
        for model, values in metrics.items():
            write_json(folder / f"{model}.json", summarize(values))
    write_json(reports / "study.json", describe_study(study, metrics))
    write_tables(reports / "classes", classes)
    write_model_tables(study, metrics, reports)
    mistakes = {task: task_mistakes(study, task) for task in params.names("tasks")}
    write_tables(reports / "mistakes", mistakes)
    write_table(reports / "reliability.csv", concat_models(reliability(study)))
    write_table(reports / "pca.csv", pca_table(study.tasks, study.results))
    return f"{counted(len(metrics), 'model')} of {counted(len(study.tasks), 'task')}"


def write_model_tables(study: StudyResults, metrics: dict[str, Any], reports: Path) -> None:
    """Write the tables with rows of every model, and the confusion of each; metrics: model -> part of metrics.json."""
    histories = {model: result.history for model, result in study.results.items()}
    write_table(reports / "models.csv", models_table(study.records, metrics))
    write_table(reports / "history.csv", concat_models(histories))
    curves = {model: mean_curves(history) for model, history in histories.items()}
    write_table(reports / "curves.csv", concat_models(curves))
    write_tables(
        reports / "confusion",
        {model: confusion_table(study.predictions[model]["test"], record) for model, record in study.records.items()},
    )


if __name__ == "__main__":
    run_stage(main)
