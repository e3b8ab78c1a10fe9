"""Splits the classes of a task into train, validation and test: data/tasks/<task>/split.csv."""

import json
from collections import Counter

import pandas as pd

from stages.artifacts.images import PreparedImages, read_images
from stages.artifacts.tasks import SPLITS, TASK_COLUMNS, TASKS_FOLDER, SplitSummary, Task, read_task, write_task
from stages.config.tasks import TaskConfig as Entry
from stages.core.errors import UserError
from stages.core.stage import run_stage
from stages.core.wording import listing
from stages.splitting.assignment import EXCLUDED, assign_splits, hash_positions
from stages.splitting.classes import TaskClasses, resolve_classes
from stages.splitting.groups import group_ids, groups_from_names
from stages.splitting.near_duplicates import near_duplicates_across_splits
from stages.validation.study import Study


def main(study: Study, name: str) -> str:
    entry, where = study.tasks[name], f"tasks.{name}"
    images = read_images(entry.dataset)
    check_published(entry, images.table, where)
    classes = resolve_classes(entry, images.classes, where)
    candidates = candidates_of(entry, images.table, classes, study.seed, where)
    settings = json.loads(json.dumps({"seed": study.seed, **entry.model_dump()}))  # as it is read again
    earlier, reason = earlier_split(name, settings, candidates, entry)
    if reason:
        print(f"{where} is drawn afresh: {reason}")

    table = divide(candidates, entry, earlier)
    counts = count(table, len(classes.names))
    if len(earlier) and counts.min(axis=None) < 2:
        print(f"{where} is drawn afresh: the earlier split leaves too few images on a side")
        table = divide(candidates, entry, earlier.head(0))
        counts = count(table, len(classes.names))
    check_counts(counts, classes.names, table, where)
    near = near_duplicates_across_splits(table[table["split"] != EXCLUDED])
    findings = findings_of(table, near, images)
    write_task(Task(name, entry.dataset, classes.names, images.sha256, table, settings, findings), near)
    print(counts.rename(index=dict(enumerate(classes.names))).rename_axis("class").to_string())
    for line in findings.sentences():
        print(line)
    return f"{len(classes.names)} classes, " + ", ".join(f"{int(counts[split].sum())} {split}" for split in SPLITS)


def candidates_of(entry: Entry, images: pd.DataFrame, classes: TaskClasses, seed: int, where: str) -> pd.DataFrame:
    """The images of the task's classes, with the task's labels, and by what they are drawn and held together.

    published: the split the dataset gives; position: see `hash_positions`; named: see `groups_from_names`.
    """
    table = images[images["label"].isin(classes.label_of)].rename(columns={"split": "published"})
    labels = table["label"].map(classes.label_of)
    return table.assign(
        **{"label": labels, "class": labels.map(dict(enumerate(classes.names)))},
        position=hash_positions(table["sha256"], seed),
        named=groups_from_names(entry.group, table["name"], where) if entry.group else "",
    )


def divide(candidates: pd.DataFrame, entry: Entry, earlier: pd.DataFrame) -> pd.DataFrame:
    """The images of the task with their sides; earlier: the table of the split whose sides are kept, may be empty."""
    table = at_most(candidates, entry.max_per_class, earlier)
    sides = sides_in(earlier)
    table = table.assign(
        kept=[sides.get(content, "") for content in table["sha256"]],
        linked=group_ids(table, entry.near_duplicates == "group"),
    )
    order = table.groupby("label")["position"].rank(method="first").astype(int)
    return table.assign(split=assign_splits(table, entry.validation, entry.test), order=order)


def check_published(entry: Entry, table: pd.DataFrame, where: str) -> None:
    """`UserError` where a side is to be as published, but the dataset publishes none."""
    for side in ("validation", "test"):
        if getattr(entry, side) == "published" and not (table["split"] == side).any():
            found = listing(split for split in SPLITS if (table["split"] == split).any())
            raise UserError(
                f"{where}.{side}: dataset {entry.dataset!r} publishes no {side} images (its splits: {found}); give a "
                "share, or a number of images per class."
            )


