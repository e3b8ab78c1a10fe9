"""Leaks through backbones: a network of the study that serves as backbone has seen images, and so have those below it.

A test image of a model must not be an image that a network below it has trained on or validated on: validation images
have decided when the network stopped and, those of all repeats, which repeat became the backbone. A validation image of
a model may be a validation image of a network below it, but not one of its training images. Where a task groups images
(equal content, groups, similar images with `near_duplicates: group`), all images of a group count as seen if one of
them is.
"""

import numpy as np
import pandas as pd

from stages.artifacts.seen_images import SEEN_COLUMNS, TRAINED, VALIDATED
from stages.artifacts.tasks import Task
from stages.core.errors import UserError
from stages.core.wording import counted


def images_seen(task: Task, network: str, folds: list[int], trained: np.ndarray, below: pd.DataFrame) -> pd.DataFrame:
    """The images that a network of the study has seen, with the columns of `write_seen_images`.

    folds: those of all repeats, whose validation images have decided which repeat becomes the backbone. trained: (n,)
    the rows of the dataset on which this repeat was trained. below: the images that the network's backbone has seen.
    """
    validated = np.concatenate([task.rows("validation", fold=fold)["index"] for fold in set(folds)])
    tables = [
        pd.DataFrame({"sha256": _contents_of_groups(task, rows), "use": use, "network": network, "task": task.name})
        for use, rows in ((TRAINED, trained), (VALIDATED, validated))
    ]
    return pd.concat([*tables, below])[SEEN_COLUMNS].reset_index(drop=True)


def clean_folds(task: Task, seen: pd.DataFrame, where: str) -> list[int]:
    """The folds of a task, ascending, whose validation images no network below has trained on; at least one.

    seen: the images that the networks below a model of this task have seen, see `read_seen_images`. where: the model,
    such as `heads.b-one-layer`. Raises `UserError` if test images were seen, or if no fold is clean.
    """
    test = task.rows("test")
    test = test.assign(seen=test["group_id"].isin(_groups_with(task, seen["sha256"])))
    if test["seen"].any():
        raise UserError(_message(task, seen, where, "test", test))
    trained = seen[seen["use"] == TRAINED]
    groups = _groups_with(task, trained["sha256"])
    folds = [task.rows("validation", fold=fold) for fold in range(task.folds)]
    folds = [rows.assign(seen=rows["group_id"].isin(groups)) for rows in folds]
    clean = [fold for fold, rows in enumerate(folds) if not rows["seen"].any()]
    if not clean:
        raise UserError(_message(task, trained, where, "validation", min(folds, key=lambda rows: rows["seen"].sum())))
    return clean


def _contents_of_groups(task: Task, rows: np.ndarray) -> list[str]:
    """The sha256 of images and of all images of their groups, each once. rows: of the dataset."""
    groups = set(task.table["group_id"][task.table["index"].isin(rows)])
    members = _members(task)
    return sorted(set(members["sha256"][members["group_id"].isin(groups)]))


def _groups_with(task: Task, contents: pd.Series) -> set[int]:
    """The groups of a task that have an image with one of these sha256."""
    members = _members(task)
    return set(members["group_id"][members["sha256"].isin(set(contents))])


def _members(task: Task) -> pd.DataFrame:
    """The group_id and sha256 of the images of a task, and of the other images of their groups."""
    return pd.concat([task.table[["group_id", "sha256"]], task.related])


def _message(task: Task, seen: pd.DataFrame, where: str, split: str, images: pd.DataFrame) -> str:
    """The message about the images of a split that were seen. images: all of the split, with a column seen."""
    members = _members(task)
    contents = set(members["sha256"][members["group_id"].isin(images["group_id"][images["seen"]])])
    network, other = seen[seen["sha256"].isin(contents)][["network", "task"]].iloc[0]
    # A network that failed on its first fold is the repeat of another one, which this task may lack.
    fewer_repeats = f"give {network} repeats: 1, so that it holds out fold 0, or " if split == "validation" else ""
    if other == task.name:
        remedy = (
            f"Delete data/tasks/{task.name} for a new split. Then all models of the task, and all that are built on "
            "them, train again, and new test images may be ones that models of earlier reports were trained on."
        )
    else:
        remedy = (
            "Give both tasks the same test, validation, group and near_duplicates (if they are the same, "
            f"{fewer_repeats}delete data/tasks/{other} and data/tasks/{task.name} for new splits), or use a backbone "
            "that has not seen these images."
        )
    uses = "trained" if split == "validation" else "trained or validated"
    return (
        f"{where}: the backbone has seen {images['seen'].sum()} of {counted(len(images), f'{split} image')} of task "
        f"{task.name!r}. Network {network!r} was {uses} on them, or on images of their groups, for task {other!r}. "
        f"{remedy}"
    )
