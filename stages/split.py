"""Splits the images of a task into train, validation and test: data/tasks/<task>/split.csv."""

import json

import numpy as np
import pandas as pd

from stages.artifacts.images import read_images
from stages.artifacts.tasks import SPLITS, Task, write_task
from stages.config.parsing import parse_entry
from stages.config.tasks import TaskConfig
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.splitting.assignment import EXCLUDED, assign_splits, hash_positions
from stages.splitting.classes import TaskClasses, resolve_classes
from stages.splitting.counts import MIN_IMAGES, check_counts, check_published, count_images, summarize
from stages.splitting.earlier_split import NO_SPLIT, limit_per_class, read_earlier_split, splits_by_content
from stages.splitting.groups import group_ids, groups_from_names
from stages.splitting.near_duplicates import near_duplicates_across_splits
from stages.splitting.summary import summary_sentences


def main(params: Params, name: str) -> str:
    entry, where = parse_entry(params, "tasks", name, TaskConfig), f"tasks.{name}"
    images = read_images(entry.dataset)
    check_published(entry.model_dump(), entry.dataset, images.table, where)
    classes = resolve_classes(entry, images.classes, where)
    candidates = select_images(entry, images.table, classes, params.seed, where)
    settings = json.loads(json.dumps({"seed": params.seed, **entry.model_dump()}))  # as they are read again
    earlier, reason = read_earlier_split(name, settings, candidates, entry.near_duplicates == "group")

    table = split_images(candidates, entry, earlier)
    counts = count_images(table, len(classes.names))
    if len(earlier) and counts.min(axis=None) < MIN_IMAGES:
        reason = "the earlier split leaves too few images in a split"
        table = split_images(candidates, entry, NO_SPLIT)
        counts = count_images(table, len(classes.names))
    if reason:
        print(f"{where}: new split: {reason}")
    check_counts(counts, classes.names, table, where)
    near_duplicates = near_duplicates_across_splits(table[table["split"] != EXCLUDED])
    summary = summarize(table, near_duplicates, images)
    write_task(Task(name, entry.dataset, classes.names, images.sha256, table, settings, summary), near_duplicates)
    print(counts.rename(index=dict(enumerate(classes.names))).rename_axis("class").to_string())
    for sentence in summary_sentences(summary):
        print(sentence)
    return f"{len(classes.names)} classes, " + ", ".join(f"{int(counts[split].sum())} {split}" for split in SPLITS)


def select_images(entry: TaskConfig, images: pd.DataFrame, classes: TaskClasses, seed: int, where: str) -> pd.DataFrame:
    """The images of the task's classes with the task's labels, and the columns that decide their split.

    published: the split of the dataset. position: see `hash_positions`. name_group: see `groups_from_names`.
    """
    table = images[images["label"].isin(classes.label_of)].rename(columns={"split": "published"})
    labels = table["label"].map(classes.label_of)
    return table.assign(
        **{"label": labels, "class": labels.map(dict(enumerate(classes.names)))},
        position=hash_positions(table["sha256"], seed),
        name_group=groups_from_names(entry.group, table["name"], where) if entry.group else "",
    )


def split_images(candidates: pd.DataFrame, entry: TaskConfig, earlier: pd.DataFrame) -> pd.DataFrame:
    """The images of the task with their split, fold, group_id and order.

    earlier: the table of the split that images keep; may be empty.
    """
    table = limit_per_class(candidates, entry.max_per_class, earlier)
    splits = splits_by_content(earlier)
    table = table.assign(
        earlier_split=[splits.get(content, "") for content in table["sha256"]],
        group_id=group_ids(table, entry.near_duplicates == "group"),
    )
    order = table.groupby("label")["position"].rank(method="first").astype(int)
    splits = assign_splits(table, entry.validation, entry.test)
    return table.assign(split=splits, fold=np.where(splits == "validation", 0, -1), order=order)


if __name__ == "__main__":
    run_stage(main, "tasks")
