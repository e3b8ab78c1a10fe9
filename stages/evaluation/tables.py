"""The tables that evaluate writes: histories, confusion, mistakes, principal components."""

from typing import Any

import numpy as np
import pandas as pd

from stages.artifacts.models import ModelRecord, ModelResult
from stages.artifacts.tasks import Task
from stages.evaluation.metrics import summarize
from stages.evaluation.predictions import NO_PREDICTION, SplitPredictions
from stages.evaluation.study_results import StudyResults

MOST_MISTAKES = 12  # of a model
MISTAKE_COLUMNS = ["model", "index", "actual", "predicted", "probability", "actual_probability"]
PCA_COLUMNS = ["task", "features", "cut", "class", "x", "y", "share_x", "share_y"]


def concat_models(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all models as one, with a first column `model`."""
    return pd.concat(tables, names=["model", None]).reset_index(level="model")


def models_table(records: dict[str, ModelRecord], metrics: dict[str, Any]) -> pd.DataFrame:
    """One row for every model, which `dvc plots` draws as bars."""
    rows = [
        {"model": model, "task": record.task, "kind": record.kind, **summarize(metrics[model])}
        for model, record in records.items()
    ]
    return pd.DataFrame(rows)


def mean_curves(history: pd.DataFrame) -> pd.DataFrame:
    """One row for every epoch: the mean over the repeats, up to the last epoch of the shortest repeat."""
    shortest = history.groupby("repeat")["epoch"].max().min()
    return history[history["epoch"] <= shortest].drop(columns="repeat").groupby("epoch", as_index=False).mean()


def confusion_table(test: SplitPredictions, record: ModelRecord) -> pd.DataFrame:
    """Columns actual, predicted: class names, one row for every test image, by the best repeat."""
    names = {**dict(enumerate(record.classes)), NO_PREDICTION: ""}
    return pd.DataFrame(
        {
            "actual": [names[label] for label in test.labels],
            "predicted": [names[label] for label in test.predicted[record.best_repeat]],
        }
    )


def mistakes_table(test: SplitPredictions, result: ModelResult) -> pd.DataFrame:
    """The wrong predictions of the best repeat with the highest probability, the worst first; see `MISTAKE_COLUMNS`.

    probability: of the predicted class; actual_probability: of the actual class. Finite predictions only.
    """
    record = result.record
    predicted, probabilities = test.predicted[record.best_repeat], test.probabilities[record.best_repeat]
    wrong = np.flatnonzero((predicted != test.labels) & (predicted != NO_PREDICTION))
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:MOST_MISTAKES]
    names = np.array(record.classes, object)
    return pd.DataFrame(
        {
            "model": record.name,
            "index": np.sort(result.predictions["test"].index)[worst],
            "actual": names[test.labels[worst]],
            "predicted": names[predicted[worst]],
            "probability": probabilities[worst].max(axis=1),
            "actual_probability": probabilities[worst, test.labels[worst]],
        },
        columns=MISTAKE_COLUMNS,
    )


def task_mistakes(study: StudyResults, task: str) -> pd.DataFrame:
    """The worst mistakes of every model of a task; empty for a task without models."""
    tables = [mistakes_table(study.predictions[model]["test"], study.results[model]) for model in study.models(task)]
    return pd.concat([pd.DataFrame(columns=MISTAKE_COLUMNS), *tables])


def pca_table(tasks: dict[str, Task], results: dict[str, ModelResult]) -> pd.DataFrame:
    """Validation images in the principal components of the features of every task, each cut once.

    One row for every image. share_x, share_y: share of the variance that the axis explains.
    """
    projections = {}
    for result in results.values():
        if result.pca:
            features = result.record.provenance.features
            cuts = " + ".join(result.record.provenance.cuts)
            projections[result.record.task, features.name, cuts] = result.pca
    tables = [pd.DataFrame(columns=PCA_COLUMNS)]
    for (task, features, cut), pca in projections.items():
        classes = tasks[task].table.set_index("index")["class"].loc[pca.index].to_numpy()
        (x, y), (share_x, share_y) = pca.points.T, pca.shares
        columns = {"task": task, "features": features, "cut": cut, "class": classes, "x": x, "y": y}
        tables.append(pd.DataFrame({**columns, "share_x": share_x, "share_y": share_y}))
    return pd.concat(tables)
