"""Turns predictions, histories and records of all models into reports/*.json and *.csv: figures, comparisons, verdict.

Needs neither Keras nor a GPU: a change in a metric reruns no training.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.artifacts.costs import COSTS_FOLDER as COSTS
from stages.artifacts.models import MODELS_FOLDER as MODELS
from stages.artifacts.models import ModelRecord, ModelResult, read_result
from stages.artifacts.tasks import SPLITS, Task, read_task
from stages.artifacts.tasks import TASKS_FOLDER as TASKS
from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER
from stages.backbones.layer_table import layers_of
from stages.core.files import atomic_directory, atomic_file, reading, sha256_of, write_json
from stages.core.stage import run_stage
from stages.evaluation.candidates import describe_candidates
from stages.evaluation.comparisons import compare_models
from stages.evaluation.costs import built_on, total_seconds
from stages.evaluation.learning_curves import ModelSeries, cut_curves, find_crossovers, learning_curves
from stages.evaluation.metrics import (
    SplitPredictions,
    class_metrics,
    compute_metrics,
    join_predictions,
    rounded,
    split_metrics,
)
from stages.evaluation.sanity import warnings_of
from stages.evaluation.sufficient_statistics import NO_PREDICTION
from stages.evaluation.verdict import choose, contradiction, verdict
from stages.validation.study import Study

FOLDER = Path("reports")
EXPORTS = Path("exports/recommended")  # of the stage recommend
MOST_MISTAKES = 12  # of a model, that are shown
MISTAKE_COLUMNS = ["model", "index", "actual", "predicted", "probability", "actual_probability"]


def main(study: Study) -> str:
    drop_leftovers(study)
    used = {entry.task for entry in study.models.values()}
    tasks = {name: read_task(name) for name in study.tasks if name in used}
    results = {model: read_result(model) for model in study.models}  # never what else lies in models/
    answers = {
        model: {
            split: join_predictions(model, split, tasks[entry.task], results[model].predictions[split])
            for split in SPLITS
        }
        for model, entry in study.models.items()
    }
    figures = {
        # Intervals are for the final word. Of the training images it is enough to see how closely a model fits them.
        model: {
            split: compute_metrics(each, study.seed if split == "test" else None, areas=split != "train")
            for split, each in of_model.items()
        }
        for model, of_model in answers.items()
    }
    metrics = {model: metrics_of(study, model, results, answers[model], figures[model]) for model in study.models}
    members = {task: [model for model, entry in study.models.items() if entry.task == task] for task in tasks}
    records = {model: result.record for model, result in results.items()}
    curves = {task: learning_curves(study, members[task], records, len(tasks[task].classes)) for task in tasks}
    comparisons = {
        name: compare_task(
            tasks[name],
            study.seed,
            *({each: part[each] for each in models} for part in (results, answers, metrics)),
            curves[name],
        )
        for name, models in members.items()
    }

    write_json(FOLDER / "metrics.json", metrics)
    write_json(FOLDER / "comparisons.json", comparisons)
    write_json(FOLDER / "study.json", describe(study, tasks, members, results, answers, curves))
    histories = {model: result.history for model, result in results.items()}
    write_csv(FOLDER / "history.csv", joined(histories))
    write_csv(FOLDER / "curves.csv", joined({model: mean_curves(history) for model, history in histories.items()}))
    write_csv(
        FOLDER / "models.csv",
        pd.DataFrame([row_of(model, record, metrics[model]) for model, record in records.items()]),
    )
    write_tables(
        FOLDER / "classes",
        {
            model: class_metrics(answers[model]["test"], figures[model]["test"], tasks[entry.task].classes)
            for model, entry in study.models.items()
        },
    )
    with atomic_directory(FOLDER / "recommended") as folder:
        for name in study.tasks:
            write_json(folder / f"{name}.json", fingerprint(study, comparisons.get(name, {}).get("recommended")))
    with atomic_directory(FOLDER / "summary") as folder:
        for model, of_model in metrics.items():
            write_json(folder / f"{model}.json", summary_of(of_model))
    write_tables(
        FOLDER / "confusion",
        {
            model: confusion(tasks[entry.task], answers[model]["test"], results[model].record.best_repeat)
            for model, entry in study.models.items()
        },
    )

    mistakes = {
        name: [
            mistakes_of(model, tasks[name], answers[model]["test"], results[model]) for model in members.get(name, [])
        ]
        for name in study.tasks
    }
    no_mistakes = pd.DataFrame(columns=MISTAKE_COLUMNS)
    write_tables(FOLDER / "mistakes", {name: pd.concat([no_mistakes, *each]) for name, each in mistakes.items()})
    write_csv(FOLDER / "maps.csv", maps_of(study, tasks, results))

    for name, of_task in comparisons.items():
        for warning in of_task["warnings"]:
            print(f"Warning, {name}: {warning}")
    chosen = ", ".join(f"{of_task['recommended']} for {name}" for name, of_task in comparisons.items())
    return f"{len(metrics)} models compared; recommended: {chosen}"


def drop_leftovers(study: Study) -> None:
    """Remove the models, splits, pictures and costs that entries no longer in the study have left behind.

    This stage and report depend on whole folders, because dvc.yaml cannot list their models by name: with leftovers
    they would not be the same in a clone. Nor is a model recommended for a task that is gone. What no stage wrote, or
    one has not ended to write, is left alone.
    """
    for record in MODELS.glob("*/record.json"):
        if (name := record.parent.name) not in study.models:
            shutil.rmtree(record.parent)
            (MODELS / f"{name}.weights.h5").unlink(missing_ok=True)
    for record in TASKS.glob("*/task.json"):
        if record.parent.name not in study.tasks:
            shutil.rmtree(record.parent)
    of_tasks = (
        *GALLERY_FOLDER.glob("[!.]*/tiles.csv"),
        *MISTAKES_FOLDER.glob("[!.]*/tiles.csv"),
        *EXPORTS.glob("[!.]*/model.json"),
    )
    for file in of_tasks:
        if file.parent.name not in study.tasks:
            shutil.rmtree(file.parent)
    for kind, names in (("models", study.models), ("features", study.features)):
        for path in (COSTS / kind).glob("*.json"):
            if path.stem not in names:
                path.unlink()


def metrics_of(
    study: Study,
    model: str,
    results: dict[str, ModelResult],
    answers: dict[str, SplitPredictions],
    figures: dict[str, dict[str, np.ndarray]],
) -> dict[str, Any]:
    """The part of metrics.json for one model: the figures of every split, training and cost; numbers and None only."""
    record, cost = results[model].record, results[model].cost
    return {
        **{split: split_metrics(of_split, figures[split]) for split, of_split in answers.items()},
        "training": {
            "epochs": rounded(np.mean(record.epochs)),
            "repeats": record.repeats,
            "diverged_repeats": len(set().union(*(of_split.diverged for of_split in answers.values()))),
            "images": record.train_images,
        },
        "cost": {
            "seconds": cost.seconds,
            "total_seconds": round(total_seconds(study, model, results), 3),
            "images_per_second": cost.images_per_second,
            "trained_parameters": record.trained_parameters,
            "total_parameters": record.total_parameters,
        },
    }


def summary_of(metrics: dict[str, Any]) -> dict[str, float]:
    """What `dvc metrics` and `dvc exp show` tell of a model: few numbers, so that a table of them fits a page."""
    return {
        "validation_accuracy": metrics["validation"]["accuracy"],
        "test_accuracy": metrics["test"]["accuracy"],
        "test_low": metrics["test"]["accuracy_low"],
        "test_high": metrics["test"]["accuracy_high"],
        "test_macro_f1": metrics["test"]["macro_f1"],
        "total_seconds": metrics["cost"]["total_seconds"],
    }


def fingerprint(study: Study, model: str | None) -> dict[str, Any]:
    """A model and the files it is made of, with their SHA-256, which tell it from others; None: a task without any."""
    if model is None:
        return {"model": None, "fingerprint": {}}
    parts = [model, study.fine_tunes[model].head] if model in study.fine_tunes else [model]
    files = [MODELS / model / "record.json", *(MODELS / f"{part}.weights.h5" for part in parts)]
    with reading(MODELS):
        return {"model": model, "fingerprint": {file.as_posix(): sha256_of(file) for file in files}}


def row_of(model: str, record: ModelRecord, metrics: dict[str, Any]) -> dict[str, Any]:
    """The row of models.csv for one model, of which `dvc plots` makes bars."""
    return {"model": model, "task": record.task, "kind": record.kind, **summary_of(metrics)}


def compare_task(
    task: Task,
    seed: int,
    results: dict[str, ModelResult],
    answers: dict[str, dict[str, SplitPredictions]],
    metrics: dict[str, Any],
    curves: list[ModelSeries],
) -> dict[str, Any]:
    """The part of comparisons.json for one task; the three dicts hold its models, `curves` its learning curves."""
    kept = {model: result.record.best_repeat for model, result in results.items()}
    validation, test = (
        compare_models({model: of_model[split] for model, of_model in answers.items()}, kept, seed)
        for split in ("validation", "test")
    )
    choice = choose(metrics, validation)
    warnings = [
        warning
        for model, result in results.items()
        for warning in warnings_of(
            model, task.classes, answers[model], metrics[model], result.history, kept[model], seed
        )
    ]
    return {
        "best_on_validation": choice.best,
        "candidates": choice.candidates,
        "recommended": choice.recommended,
        "verdict": verdict(choice, metrics, test),
        "warnings": [*contradiction(choice, test), *warnings],
        "validation": [asdict(pair) for pair in validation],
        "test": [asdict(pair) for pair in test],
        "crossings": [asdict(each) for each in find_crossovers(curves, metrics, test)],
    }


def describe(
    study: Study,
    tasks: dict[str, Task],
    members: dict[str, list[str]],
    results: dict[str, ModelResult],
    answers: dict[str, dict[str, SplitPredictions]],
    curves: dict[str, list[ModelSeries]],
) -> dict[str, Any]:
    """study.json: what the report says of tasks and models beside their figures."""
    records = {model: result.record for model, result in results.items()}
    return {
        "tasks": {
            name: {
                "dataset": task.dataset,
                "models": members[name],
                "classes": task.classes,
                "images": {
                    split: np.bincount(task.rows(split)["label"], minlength=len(task.classes)).tolist()
                    for split in SPLITS
                },
                "notes": [
                    *task.findings.sentences(),
                    *(
                        describe_candidates(model, results[model].record.candidates)
                        for model in members[name]
                        if results[model].record.candidates
                    ),
                ],
                "first_unreadable": task.findings.first_unreadable,
                "learning_curves": [asdict(each) for each in curves[name]],
                "depths": {
                    architecture: {
                        "layers": list(layers_of(architecture)),
                        "series": [asdict(each) for each in of_architecture],
                    }
                    for architecture, of_architecture in cut_curves(study, members[name], records).items()
                },
            }
            for name, task in tasks.items()
        },
        "models": {
            model: {
                "kind": result.record.kind,
                "task": study.models[model].task,
                "backbone": result.record.backbone,
                "cut": result.record.cut,
                "best_repeat": result.record.best_repeat,
                "built_on": [part for _, part in built_on(study, model)[1:]],
                "machine": result.cost.machine,
                "accuracies": {split: answers[model][split].accuracies for split in SPLITS},
            }
            for model, result in results.items()
        },
    }


def mean_curves(history: pd.DataFrame) -> pd.DataFrame:
    """One row an epoch: the mean over the repeats, as long as all of them run."""
    shortest = history.groupby("repeat")["epoch"].max().min()
    return history[history["epoch"] <= shortest].drop(columns="repeat").groupby("epoch", as_index=False).mean()


def joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all models as one, with a first column `model`."""
    return pd.concat(tables, names=["model", None]).reset_index(level="model")


