"""The report as a self-contained HTML page, and as Markdown for pull requests."""

import base64
import hashlib
import html
import re
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from stages.artifacts.tiles import Tile
from stages.evaluation.formatting import duration, p_value, percent, points, quantity
from stages.reporting.figures import ReportData
from stages.reporting.sentences import calibration_sentence, split_sentence
from stages.reporting.style import Picture, ranked

# Header, path of the value in a model's part of metrics.json, and format; see `cell`.
# These four decide, and fit a page; the first three fit a telephone.
COLUMNS = [
    ("test accuracy", "test.accuracy", "interval"),
    ("total time", "cost.total_seconds", "duration"),
    ("time per image", "cost.milliseconds_per_image", "milliseconds"),
    ("size", "cost.megabytes", "megabytes"),
]
MORE_COLUMNS = [
    ("validation accuracy", "validation.accuracy", "interval"),
    ("calibration error", "test.calibration_error", "calibration"),
    ("after calibration", "test.calibrated_error", "calibration"),
    ("train accuracy", "train.accuracy", "interval"),
    ("train images", "training.images", "count"),
    ("epochs", "training.epochs", "count"),
    ("test top-5", "test.top5_accuracy", "interval"),
    ("macro precision", "test.macro_precision", "interval"),
    ("macro recall", "test.macro_recall", "interval"),
    ("macro F1", "test.macro_f1", "interval"),
    ("ROC-AUC", "test.roc_auc", "interval"),
    ("test loss", "test.loss", "number"),
]
COST_COLUMNS = [
    ("training time", "cost.seconds", "duration"),
    ("training throughput", "cost.images_per_second", "rate"),
    ("throughput in use", "cost.batch_images_per_second", "rate"),
    ("peak memory", "cost.peak_memory_mb", "megabytes"),
    ("multiply-adds per image", "cost.multiply_adds", "quantity"),
    ("multiply-adds in training", "cost.total_training_multiply_adds", "quantity"),
    ("trained parameters", "cost.trained_parameters", "quantity"),
    ("stored weights", "cost.stored_megabytes", "megabytes"),
    ("all parameters", "cost.total_parameters", "quantity"),
]
# Of the table of backbones: header, key and format.
SCREEN_COSTS = [
    ("multiply-adds per image", "multiply_adds", "quantity"),
    ("throughput in use", "images_per_second", "rate"),
    ("size", "megabytes", "megabytes"),
]
TOP_5_ABOVE = 10  # classes
# What the columns of each table mean.
LEGENDS = {
    "models": (
        "Accuracy: mean over the repeats, [95 % interval] ± standard deviation over the repeats, in points. The "
        "interval is for other images of the same kind; how another training would differ is not in it. Total time: "
        "training of one repeat, with everything that the model is built on. Time per image: from pixels to "
        "probabilities, one image at a time. Times vary with what else the machine does. Size: of the weights."
    ),
    "more": (
        "Percentages: as above. Calibration error: on the test images, before and after calibration; the lower one is "
        "bold. Models in use are calibrated. Train images, epochs: of one repeat; a probe is solved without epochs. "
        "Macro precision, recall and F1: mean over the classes, on the test images, as are ROC-AUC and the test loss "
        "(cross-entropy)."
    ),
    "combined": (
        "The repeats of a model combined, without further training. Ensemble: the calibrated probabilities of all "
        "repeats, averaged; each repeat runs for every image. Soup: one model with the averaged weights of the "
        "repeats, where they share their start (Wortsman et al. 2022). Differences: in points of test accuracy, on "
        "the same images, with 95 % intervals. There is a validation accuracy only where all repeats hold out the "
        "same images: other images were trained on by some of the repeats. Therefore ensembles and soups are not "
        "candidates for the recommendation. `python -m stages.predict --ensemble` uses an ensemble; soups are not "
        "stored."
    ),
    "screen": (
        "Validation accuracy of the probes on the features of each backbone; the score is the mean of both kinds, with "
        "its 95 % interval. Among the first three: in how many resamples of the validation images the score is one of "
        "the three highest. Multiply-adds, throughput and size: of the backbone up to the features. Bold multiply-adds:"
        " no other backbone is both cheaper and more accurate."
    ),
    "costs": (
        "Training time: one repeat of the model alone. Training throughput: training images times epochs, over that "
        "time. Throughput in use: in batches of 32. Peak memory: of the process that trained, or of the GPU. "
        "Multiply-adds per image: of the model in use. Multiply-adds in training: of one repeat, with everything that "
        "the model is built on. Trained parameters: weights that the training changes. Stored weights: the file of "
        "one repeat, without a backbone that it is used with. All parameters: from the image to the probabilities. "
        "Times and memory were measured on the machine of the model; multiply-adds are the same on every machine."
    ),
}
LOWER_IS_BETTER = {
    *("test loss", "total time", "time per image", "size", "calibration error", "after calibration"),
    *(header for header, *_ in COST_COLUMNS if "throughput" not in header),
}
CALIBRATION = ["calibration_error", "calibrated_error"]
FORMS = {
    "duration": duration,
    "milliseconds": lambda number: f"{number:.3g} ms",
    "megabytes": lambda number: f"{number:,.3g} MB" if number < 100 else f"{number:,.0f} MB",
    "quantity": quantity,
    "number": lambda number: f"{number:.3f}",
    "rate": lambda number: f"{number:,.3g} images/s" if number < 100 else f"{number:,.0f} images/s",
    "count": lambda number: f"{number:,.0f}",
}
CLASS_COLUMNS = [
    ("precision", "precision"),
    ("recall", "recall"),
    ("F1", "f1"),
    ("ROC-AUC", "roc_auc"),
    ("calibration error", "calibration_error"),
]


