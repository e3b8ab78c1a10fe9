"""Splits the classes of a task into train, validation and test: data/tasks/<task>/split.csv."""

from contextlib import suppress

import pandas as pd

from stages.base.command import run_stage
from stages.base.errors import UserError
from stages.data.images import PreparedImages, read_images
from stages.data.tasks import SPLITS, TABLE_COLUMNS, Findings, Task, read_task, write_task
from stages.splitting.classes import classes_of
from stages.splitting.links import groups_in_names, linked
from stages.splitting.looks import alike_across
from stages.splitting.sides import LEFT_OUT, hash_positions, sides_of
from stages.study import Study
from stages.study.messages import listing
from stages.study.schema import Task as Entry


def main(study: Study, name: str) -> str:
    entry, where = study.tasks[name], f"tasks.{name}"
    images = read_images(entry.dataset)
    check_published(entry, images.table, where)
    classes = classes_of(entry, images.classes, where)
    settings = {"seed": study.seed, **entry.model_dump()}

    table = images.table[images.table["label"].isin(classes.label_of)].rename(columns={"split": "published"})
    table["label"] = table["label"].map(classes.label_of)
    table["class"] = table["label"].map(dict(enumerate(classes.names)))
    table["position"] = hash_positions(table["sha256"], study.seed)
    earlier = earlier_split(name, settings)
    sided = earlier[earlier["split"] != LEFT_OUT]
    table["kept"] = table["sha256"].map(dict(zip(sided["sha256"], sided["split"], strict=True))).fillna("").astype(str)
    table = at_most(table, entry.max_per_class, earlier["sha256"])
    if entry.group:
        table["group"] = groups_in_names(entry.group, table["name"], where)
    table["linked"] = linked(table, entry.near_duplicates == "group")
    table["split"] = sides_of(table, entry.validation, entry.test)
    table["order"] = table.groupby("label")["position"].rank(method="first").astype(int)
    counts = count(table, len(classes.names))
    check_counts(counts, classes.names, table, where)

    near = alike_across(table[table["split"] != LEFT_OUT])
    findings = findings_of(table, near, images)
    write_task(Task(name, entry.dataset, classes.names, images.sha256, table, settings, findings), near)
    print(counts.rename(index=dict(enumerate(classes.names))).rename_axis("class").to_string())
    for line in findings.sentences():
        print(line)
    return f"{len(classes.names)} classes, " + ", ".join(f"{int(counts[split].sum())} {split}" for split in SPLITS)


def check_published(entry: Entry, table: pd.DataFrame, where: str) -> None:
    """`UserError` where a side is to be as published, but the dataset publishes none."""
    for side in ("validation", "test"):
        if getattr(entry, side) == "published" and not (table["split"] == side).any():
            found = listing(split for split in SPLITS if (table["split"] == split).any())
            raise UserError(
                f"{where}.{side}: dataset {entry.dataset!r} publishes no {side} images (its splits: {found}); give a "
                "share, or a number of images per class."
            )


def earlier_split(name: str, settings: dict) -> pd.DataFrame:
    """The table of an earlier split by the same settings, or an empty one: images added since move no others."""
    with suppress(UserError):  # there is none, or it is damaged
        earlier = read_task(name)
        if earlier.settings == settings:
            return earlier.table
    return pd.DataFrame(columns=TABLE_COLUMNS, dtype=str)


def at_most(table: pd.DataFrame, images_per_class: int | None, earlier: pd.Series) -> pd.DataFrame:
    """The rows of at most so many images of each class: the earlier ones, then in the order of positions.

    earlier: contents of the images of an earlier split. Of several images of one content so many are earlier ones as
    there were.
    """
    if images_per_class is None:
        return table
    there_were = table["sha256"].map(earlier.value_counts()).fillna(0)
    new = table.groupby("sha256").cumcount() >= there_were
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


def findings_of(table: pd.DataFrame, near: pd.DataFrame, images: PreparedImages) -> Findings:
    """What the report says of a task beside its counts."""
    grouped = table.loc[table["group"] != "", "group"]
    return Findings(
        grouped=len(grouped),
        groups=int(grouped.nunique()),
        equal_content=int(table["sha256"].duplicated(keep=False).sum()),
        near_duplicates=len(near),
        left_out=int((table["split"] == LEFT_OUT).sum()),
        unreadable=len(images.quarantine),
        first_unreadable=images.quarantine[["name", "reason"]].head(10).to_dict("records"),
    )


if __name__ == "__main__":
    run_stage(main, "tasks")