def earlier_split(name: str, settings: dict, candidates: pd.DataFrame, entry: Entry) -> tuple[pd.DataFrame, str]:
    """The table of the split that is there, whose sides are kept; or an empty table and the reason why none is kept."""
    nothing = pd.DataFrame(columns=TASK_COLUMNS, dtype=str)
    if not (TASKS_FOLDER / name).exists():
        return nothing, "there is no earlier split"
    try:
        earlier = read_task(name)
    except UserError:
        return nothing, "the earlier split is damaged"
    if earlier.settings != settings:
        return nothing, "the settings have changed"
    sides = sides_in(earlier.table)
    # Without contents of which there are more than there were: one of those is new, and nobody knows which.
    there_were = Counter(earlier.table["sha256"])
    there_are = candidates["sha256"].map(candidates["sha256"].value_counts())
    old = candidates[
        candidates["sha256"].isin(sides) & (there_are <= [there_were[content] for content in candidates["sha256"]])
    ]
    sides_of_sets = old["sha256"].map(sides).groupby(group_ids(old, entry.near_duplicates == "group")).nunique()
    if (sides_of_sets > 1).sum() > earlier.findings.straddling:  # groups have been added to the images since
        return nothing, "the earlier split has images on two sides that belong together"
    return earlier.table, ""


def sides_in(earlier: pd.DataFrame) -> dict[str, str]:
    """Content -> side."""
    sided = earlier[earlier["split"] != EXCLUDED]
    return dict(zip(sided["sha256"], sided["split"], strict=True))


def at_most(table: pd.DataFrame, images_per_class: int | None, earlier: pd.DataFrame) -> pd.DataFrame:
    """The rows of at most so many images of each class: those of the earlier split, then in the order of positions.

    Of several images of one class and content so many are earlier ones as there were.
    """
    if images_per_class is None:
        return table
    key = ["class", "sha256"]
    there_were = Counter(earlier[key].itertuples(index=False, name=None))
    new = table.groupby(key).cumcount() >= [there_were[each] for each in table[key].itertuples(index=False, name=None)]
    ordered = table.assign(new=new).sort_values(["new", "position"], kind="stable")
    return table.loc[ordered.groupby("label").head(images_per_class).index.sort_values()]


def count(table: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Images of each class on each side: label -> train, validation, test."""
    counts = table.groupby(["label", "split"]).size().unstack(fill_value=0)
    return counts.reindex(index=range(classes), columns=SPLITS, fill_value=0)


def check_counts(counts: pd.DataFrame, classes: list[str], table: pd.DataFrame, where: str) -> None:
    """Every class needs at least two images on every side."""
    for label, row in counts.iterrows():
        for split in SPLITS:
            if row[split] < 2:
                largest = int(table.loc[table["label"] == label, "linked"].value_counts().max())
                together = f"; {largest} of its images belong together" if largest > 1 else ""
                raise UserError(
                    f"{where}: class {classes[label]!r} has {row['train']} train, {row['validation']} validation and "
                    f"{row['test']} test images{together}; each needs at least 2: give another share or more images."
                )


def findings_of(table: pd.DataFrame, near: pd.DataFrame, images: PreparedImages) -> SplitSummary:
    """What the report says of a task beside its counts."""
    grouped = table[(table["group"] != "") | (table["named"] != "")]
    return SplitSummary(
        grouped=len(grouped),
        groups=int(grouped["linked"].nunique()),
        equal_content=int(table["sha256"].duplicated(keep=False).sum()),
        near_duplicates=len(near),
        left_out=int((table["split"] == EXCLUDED).sum()),
        straddling=int((table[table["split"] != EXCLUDED].groupby("linked")["split"].nunique() > 1).sum()),
        unreadable=len(images.quarantine),
        first_unreadable=images.quarantine[["name", "reason"]].head(10).to_dict("records"),
    )


if __name__ == "__main__":
    run_stage(main, "tasks")
