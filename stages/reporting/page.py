"""The report as one HTML page that needs nothing else, and as Markdown for pull requests."""

import base64
import hashlib
import html
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from stages.artifacts.tiles import Tile
from stages.evaluation.formatting import duration, percent, points, small
from stages.reporting.style import Picture

# Header, and where the value of a model comes from in metrics.json; see `cell` for the formats.
COLUMNS = [
    ("test accuracy", "test.accuracy", "interval"),
    ("in all", "cost.total_seconds", "duration"),
    ("training", "cost.seconds", "duration"),
    ("validation accuracy", "validation.accuracy", "interval"),
    ("train accuracy", "train.accuracy", "interval"),
    ("train images", "training.images", "count"),
    ("epochs", "training.epochs", "count"),
    ("test top-5", "test.top5_accuracy", "interval"),
    ("macro precision", "test.macro_precision", "interval"),
    ("macro recall", "test.macro_recall", "interval"),
    ("macro F1", "test.macro_f1", "interval"),
    ("balanced accuracy", "test.balanced_accuracy", "interval"),
    ("ROC-AUC", "test.roc_auc", "interval"),
    ("calibration error", "test.calibration_error", "interval"),
    ("test loss", "test.loss", "number"),
    ("images/s", "cost.images_per_second", "count"),
    ("trained weights", "cost.trained_parameters", "count"),
    ("all weights", "cost.total_parameters", "count"),
]


LOWER_IS_BETTER = {"in all", "training", "test loss", "calibration error"}
MOST_SENTENCES = 5  # about pairs of models in a verdict, before the others are folded away
UNKNOWN = ("-", "", None)
CLASS_COLUMNS = [
    ("precision", "precision"),
    ("recall", "recall"),
    ("F1", "f1"),
    ("ROC-AUC", "roc_auc"),
    ("calibration error", "calibration_error"),
]


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
    environment.globals |= {"lower_is_better": LOWER_IS_BETTER, "most_sentences": MOST_SENTENCES}
    environment.globals["class_columns"] = [header for header, _ in CLASS_COLUMNS]
    environment.filters |= {"md": markdown, "data_uri": data_uri, "sha256": sha256}
    return environment.get_template(template).render(**content)