def confusion(task: Task, test: SplitPredictions, kept: int) -> pd.DataFrame:
    """Columns actual, predicted: class names, one row a test image, as the kept repeat sees it."""
    names = {**dict(enumerate(task.classes)), NO_PREDICTION: ""}
    return pd.DataFrame(
        {
            "actual": [names[label] for label in test.labels],
            "predicted": [names[label] for label in test.predicted[kept]],
        }
    )


def mistakes_of(model: str, task: Task, test: SplitPredictions, result: ModelResult) -> pd.DataFrame:
    """The test images of which the kept repeat is most sure and wrong, the worst first; see `MISTAKE_COLUMNS`.

    probability: of the class that is predicted; actual_probability: of the actual one; of finite answers only.
    """
    kept = result.record.best_repeat
    predicted, probabilities = test.predicted[kept], test.probabilities[kept]
    wrong = np.flatnonzero((predicted != test.labels) & (predicted != NO_PREDICTION))
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:MOST_MISTAKES]
    names = np.array(task.classes, object)
    return pd.DataFrame(
        {
            "model": model,
            "index": np.sort(result.predictions["test"].index)[worst],
            "actual": names[test.labels[worst]],
            "predicted": names[predicted[worst]],
            "probability": probabilities[worst].max(axis=1),
            "actual_probability": probabilities[worst, test.labels[worst]],
        },
        columns=MISTAKE_COLUMNS,
    )


def maps_of(study: Study, tasks: dict[str, Task], results: dict[str, ModelResult]) -> pd.DataFrame:
    """Where validation images lie in the features of every task, each features and cut once: one row an image.

    Columns task, features, cut, class, x, y, and share_x, share_y: of the variance that the axis explains.
    """
    maps = {(head.task, head.features, results[name].record.cut): results[name] for name, head in study.heads.items()}
    tables = [pd.DataFrame(columns=["task", "features", "cut", "class", "x", "y", "share_x", "share_y"])]
    for (task, features, cut), result in maps.items():
        found = result.feature_map
        classes = tasks[task].table.set_index("index")["class"].loc[found.index].to_numpy()
        (x, y), (share_x, share_y) = found.points.T, found.shares
        where = {"task": task, "features": features, "cut": cut}
        tables.append(pd.DataFrame({**where, "class": classes, "x": x, "y": y, "share_x": share_x, "share_y": share_y}))
    return pd.concat(tables)


def write_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write one table each into a folder that holds no others."""
    with atomic_directory(folder) as partial:
        for model, table in tables.items():
            write_csv(partial / f"{model}.csv", table)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table; six significant digits."""
    with atomic_file(path) as partial:
        table.to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    run_stage(main)
