"""Writes the report: reports/report.html, which is one self-contained page, reports/report.md and reports/figures/.

Reads what evaluate and compare wrote to reports/, and the tiles of gallery and mistakes. A change to a figure reruns
nothing else.
"""

from itertools import chain
from typing import Any

from stages.artifacts.reports import REPORTS_FOLDER, read_table
from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER, read_tiles
from stages.core.files import atomic_directory, read_json, reading, write_text
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.reporting.figures import ReportData, draw_task
from stages.reporting.model_figures import draw_model
from stages.reporting.page import class_rows, gallery_of, render, task_sections
from stages.reporting.style import line_styles


def main(_: Params) -> str:
    data = ReportData(
        *(read_json(REPORTS_FOLDER / f"{name}.json") for name in ("study", "metrics", "comparisons")),
        *(read_table(REPORTS_FOLDER / f"{name}.csv") for name in ("history", "pca", "reliability")),
    )
    galleries = {task: read_gallery(task) for task in data.comparisons}
    with reading(REPORTS_FOLDER):
        pictures = {task: draw_task(task, data) for task in data.comparisons}
        models = {}
        for task in data.study["tasks"].values():
            models |= draw_models(task, data)

    png = {}
    with atomic_directory(REPORTS_FOLDER / "figures") as folder:
        for picture in chain(*pictures.values(), *(model["pictures"] for model in models.values())):
            png[picture.name] = picture.png()
            (folder / picture.name).write_bytes(png[picture.name])
    content = {"tasks": task_sections(data, pictures, galleries), "models": models}
    write_text(REPORTS_FOLDER / "report.html", render("report.html.j2", png=png, **content))
    write_text(REPORTS_FOLDER / "report.md", render("report.md.j2", **content))
    return f"{REPORTS_FOLDER / 'report.html'}, {len(data.metrics)} models of {len(data.comparisons)} tasks"


def read_gallery(task: str) -> dict[str, Any]:
    """The tiles of a task with their captions."""
    tiles = [*read_tiles(GALLERY_FOLDER / task), *read_tiles(MISTAKES_FOLDER / task)]
    return gallery_of(tiles, read_table(REPORTS_FOLDER / "mistakes" / f"{task}.csv"))


def draw_models(task: dict[str, Any], data: ReportData) -> dict[str, dict[str, Any]]:
    """Model -> its facts, figures and metrics of each class, for all models of a task of study.json."""
    models = {}
    for model, style in line_styles(task["models"]).items():
        confusion = read_table(REPORTS_FOLDER / "confusion" / f"{model}.csv")
        history, reliability = (table[table["model"] == model] for table in (data.history, data.reliability))
        models[model] = {
            **data.study["models"][model],
            "pictures": draw_model(model, style, history, reliability, (confusion, task["classes"])),
            "classes": class_rows(read_table(REPORTS_FOLDER / "classes" / f"{model}.csv")),
        }
    return models


if __name__ == "__main__":
    run_stage(main)
