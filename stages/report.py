"""Writes the report: reports/report.html, which is one self-contained page, reports/report.md and reports/figures/.

Reads what evaluate and compare wrote to reports/, and the tiles of gallery and mistakes. A change to a figure reruns
nothing else.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from stages.artifacts.reports import REPORTS_FOLDER, read_table
from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER, Tile, read_tiles
from stages.core.files import atomic_directory, read_json, reading, write_text
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.wording import counted
from stages.reporting.figures import ReportData, draw_task
from stages.reporting.model_figures import draw_model
from stages.reporting.page import class_rows, gallery_of, render, task_sections
from stages.reporting.style import line_styles


def main(_: Params) -> str:
    def tiles_of(task: str) -> list[Tile]:
        return [*read_tiles(GALLERY_FOLDER / task), *read_tiles(MISTAKES_FOLDER / task)]

    return write_report(REPORTS_FOLDER, tiles_of)


def write_report(reports: Path, tiles_of: Callable[[str], list[Tile]]) -> str:
    """Write the report of the tables in the folder `reports` into it; returns the line that the stage prints.

    tiles_of: function from a task to its tiles.
    """
    data = ReportData(
        *(read_json(reports / f"{name}.json") for name in ("study", "metrics", "comparisons")),
        *(read_table(reports / f"{name}.csv") for name in ("history", "pca", "reliability")),
    )
    galleries = {
        task: gallery_of(tiles_of(task), read_table(reports / "mistakes" / f"{task}.csv")) for task in data.comparisons
    }
    with reading(reports):
        pictures = {task: draw_task(task, data) for task in data.comparisons}
        models = {}
        for task in data.study["tasks"].values():
            models |= draw_models(task, data, reports)

    png = {}
    with atomic_directory(reports / "figures") as folder:
        for picture in chain(*pictures.values(), *(model["pictures"] for model in models.values())):
            png[picture.name] = picture.png()
            (folder / picture.name).write_bytes(png[picture.name])
    content = {"tasks": task_sections(data, pictures, galleries), "models": models}
    write_text(reports / "report.html", render("report.html.j2", png=png, **content))
    write_text(reports / "report.md", render("report.md.j2", **content))
    return (
        f"{reports / 'report.html'}, {counted(len(data.metrics), 'model')} of {counted(len(data.comparisons), 'task')}"
    )


def draw_models(task: dict[str, Any], data: ReportData, reports: Path) -> dict[str, dict[str, Any]]:
    """Model -> its facts, figures and metrics of each class, for all models of a task of study.json."""
    models = {}
    for model, style in line_styles(task["models"]).items():
        confusion = read_table(reports / "confusion" / f"{model}.csv")
        history, reliability = (table[table["model"] == model] for table in (data.history, data.reliability))
        facts, test = data.study["models"][model], data.metrics[model]["test"]
        if facts["kind"] == "probe":
            history = history.iloc[:0]  # it is solved, without epochs
        bins = reliability, (test["calibration_error"], test["calibrated_error"])
        models[model] = {
            **facts,
            "pictures": draw_model(model, style, history, bins, (confusion, task["classes"])),
            "classes": class_rows(read_table(reports / "classes" / f"{model}.csv")),
        }
    return models


if __name__ == "__main__":
    run_stage(main)
