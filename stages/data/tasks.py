"""Tasks: which images of a dataset serve for training, validation and test, in data/tasks/<task>."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base.errors import UserError
from stages.base.files import atomic_directory, read_json, reading, write_json
from stages.study.messages import listing, nearest

FOLDER = Path("data/tasks")
TABLE_COLUMNS = ["index", "label", "class", "split", "order", "name"]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """A task as the split stage wrote it.

    name: its entry. dataset: the dataset's entry. classes: class names in the order of the labels 0..n-1.
    images_sha256: of the images the rows speak of.
    table: one row an image - index (row of the dataset's images), label, class, split (train, validation or test),
    order (rank within its class, by which a smaller training set is chosen), name in the source.
    """

    name: str
    dataset: str
    classes: list[str]
    images_sha256: str
    table: pd.DataFrame

    def rows(self, split: str, max_per_class: int | None = None) -> pd.DataFrame:
        """The rows of a split, at most so many of each class.

        A smaller choice is always a part of a larger one.
        """
        rows = self.table[self.table["split"] == split]
        if max_per_class is not None:
            rows = rows[rows.groupby("label")["order"].rank(method="first") <= max_per_class]
        return rows

    def check_images(self, images_sha256: str, what: str) -> None:
        """Refuse images, or features, that are not those the task was split from."""
        if images_sha256 != self.images_sha256:
            raise UserError(
                f"{what} was made of other images than task {self.name!r} was split from; run `dvc repro` for the "
                "stages that make both."
            )


def write_task(task: Task) -> None:
    """Write data/tasks/<task>: `split.csv`, a readable table, and `task.json`."""
    with atomic_directory(FOLDER / task.name) as folder:
        task.table.to_csv(folder / "split.csv", index=False, lineterminator="\n")
        write_json(
            folder / "task.json",
            {"dataset": task.dataset, "classes": task.classes, "images_sha256": task.images_sha256},
        )


def read_task(name: str) -> Task:
    """Read a task; `UserError` when it is missing or damaged."""
    folder = FOLDER / name
    with reading(folder):
        record = read_json(folder / "task.json")
        text = {"class": str, "split": str, "name": str}
        table = pd.read_csv(folder / "split.csv", usecols=TABLE_COLUMNS, dtype=text, keep_default_na=False)
        return Task(name, record["dataset"], record["classes"], record["images_sha256"], table)


def select_classes(include: list | None, exclude: list | None, classes: list[str], where: str) -> list[int]:
    """The labels a study's `include` and `exclude` leave, ascending; None stands for all and for none.

    classes: the names of the dataset's classes in the order of their labels. A study names a class by its label (a
    number) or its name (text). `UserError` for one that does not exist.
    """
    left_out = {_label(entry, classes, f"{where}.exclude") for entry in exclude or []}
    chosen = {_label(entry, classes, where) for entry in include} if include else set(range(len(classes)))
    return sorted(chosen - left_out)


def _label(entry: int | str, classes: list[str], where: str) -> int:
    if isinstance(entry, str) and entry in classes:
        return classes.index(entry)
    if isinstance(entry, int) and 0 <= entry < len(classes):
        if str(entry) in classes and classes[entry] != str(entry):
            raise UserError(
                f"{where}: {entry} may be class number {entry}, which is {classes[entry]!r}, or the class of that "
                f"name; write '{entry}' in quotes for the name, or the name of the other."
            )
        return entry
    hint = nearest(entry, classes) if isinstance(entry, str) else ""
    raise UserError(
        f"{where}: there is no class {entry!r}{hint}; accepted: 0 to {len(classes) - 1}, or {listing(classes[:30])}."
    )


def labels_of(rows: pd.DataFrame) -> np.ndarray:
    """The labels of rows, (n,) int32."""
    return rows["label"].to_numpy(np.int32)
