"""Reports the models that are finished so far: `python -m stages.interim_report`.

Writes exports/interim_report/report.html with the same content as the report of the study. It needs no lock of DVC and
changes no output of the pipeline, so it can run while `dvc repro` runs, and after an interrupted or failed run.
"""

import argparse

from stages.artifacts.reports import INTERIM_FOLDER
from stages.artifacts.tiles import GALLERY_FOLDER, Tile, read_tiles
from stages.compare import compare
from stages.core.command import run_command
from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.core.params import MODEL_SECTIONS, Params
from stages.core.wording import counted
from stages.evaluate import evaluate
from stages.evaluation.finished import unfinished_models, without_models
from stages.mistakes import mistake_tiles
from stages.report import write_report


def main(_: argparse.Namespace) -> int:
    params = Params.read()
    unfinished = unfinished_models(params)
    finished = without_models(params, unfinished)
    models = finished.names(*MODEL_SECTIONS)
    if not models:
        raise UserError("no model is finished yet. Run `dvc repro`, and this command again when its first model is.")
    evaluate(finished, INTERIM_FOLDER)
    compare(finished, INTERIM_FOLDER)
    add_note(unfinished)
    line = write_report(INTERIM_FOLDER, tiles_of)
    total = counted(len(models) + len(unfinished), "model")
    print(f"interim_report: finished {len(models)} of {total}: {', '.join(models)}")
    for model, reason in unfinished.items():
        print(f"interim_report: {model}: {reason}")
    print(f"interim_report: {line}")
    return 0


def add_note(unfinished: dict[str, str]) -> None:
    """Put the unfinished models before the warnings of every task."""
    path = INTERIM_FOLDER / "comparisons.json"
    comparisons = read_json(path)
    for content in comparisons.values():
        if unfinished:
            note = f"This is an interim report. Not finished: {', '.join(unfinished)}."
            content["warnings"] = [note, *content["warnings"]]
    write_json(path, comparisons)


def tiles_of(task: str) -> list[Tile]:
    """The tiles of a task: training images, once the stage `gallery` has run, and misclassified test images."""
    gallery = GALLERY_FOLDER / task
    return [*(read_tiles(gallery) if gallery.exists() else []), *mistake_tiles(task, INTERIM_FOLDER)]


if __name__ == "__main__":
    run_command(argparse.ArgumentParser("interim_report", description=__doc__), main)
