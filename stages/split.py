"""Splits the images of a task into train, validation and test: data/tasks/<task>/split.csv.

All images of the dataset take part, so that tasks with other classes of it get the same split of their common images.
"""

import json

import pandas as pd

from stages.artifacts.images import read_images
from stages.artifacts.tasks import SPLITS, Task, write_task
from stages.config.parsing import parse_entry
from stages.config.tasks import TaskConfig
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.wording import counted
from stages.splitting.assignment import (
    EXCLUDED,
    HELD_OUT,
    MIN_IMAGES,
    assign_parts,
    folds_of,
    hash_positions,
    splits_of,
)
from stages.splitting.classes import TaskClasses, resolve_classes
from stages.splitting.counts import check_counts, check_published, contradicting_labels, count_images, summarize
from stages.splitting.earlier_split import NO_SPLIT, check_vanished, parts_by_content, read_earlier_split
from stages.splitting.groups import group_ids, groups_from_names
from stages.splitting.limits import keep_full_folds, limit_per_class
from stages.splitting.near_duplicates import near_duplicates_across_splits
from stages.splitting.summary import split_warnings, summary_sentences


def main(params: Params, name: str) -> str:
    written, where = parse_entry(params, "tasks", name, TaskConfig), f"tasks.{name}"
    images = read_images(written.dataset)
    check_vanished(name, written, images.table)
    check_published(written.model_dump(), written.dataset, images.table, where)
    classes = resolve_classes(written, images.classes, where)
    entry = written.settled(set(images.table["split"][images.table["label"].isin(classes.label_of)]))
    dataset = relate_images(entry, images.table, classes, params.seed, where)
    settings = json.loads(json.dumps({"seed": params.seed, **written.model_dump(exclude={"max_vanished"})}))
    candidates = dataset[dataset["label"].isin(classes.label_of)]
    earlier, reason = read_earlier_split(name, settings, entry, candidates)

    table = split_images(dataset, entry, classes, earlier)
    counts = count_images(table, len(classes.names))
    if len(earlier) and counts.min(axis=None) < MIN_IMAGES:
        reason = "the earlier split leaves too few images in a split"
        table = split_images(dataset, entry, classes, NO_SPLIT)
        counts = count_images(table, len(classes.names))
    if reason:
        print(f"{where}: new split: {reason}")
    check_counts(counts, entry, classes.names, table, images.classes, where)
    near_duplicates = near_duplicates_across_splits(table[table["split"] != EXCLUDED])
    contradictions = contradicting_labels(candidates, classes, table)
    summary = summarize(table, near_duplicates, contradictions, images, entry)
    related = related_images(dataset, table)
    task = Task(name, entry.dataset, classes.names, images.sha256, table, settings, summary, related)
    write_task(task, near_duplicates, contradictions)
    print(counts.rename(index=dict(enumerate(classes.names))).rename_axis("class").to_string())
    for sentence in [*summary_sentences(summary, name, entry.dataset), *split_warnings(name, summary)]:
        print(sentence)
    numbers = [f"{int(counts[split].sum())} {split}" for split in SPLITS]
    return ", ".join([counted(len(classes.names), "class"), *numbers, counted(task.folds, "fold")])


def relate_images(entry: TaskConfig, images: pd.DataFrame, classes: TaskClasses, seed: int, where: str) -> pd.DataFrame:
    """The images of the dataset, with the columns that decide their split.

    published: the split of the dataset. position: see `hash_positions`. name_group: see `groups_from_names`. group_id:
    see `group_ids`.
    """
    table = images.rename(columns={"split": "published"})
    table = table.assign(position=hash_positions(table["sha256"], seed), name_group="")
    if entry.group:
        groups_from_names(entry.group, table["name"][table["label"].isin(classes.label_of)], where)  # has to match some
        table["name_group"] = groups_from_names(entry.group, table["name"], where)
    return table.assign(group_id=group_ids(table, entry.near_duplicates == "group"))


def split_images(dataset: pd.DataFrame, entry: TaskConfig, classes: TaskClasses, earlier: pd.DataFrame) -> pd.DataFrame:
    """The images of the task with the task's labels, their part, split, fold and order.

    dataset: see `relate_images`. earlier: the table of the split that images keep; may be empty.
    """
    kept = parts_by_content(earlier)
    dataset = dataset.assign(earlier_part=[kept.get(content, "") for content in dataset["sha256"]])
    dataset = dataset.assign(part=assign_parts(dataset, entry.validation, entry.test))
    table = dataset[dataset["label"].isin(classes.label_of)]
    labels = table["label"].map(classes.label_of)
    table = table.assign(**{"label": labels, "class": labels.map(dict(enumerate(classes.names)))})
    numbers = {split for split in HELD_OUT if isinstance(getattr(entry, split), int)}
    table = limit_per_class(table, entry.max_per_class, earlier, numbers)
    parts = keep_full_folds(table, set(kept.values()))
    order = table.groupby("label")["position"].rank(method="first").astype(int)
    return table.assign(part=parts, split=splits_of(parts), fold=folds_of(parts), order=order)


def related_images(dataset: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The images of the dataset that are in groups of the task's images, but have a content that is not in the task."""
    is_related = dataset["group_id"].isin(table["group_id"]) & ~dataset["sha256"].isin(table["sha256"])
    return dataset[is_related].drop_duplicates("sha256")


if __name__ == "__main__":
    run_stage(main, "tasks")