class Cell(NamedTuple):
    """A value in a table, its detail, the number that it is sorted by, and whether it is the better one of two."""

    value: str
    detail: str = ""
    number: float | None = None
    better: bool = False


UNKNOWN = Cell("-")


def render(template: str, **content: Any) -> str:
    """Fill a template of this folder; values are escaped in HTML, and by the filter `md` in Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["lower_is_better"] = LOWER_IS_BETTER
    environment.globals["legends"] = LEGENDS
    environment.globals["class_columns"] = [header for header, _ in CLASS_COLUMNS]
    environment.filters |= {"md": markdown, "data_uri": data_uri, "sha256": sha256}
    return environment.get_template(template).render(**content)


def task_sections(
    data: ReportData, pictures: dict[str, list[Picture]], galleries: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The content of the templates for every task; tasks with the most models come first.

    pictures, galleries: of each task.
    """
    sections = []
    for name, comparison in data.comparisons.items():
        task = data.study["tasks"][name]
        models = task["models"]
        metrics = {model: data.metrics[model] for model in models}
        ranking = ranked(metrics, comparison["recommended"])
        sections.append(
            {
                "name": name,
                **task,
                **{key: comparison[key] for key in ("recommended", "verdict", "verdict_on_test", "warnings")},
                "split": split_sentence(task, [data.study["models"][model] for model in models], metrics),
                "table": models_table(data, ranking, COLUMNS),
                "calibration": calibration_sentence(metrics),
                "screen": screen_table(comparison["screen"]),
                "screen_sentences": comparison["screen_sentences"],
                "more": models_table(data, ranking, more_columns(len(task["classes"]))),
                "costs": models_table(data, ranking, COST_COLUMNS),
                "combined": combined_table(task["combined_repeats"]),
                "matrices": {split: matrix(models, comparison[split]) for split in ("test", "validation")},
                "pictures": pictures[name],
                "gallery": galleries[name],
            }
        )
    return sorted(sections, key=lambda section: -len(section["models"]))


def models_table(data: ReportData, models: list[str], columns: list[tuple[str, str, str]]) -> dict[str, Any]:
    """headers, and rows: one per model with its kind and the cells of the columns; see `COLUMNS`."""
    return {
        "headers": ["model", "kind", *(header for header, *_ in columns)],
        "rows": [
            {
                "model": model,
                "kind": data.study["models"][model]["kind"],
                "cells": [cell(data.metrics[model], path, form) for _, path, form in columns],
            }
            for model in models
        ],
    }


def combined_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """headers, and rows as of `models_table`: ensembles and soups; see `combined_repeats`."""
    headers = ["minus used repeat", "minus mean of repeats", "validation accuracy", "multiply-adds per image", "size"]
    table = {"headers": ["model", "kind", "test accuracy", *headers], "rows": []}
    for row in rows:
        differences = [
            Cell(f"{100 * value:+.1f}".replace("-0.0", "+0.0"), f"[{points(low)}, {points(high)}]", value)
            for value, low, high in (row["to_used"], row["to_mean"])
        ]
        validation, size = row["validation"], row["megabytes"]
        cells = [
            Cell(percent(row["accuracy"]), f"[{points(row['low'])}, {points(row['high'])}]", row["accuracy"]),
            *differences,
            UNKNOWN if validation is None else Cell(percent(validation), "", validation),
            Cell(quantity(row["multiply_adds"]), "", row["multiply_adds"]),
            Cell(FORMS["megabytes"](size), "", size),
        ]
        table["rows"].append({"model": row["model"], "kind": f"{row['kind']} of {row['repeats']}", "cells": cells})
    return table


def screen_table(backbones: list[dict[str, Any]]) -> dict[str, Any]:
    """headers, and rows: one per backbone that probes compare, the highest score first; see `ScreenedBackbone`."""
    kinds = list(backbones[0]["accuracies"]) if backbones else []
    headers = [
        "backbone",
        "architecture",
        "score",
        *kinds,
        "among the first three",
        *(name for name, *_ in SCREEN_COSTS),
    ]
    rows = []
    for entry in backbones:
        score = Cell(percent(entry["score"]), f"[{points(entry['low'])}, {points(entry['high'])}]", entry["score"])
        accuracies = [Cell(percent(entry["accuracies"][kind]), "", entry["accuracies"][kind]) for kind in kinds]
        chance = Cell(f"{100 * entry['among_first']:.0f} %", "", entry["among_first"])
        costs = [Cell(FORMS[form](entry[key]), "", entry[key]) for _, key, form in SCREEN_COSTS]
        costs[0] = costs[0]._replace(better=entry["on_front"])
        rows.append(
            {
                "backbone": entry["backbone"],
                "architecture": entry["architecture"],
                "cells": [score, *accuracies, chance, *costs],
            }
        )
    return {"headers": headers, "rows": rows}


