"""Removes the files of entries that were removed from the study: models, splits, pictures, costs, exports.

DVC does not remove the outputs of a removed entry. But compare and report depend on whole folders, because dvc.yaml
cannot list their models by name. With leftovers, their dependencies would differ between two clones of one study.

The stage `check` calls this. It runs before all others whenever params.yaml changes, and it reads no results: a stage
that reads results would change its own dependencies. Files that no stage has finished writing are not touched.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from stages.artifacts.costs import COSTS_FOLDER
from stages.artifacts.models import MODELS_FOLDER
from stages.artifacts.tasks import TASKS_FOLDER
from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER
from stages.core.params import Params

EXPORTS_FOLDER = Path("exports/recommended")
CHECKPOINTS_FOLDER = Path("data/checkpoints")
MODEL_SECTIONS = ("networks", "heads", "probes", "fine_tunes")


def remove_leftovers(params: Params) -> list[Path]:
    """Remove the outputs of entries that a study does not have; returns their paths, sorted."""
    leftovers = sorted(_leftovers(params))
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return leftovers


def _leftovers(params: Params) -> Iterator[Path]:
    models, tasks = params.names(*MODEL_SECTIONS), params.names("tasks")
    for names, pattern, folder in (
        (models, "*/record.json", MODELS_FOLDER),
        (tasks, "*/task.json", TASKS_FOLDER),
        (tasks, "*/tiles.csv", GALLERY_FOLDER),
        (tasks, "*/tiles.csv", MISTAKES_FOLDER),
        (tasks, "*/model.json", EXPORTS_FOLDER),
    ):
        for file in folder.glob(pattern):
            if file.parent.name not in names and not file.parent.name.startswith("."):  # .partial: not finished
                yield file.parent
    for folder in CHECKPOINTS_FOLDER.glob("*/"):
        if folder.name not in models:
            yield folder
    for kind, names in (("models", models), ("features", params.names("features"))):
        for file in (COSTS_FOLDER / kind).glob("*.json"):
            if file.stem not in names:
                yield file
