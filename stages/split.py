"""Splits the classes of a task into train, validation and test: data/tasks/<task>/split.csv."""

import hashlib

import numpy as np
import pandas as pd

from stages.base.command import run_stage
from stages.base.errors import UserError
from stages.data.images import read_images
from stages.data.tasks import SPLITS, TABLE_COLUMNS, Task, select_classes, write_task
from stages.study import Study
from stages.study.messages import listing


def main(study: Study, name: str) -> str:
    entry = study.tasks[name]
    images = read_images(entry.dataset)
    where = f"tasks.{name}.include" if entry.include else f"tasks.{name}"
    chosen = select_classes(entry.include, entry.exclude, images.classes, where)
    if len(chosen) < 2:
        left = listing(images.classes[label] for label in chosen)
        raise UserError(f"tasks.{name}: the choice of classes leaves {left}; a task needs at least two.")

    table = images.table[images.table["label"].isin(chosen)].drop(columns="sha256")
    contents = images.table.loc[table.index, "sha256"]
    table["label"] = table["label"].map(chosen.index)
    positions = hash_positions(contents, study.seed)
    table["split"] = split_rows(table["label"], contents, positions, entry.validation, entry.test)
    table["order"] = pd.Series(positions, table.index).groupby(table["label"]).rank(method="first").astype(int)
    classes = [images.classes[label] for label in chosen]
    counts = table.groupby(["label", "split"]).size().unstack(fill_value=0).reindex(columns=SPLITS, fill_value=0)
    check_counts(counts, classes, name)

    write_task(
        Task(
            name,
            entry.dataset,
            classes,
            images.sha256,
            table[TABLE_COLUMNS],
        )
    )
    print(counts.rename(index=dict(enumerate(classes))).rename_axis("class").to_string())
    return f"{len(classes)} classes, " + ", ".join(f"{int(counts[split].sum())} {split}" for split in SPLITS)


def hash_positions(contents: pd.Series, seed: int) -> np.ndarray:
    """A place in the order of each image, (n,) float64 in 0..1, from a hash of its content and the seed.

    It depends on nothing else: neither on names and folders nor on which other images there are.
    """
    digests = (hashlib.sha256(f"{seed}:{content}".encode()).digest() for content in contents)
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])


def split_rows(
    labels: pd.Series, contents: pd.Series, positions: np.ndarray, validation: float, test: float
) -> np.ndarray:
    """Stratified split in the order of `positions`: of each class first the test images, then validation, then train.

    labels, contents (n,): class and content hash; images of equal content come to the same side, also where they
    carry different labels. positions (n,): see `hash_positions`. validation, test: shares of each class.

    Returns (n,) of `train`, `validation` and `test`. The counts of a class are its shares rounded, but for images of
    equal content.
    """
    frame = pd.DataFrame({"label": np.asarray(labels), "content": np.asarray(contents), "position": positions})
    side_of: dict[str, str] = {}
    for _, rows in frame.sort_values(["position", "content"]).groupby("label"):
        sizes = rows.groupby("content", sort=False).size()
        placed = pd.Series([side_of.get(content, "") for content in sizes.index], sizes.index)
        wanted = {"test": round(len(rows) * test), "validation": round(len(rows) * validation)}
        room = {side: count - int(sizes[placed == side].sum()) for side, count in wanted.items()}
        for content, size in sizes[placed == ""].items():
            # A group of equal images goes where at least half of it finds room.
            side = next((side for side in wanted if room[side] * 2 >= size), "train")
            side_of[content] = side
            if side != "train":
                room[side] -= size
    return frame["content"].map(side_of).to_numpy(str)


def check_counts(counts: pd.DataFrame, classes: list[str], name: str) -> None:
    """Every class needs at least two images in every split; counts: label -> train, validation, test."""
    for label, row in counts.iterrows():
        for split in SPLITS:
            if row[split] < 2:
                raise UserError(
                    f"tasks.{name}: class {classes[label]!r} has {row['train']} train, {row['validation']} validation "
                    f"and {row['test']} test images; each needs at least 2: give a larger share or more images."
                )


if __name__ == "__main__":
    run_stage(main, section="tasks")
