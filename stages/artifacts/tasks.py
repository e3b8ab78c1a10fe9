"""Tasks in data/tasks/<task>: which images of a dataset are for training, validation and test."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.artifacts.tables import read_csv
from stages.core.errors import UserError
from stages.core.files import atomic_directory, read_json, reading, write_json

TASKS_FOLDER = Path("data/tasks")
TASK_COLUMNS = ["index", "label", "class", "split", "fold", "order", "group_id", "sha256", "name"]
NEAR_COLUMNS = ["name", "split", "similar_to", "similar_split", "bits"]
RECORDED = ("dataset", "classes", "images_sha256", "settings")
CONTRADICTION_COLUMNS = ["name", "class", "split", "sha256"]
RELATED_COLUMNS = ["group_id", "sha256"]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitSummary:
    """Counts of what affected a split.

    grouped: images that belong to a group. groups: number of groups.
    equal_content: images with the same content as another image.
    near_duplicates: validation and test images that are similar to an image of another split.
    excluded: images that are in no split because they are grouped with images of another one.
    straddling: groups whose images keep the different splits or folds that an earlier run assigned to them.
    folds: see `Task.folds`. limiting_classes: names of those with too few images for more folds, if others have enough.
    unreadable: files of the dataset that could not be decoded; first_unreadable: name and reason of at most ten.
    ignored: files of the dataset that are not images of a class.
    contradictions: images with the same content as an image of another class; first_contradictions: name and class of
    an image of each class of the first such content.
    published: the splits of the task that are those of the dataset. unused: split that the dataset publishes, but the
    task does not use -> its images in the task, and how many of them are in other splits.
    """

    grouped: int = 0
    groups: int = 0
    equal_content: int = 0
    near_duplicates: int = 0
    excluded: int = 0
    straddling: int = 0
    folds: int = 1
    limiting_classes: list[str] = field(default_factory=list)
    unreadable: int = 0
    first_unreadable: list[dict[str, str]] = field(default_factory=list)
    ignored: int = 0
    contradictions: int = 0
    first_contradictions: list[dict[str, str]] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    unused: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A task as the stage `split` wrote it.

    name, dataset: its entry and that of its dataset. classes: class names in the order of the labels 0..n-1.
    images_sha256: checksum of the images that the rows index.
    table: one row per image - index (row of the dataset's images), label, class, split (train, validation, test or
    excluded), fold (the number of the fold in which the image validates: 0 for those of split validation, from 1 for
    images of split train that other folds hold out, -1 for all others), order (rank within the class, by which a
    smaller training set is chosen), group_id (equal for images of equal content, of one group, or grouped as near
    duplicates), sha256 of the image, name in the source.
    related: images of the dataset that are not in the task, but in groups of its images - group_id, sha256.
    settings: the seed and the entry. While they stay the same, added images do not change the split of the others.
    """

    name: str
    dataset: str
    classes: list[str]
    images_sha256: str
    table: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)
    summary: SplitSummary = SplitSummary()
    related: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=RELATED_COLUMNS))

    @property
    def folds(self) -> int:
        """The number of folds: sets of images without a common image. Each repeat holds out one for validation."""
        return int(self.table["fold"].max()) + 1

    def rows(
        self, split: str, max_per_class: int | None = None, fraction: float | None = None, fold: int = 0
    ) -> pd.DataFrame:
        """The rows of a split, of each class at most `max_per_class` and this fraction, rounded up.

        fold: 0..folds-1. Its images are the rows of split validation; those of split train are all other images that
        are neither test images nor excluded. A smaller choice is always a subset of a larger one.
        """
        is_chosen = self.table["split"] == split
        if split in ("train", "validation"):
            is_outside_test = self.table["split"].isin(["train", "validation"])
            is_chosen = is_outside_test & ((self.table["fold"] == fold) == (split == "validation"))
        rows = self.table[is_chosen]
        order = rows.groupby("label")["order"]
        rank, limit = order.rank(method="first"), order.transform("size").astype(float)
        if fraction is not None:
            # Rounded first, because 0.07 * 100 is 7.000000000000001.
            limit = np.ceil((limit * fraction).round(6))
        if max_per_class is not None:
            limit = limit.clip(upper=max_per_class)
        return rows[rank <= limit]

    def check_images(self, images_sha256: str, what: str) -> None:
        """Raise a `UserError` if images, or features of images, are not those of the task.

        what: the artifact with the checksum `images_sha256`.
        """
        if images_sha256 != self.images_sha256:
            raise UserError(f"{what} does not match the images of task {self.name!r}. Run `dvc repro`.")


def write_task(task: Task, near: pd.DataFrame, contradictions: pd.DataFrame | None = None) -> None:
    """Write data/tasks/<task>: the tables `split.csv`, `related.csv` and `near_duplicates.csv`, and `task.json`.

    contradictions: images whose content is also in another class; if there are some, the table `contradictions.csv`.
    """
    with atomic_directory(TASKS_FOLDER / task.name) as folder:
        task.table[TASK_COLUMNS].to_csv(folder / "split.csv", index=False, lineterminator="\n")
        task.related[RELATED_COLUMNS].to_csv(folder / "related.csv", index=False, lineterminator="\n")
        near[NEAR_COLUMNS].to_csv(folder / "near_duplicates.csv", index=False, lineterminator="\n")
        if contradictions is not None and len(contradictions):
            table = contradictions[CONTRADICTION_COLUMNS]
            table.to_csv(folder / "contradictions.csv", index=False, lineterminator="\n")
        record = {key: getattr(task, key) for key in RECORDED}
        write_json(folder / "task.json", {**record, "summary": asdict(task.summary)})


def read_task(name: str) -> Task:
    """Read a task; `UserError` if it is missing or damaged."""
    folder = TASKS_FOLDER / name
    with reading(folder):
        record = read_json(folder / "task.json")
        table, summary = read_csv(folder / "split.csv", TASK_COLUMNS), SplitSummary(**record["summary"])
        related = read_csv(folder / "related.csv", RELATED_COLUMNS)
        return Task(name, table=table, summary=summary, related=related, **{key: record[key] for key in RECORDED})


def row_labels(rows: pd.DataFrame) -> np.ndarray:
    """The labels of rows, (n,) int32."""
    return rows["label"].to_numpy(np.int32)
