"""Tasks: which images of a dataset serve for training, validation and test, in data/tasks/<task>."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.artifacts.tables import read_csv
from stages.core.errors import UserError
from stages.core.files import atomic_directory, read_json, reading, write_json

TASKS_FOLDER = Path("data/tasks")
TASK_COLUMNS = ["index", "label", "class", "split", "order", "linked", "sha256", "name"]
NEAR_COLUMNS = ["name", "split", "like", "like_split", "bits"]
RECORDED = ("dataset", "classes", "images_sha256", "settings")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitSummary:
    """What a split came upon.

    grouped, groups: images that have a group, and how many groups. equal_content: images that are not the only ones of
    their content. near_duplicates: validation and test images that look like one of another side. left_out: images
    that belong to images of another side. straddling: sets of images that belong together but keep the two sides that
    an earlier split gave them. unreadable: files of the dataset that are no readable image;
    first_unreadable: at most ten of them, each with name and reason.
    """

    grouped: int = 0
    groups: int = 0
    equal_content: int = 0
    near_duplicates: int = 0
    left_out: int = 0
    straddling: int = 0
    unreadable: int = 0
    first_unreadable: list[dict[str, str]] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """What is worth saying, one line each."""
        said = [
            (
                self.grouped,
                f"images of groups, which are kept on one side each: {self.grouped} of {self.groups} groups",
            ),
            (
                self.equal_content,
                f"images that equal another in content and are kept on its side: {self.equal_content}",
            ),
            (
                self.near_duplicates,
                f"validation and test images that look like an image of another side: {self.near_duplicates}, see "
                "near_duplicates.csv",
            ),
            (self.left_out, f"images left out, because they belong to images of another side: {self.left_out}"),
            (
                self.straddling,
                f"sets of images that belong together on two sides, from an earlier split: {self.straddling}; delete "
                "the folder of the task to draw it afresh",
            ),
            (self.unreadable, f"unreadable files of the dataset: {self.unreadable}, see quarantine.csv"),
        ]
        return [sentence for found, sentence in said if found]


@dataclass(frozen=True)
class Task:
    """A task as the split stage wrote it.

    name: its entry. dataset: the dataset's entry. classes: class names in the order of the labels 0..n-1.
    images_sha256: of the images the rows speak of.
    table: one row an image - index (row of the dataset's images), label, class, split (train, validation, test or
    `left out`), order (rank within its class, by which a smaller training set is chosen), linked (images of equal
    content, of one group, or held together as near duplicates have the same number), sha256 of the image, name in the
    source.
    settings: what the split was made by; with the same, images that are added later move no others.
    findings: what the split came upon.
    """

    name: str
    dataset: str
    classes: list[str]
    images_sha256: str
    table: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)
    findings: SplitSummary = SplitSummary()

    def rows(self, split: str, max_per_class: int | None = None, fraction: float | None = None) -> pd.DataFrame:
        """The rows of a split, at most so many of each class, and of each class this fraction, rounded up.

        A smaller choice is always a part of a larger one.
        """
        rows = self.table[self.table["split"] == split]
        of_class = rows.groupby("label")["order"]
        rank, limit = of_class.rank(method="first"), of_class.transform("size").astype(float)
        if fraction is not None:
            # Rounded first: 0.07 of 100 images would be 7.000000000000001 of them.
            limit = np.ceil((limit * fraction).round(6))
        if max_per_class is not None:
            limit = limit.clip(upper=max_per_class)
        return rows[rank <= limit]

    def check_images(self, images_sha256: str, what: str) -> None:
        """Refuse images, or features, that are not those the task was split from."""
        if images_sha256 != self.images_sha256:
            raise UserError(
                f"{what} was made of other images than task {self.name!r} was split from; run `dvc repro` for the "
                "stages that make both."
            )


def write_task(task: Task, near: pd.DataFrame) -> None:
    """Write data/tasks/<task>: `split.csv` and `near_duplicates.csv`, readable tables, and `task.json`."""
    with atomic_directory(TASKS_FOLDER / task.name) as folder:
        task.table[TASK_COLUMNS].to_csv(folder / "split.csv", index=False, lineterminator="\n")
        near[NEAR_COLUMNS].to_csv(folder / "near_duplicates.csv", index=False, lineterminator="\n")
        record = {key: getattr(task, key) for key in RECORDED}
        write_json(folder / "task.json", {**record, "findings": asdict(task.findings)})


def read_task(name: str) -> Task:
    """Read a task; `UserError` when it is missing or damaged."""
    folder = TASKS_FOLDER / name
    with reading(folder):
        record = read_json(folder / "task.json")
        table, findings = read_csv(folder / "split.csv", TASK_COLUMNS), SplitSummary(**record["findings"])
        return Task(name, table=table, findings=findings, **{key: record[key] for key in RECORDED})


def row_labels(rows: pd.DataFrame) -> np.ndarray:
    """The labels of rows, (n,) int32."""
    return rows["label"].to_numpy(np.int32)