def more_columns(classes: int) -> list[tuple[str, str, str]]:
    """`MORE_COLUMNS`, with top-5 accuracy only if there are enough classes for it to mean something."""
    return [column for column in MORE_COLUMNS if classes > TOP_5_ABOVE or column[1] != "test.top5_accuracy"]


def cell(metrics: dict, path: str, form: str) -> Cell:
    """The value at `path` of a model's metrics; `UNKNOWN` for None.

    The detail of form `interval` is the interval and the spread over repeats. Of form `calibration`, the lower error of
    the two, as displayed, is the better one.
    """
    group, name = path.split(".")
    value = metrics[group][name]
    if value is None:
        return UNKNOWN
    if form == "interval":
        return interval_cell(metrics[group], name)
    if form == "calibration":
        other = sum(metrics[group][error] for error in CALIBRATION) - value
        return Cell(percent(value), "", value, round(value, 3) < round(other, 3))
    return Cell(FORMS[form](value), "", value)


def interval_cell(metrics: dict, name: str) -> Cell:
    """A share with its interval and its spread over repeats, as in `cell`."""
    value, low, high, spread = (metrics[f"{name}{end}"] for end in ("", "_low", "_high", "_std"))
    interval = [] if low is None else [f"[{points(low)}, {points(high)}]"]
    return Cell(percent(value), " ".join(interval + ([] if spread is None else [f"± {points(spread)}"])), value)


def class_rows(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a model's table of classes: name, test images, and the cells of `CLASS_COLUMNS`.

    metrics: the table that evaluate wrote, NaN for unknown values.
    """
    rows = metrics.astype(object).where(metrics.notna(), None).to_dict("records")
    return [
        {
            "class": row["class"],
            "images": row["images"],
            "cells": [UNKNOWN if row[name] is None else interval_cell(row, name) for _, name in CLASS_COLUMNS],
        }
        for row in rows
    ]


def matrix(models: list[str], pairs: list[dict]) -> list[dict[str, Any]]:
    """Rows of cells: accuracy of the row's model minus that of the column's, in points; None on the diagonal.

    A cell has the value, its interval, the corrected p, and whether the row's model is better, worse or the same.
    """
    cells = {}
    for pair in pairs:
        for row, column, sign in ((pair["a"], pair["b"], 1), (pair["b"], pair["a"], -1)):
            difference, low, high = (sign * pair[key] for key in ("difference", "low", "high"))
            cells[row, column] = {
                "value": f"{difference * 100:+.1f}".replace("-0.0", "+0.0"),
                "interval": f"[{points(min(low, high))}, {points(max(low, high))}]",
                "state": ("better" if difference > 0 else "worse") if pair["distinguishable"] else "same",
                "p": f"p {p_value(pair['p_holm'])}",
            }
    return [{"model": row, "cells": [cells.get((row, column)) for column in models]} for row in models]


def gallery_of(tiles: list[Tile], mistakes: pd.DataFrame) -> dict[str, Any]:
    """The small pictures of a task for the templates.

    mistakes: the table that evaluate wrote. Returns samples: training images; augmented: title -> an image and changed
    copies of it; mistakes: model -> the worst.
    """
    by_role = {role: [tile for tile in tiles if tile.role == role] for role in ("sample", "augmented", "mistake")}
    tile_of_row = {tile.index: tile for tile in by_role["mistake"]}
    worst = {}
    for model, rows in mistakes.groupby("model", sort=False):
        worst[model] = [
            gallery_item(
                tile_of_row[row["index"]],
                f"{row['actual']}, predicted as {row['predicted']}",
                f"{100 * row['probability']:.0f} % {row['predicted']}",
                f"actual: {100 * row['actual_probability']:.0f} % {row['actual']}",
            )
            for row in rows.to_dict("records")
        ]
    return {
        "samples": [gallery_item(tile, f"training image of {tile.label}", tile.label) for tile in by_role["sample"]],
        "augmented": {
            title: [gallery_item(tile, f"{tile.label}, as training may see it") for tile in group]
            for title, group in groupby(by_role["augmented"], key=lambda tile: tile.title)
        },
        "mistakes": worst,
    }


def gallery_item(tile: Tile, alt: str, *lines: str) -> dict[str, Any]:
    """A tile with its text alternative and the lines of its caption; tiny: enlarged with visible pixels."""
    return {
        "uri": data_uri(tile.content, tile.media_type),
        "tiny": tile.media_type == "image/png",
        "alt": alt,
        "lines": lines,
    }


def markdown(text: str) -> str:
    """Text escaped for Markdown, also within a table: one line, without markup and HTML."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", line)


def data_uri(picture: bytes, media_type: str = "image/png") -> str:
    """A picture as a `data:` URL, so that the page needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(picture).decode()}"


def sha256(text: str) -> str:
    """The hash by which a Content-Security-Policy allows a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