def task_sections(
    study: dict,
    metrics: dict,
    comparisons: dict,
    pictures: dict[str, list[Picture]],
    galleries: dict[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """What the templates show of each task; those with most models, where the question lies, first.

    study, metrics, comparisons: what evaluate wrote. pictures, galleries: of each task.
    """
    names = sorted(comparisons, key=lambda name: -len(study["tasks"][name]["models"]))
    return [
        {
            "name": name,
            **study["tasks"][name],
            "recommended": comparisons[name]["recommended"],
            "verdict": comparisons[name]["verdict"],
            "warnings": comparisons[name]["warnings"],
            "columns": ["model", "kind", *(column[0] for column in columns_of(name, study, metrics))],
            "rows": [
                model_row(model, name, study, metrics)
                for model in sorted(
                    study["tasks"][name]["models"], key=lambda model: -metrics[model]["test"]["accuracy"]
                )
            ],
            "matrices": {
                split: matrix(study["tasks"][name]["models"], comparisons[name][split])
                for split in ("test", "validation")
            },
            "pictures": pictures[name],
            "gallery": galleries[name],
        }
        for name in names
    ]


def columns_of(task: str, study: dict, metrics: dict) -> list[tuple[str, str, str]]:
    """The columns of a task's table: without top-5 accuracy where the task has too few classes for it."""
    first = metrics[study["tasks"][task]["models"][0]]
    return [column for column in COLUMNS if column[1] != "test.top5_accuracy" or "top5_accuracy" in first["test"]]


def model_row(model: str, task: str, study: dict, metrics: dict) -> dict[str, Any]:
    """One row of the study table: the model's name, its kind, and (value, detail, number) of every column."""
    return {
        "model": model,
        "kind": study["models"][model]["kind"],
        "cells": [cell(metrics[model], path, form) for _, path, form in columns_of(task, study, metrics)],
    }


def cell(of_model: dict, path: str, form: str) -> tuple[str, str, float | None]:
    """The value at `path` of a model's metrics, its detail, and the number that it is sorted by.

    The detail of an `interval` is that, and the spread over repeats. Where nothing is known there is no number.
    """
    split, name = path.split(".")
    value = of_model[split][name]
    if value is None:
        return UNKNOWN
    if form == "interval":
        return interval_cell(of_model[split], name)
    forms = {"duration": duration, "number": lambda number: f"{number:.3f}", "count": lambda number: f"{number:,.0f}"}
    return forms[form](value), "", value


def interval_cell(figures: dict, name: str) -> tuple[str, str, float]:
    """A share with its interval and its spread over repeats, as in `cell`."""
    value, low, high, spread = (figures[f"{name}{end}"] for end in ("", "_low", "_high", "_std"))
    interval = [] if low is None else [f"[{points(low)}, {points(high)}]"]
    return percent(value), " ".join(interval + ([] if spread is None else [f"± {points(spread)}"])), value


def class_rows(figures: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a model's table of classes: name, test images, and the cells of `CLASS_COLUMNS`.

    figures: the table that evaluate wrote, NaN for what is not known.
    """
    rows = figures.astype(object).where(figures.notna(), None).to_dict("records")
    return [
        {
            "class": row["class"],
            "images": row["images"],
            "cells": [UNKNOWN if row[name] is None else interval_cell(row, name) for _, name in CLASS_COLUMNS],
        }
        for row in rows
    ]


def matrix(models: list[str], pairs: list[dict]) -> list[dict[str, Any]]:
    """Rows of cells, row model less column model in points; None on the diagonal.

    A cell has the value, its interval, the corrected p, and whether the row model is better, worse or the same.
    """
    found = {}
    for pair in pairs:
        for one, other, sign in ((pair["a"], pair["b"], 1), (pair["b"], pair["a"], -1)):
            difference, low, high = (sign * pair[key] for key in ("difference", "low", "high"))
            found[one, other] = {
                "value": f"{difference * 100:+.1f}".replace("-0.0", "+0.0"),
                "interval": f"[{points(min(low, high))}, {points(max(low, high))}]",
                "state": ("better" if difference > 0 else "worse") if pair["distinguishable"] else "same",
                "p": f"p {small(pair['p_holm'])}",
            }
    return [{"model": row, "cells": [found.get((row, column)) for column in models]} for row in models]


def gallery_of(tiles: list[Tile], mistakes: pd.DataFrame) -> dict[str, Any]:
    """The small pictures of a task, each with its `alt` and the lines of its caption.

    samples: training images. augmented: title -> an image and changed copies of it. mistakes: model -> the worst.
    mistakes: the table that evaluate wrote.
    """
    of_role = {role: [tile for tile in tiles if tile.role == role] for role in ("sample", "augmented", "mistake")}
    pictures = {tile.index: tile for tile in of_role["mistake"]}
    wrong = {}
    for model, rows in mistakes.groupby("model", sort=False):
        wrong[model] = [
            shown(
                pictures[row.index_],
                f"{row.actual}, taken for {row.predicted}",
                f"{100 * row.probability:.0f} % {row.predicted}",
                f"actual: {100 * row.actual_probability:.0f} % {row.actual}",
            )
            for row in rows.rename(columns={"index": "index_"}).itertuples()  # a tuple has a method `index`
        ]
    return {
        "samples": [shown(tile, f"training image of {tile.label}", tile.label) for tile in of_role["sample"]],
        "augmented": {
            title: [shown(tile, f"{tile.label}, as training may see it") for tile in of_title]
            for title, of_title in groupby(of_role["augmented"], key=lambda tile: tile.title)
        },
        "mistakes": wrong,
    }


def shown(tile: Tile, alt: str, *lines: str) -> dict[str, Any]:
    """A tile as the page shows it; tiny: so small that its pixels are to be seen."""
    return {
        "uri": data_uri(tile.content, tile.media_type),
        "tiny": tile.media_type == "image/png",
        "alt": alt,
        "lines": lines,
    }


def markdown(text: str) -> str:
    """Text that stands for itself in Markdown, also within a table: one line, no markup, no HTML."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", line)


def data_uri(picture: bytes, media_type: str = "image/png") -> str:
    """A picture as a `data:` address, so that the page needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(picture).decode()}"


def sha256(text: str) -> str:
    """The name by which a Content-Security-Policy allows a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
