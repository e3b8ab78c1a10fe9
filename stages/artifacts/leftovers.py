"""The files of entries that were removed from the study: models, splits, pictures, costs, exports.

DVC does not remove the outputs of a removed entry. But some stages depend on whole folders, because dvc.yaml cannot
list their contents by name: evaluate and compare on `models`, `data/tasks` and `data/costs`, report on `data/gallery`
and `data/mistakes`. With leftovers, these folders would differ between two clones of one study.

The stage `check` removes leftovers. It runs before all others whenever params.yaml changes, and it reads no results: a
stage that reads results would change its own dependencies.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from stages.artifacts.costs import COSTS_FOLDER
from stages.artifacts.models import CHECKPOINTS_FOLDER, MODELS_FOLDER
from stages.artifacts.reports import EXPORTS_FOLDER
from stages.artifacts.tasks import TASKS_FOLDER
from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER
from stages.core.errors import UserError
from stages.core.files import read_json
from stages.core.params import MODEL_SECTIONS, PARAMS, Params
from stages.core.wording import counted


def remove_leftovers(params: Params) -> list[Path]:
    """Remove the leftovers of a study; returns their paths, sorted."""
    leftovers = find_leftovers(params)
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return leftovers


def refuse_leftovers(params: Params) -> None:
    """`UserError` if there are leftovers, as after `git checkout` without `dvc checkout`."""
    if leftovers := find_leftovers(params):
        first, more = leftovers[0], len(leftovers) - 1
        what = f"{first} and {counted(more, 'other')} belong to entries" if more else f"{first} belongs to an entry"
        are = "are" if more else "is"
        raise UserError(
            f"{what} that {are} no longer in {PARAMS} (for example after `git checkout` without `dvc checkout`). Run "
            "`python -m stages.check --clean`, then `dvc repro`."
        )


def find_leftovers(params: Params) -> list[Path]:
    """The outputs of entries that a study does not have, sorted.

    Links, and folders that no stage has finished writing, are not leftovers; neither is a model's folder that was
    copied to another name: its record still names the original.
    """
    return sorted(path for path in _outputs_of_other_entries(params) if not path.is_symlink())


def _outputs_of_other_entries(params: Params) -> Iterator[Path]:
    models, tasks = params.names(*MODEL_SECTIONS), params.names("tasks")
    for file in MODELS_FOLDER.glob("[!.]*/record.json"):
        folder = file.parent
        if folder.name not in models and read_json(file).get("name", folder.name) == folder.name:
            yield folder
    for pattern, parent in (
        ("task.json", TASKS_FOLDER),
        ("tiles.csv", GALLERY_FOLDER),
        ("tiles.csv", MISTAKES_FOLDER),
        ("model.json", EXPORTS_FOLDER),
    ):
        yield from (file.parent for file in parent.glob(f"[!.]*/{pattern}") if file.parent.name not in tasks)
    yield from (folder for folder in CHECKPOINTS_FOLDER.glob("*/") if folder.name not in models)
    for kind, names in (("models", models), ("features", params.names("features"))):
        yield from (file for file in (COSTS_FOLDER / kind).glob("[!.]*.json") if file.stem not in names)
