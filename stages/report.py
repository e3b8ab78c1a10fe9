"""Shows what evaluate found: reports/report.html (one file), reports/report.md and reports/figures/.

Reads only what evaluate wrote under reports/, and the small pictures of gallery and mistakes, so that a change to a
figure runs nothing else.
"""

from itertools import chain
from pathlib import Path

import pandas as pd

from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER, read_tiles
from stages.core.files import atomic_directory, read_json, reading, write_text
from stages.core.stage import run_stage
from stages.reporting.figures import draw_task
from stages.reporting.model_figures import draw_model
from stages.reporting.page import class_rows, gallery_of, render, task_sections
from stages.reporting.style import line_styles
from stages.validation.study import Study

FOLDER = Path("reports")


def main(study: Study) -> str:
    found, metrics, comparisons = (read_json(FOLDER / f"{name}.json") for name in ("study", "metrics", "comparisons"))
    curves, maps = read_table("history"), read_table("maps")
    galleries = {
        task: gallery_of(
            [*read_tiles(GALLERY_FOLDER / task), *read_tiles(MISTAKES_FOLDER / task)], read_table(f"mistakes/{task}")
        )
        for task in comparisons
    }
    with reading(FOLDER):
        pictures = {
            task: draw_task(task, of_task, found, metrics, curves, maps) for task, of_task in comparisons.items()
        }
        models = {}
        for task in found["tasks"].values():
            for model, look in line_styles(task["models"]).items():
                confusion, history = read_table(f"confusion/{model}"), curves[curves["model"] == model]
                models[model] = {
                    **found["models"][model],
                    "pictures": draw_model(model, history, confusion, task["classes"], look),
                    "classes": class_rows(read_table(f"classes/{model}")),
                }

    png = {}
    with atomic_directory(FOLDER / "figures") as folder:
        for picture in chain(*pictures.values(), *(model["pictures"] for model in models.values())):
            path = folder / picture.name
            png[picture.name] = picture.png()
            path.write_bytes(png[picture.name])
    content = {"tasks": task_sections(found, metrics, comparisons, pictures, galleries), "models": models}
    write_text(FOLDER / "report.html", render("report.html.j2", png=png, **content))
    write_text(FOLDER / "report.md", render("report.md.j2", **content))
    return f"{FOLDER / 'report.html'} shows {len(metrics)} models of {len(comparisons)} tasks"


def read_table(name: str) -> pd.DataFrame:
    """A table that evaluate wrote; class names stay text, also `nan` and `007`."""
    path = FOLDER / f"{name}.csv"
    text = dict.fromkeys(("model", "actual", "predicted", "task", "features", "cut", "class"), str)
    with reading(path):
        columns = pd.read_csv(path, nrows=0).columns
        empty = {column: [""] for column in columns.difference(text)}
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)


if __name__ == "__main__":
    run_stage(main)
