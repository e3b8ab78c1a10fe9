"""Counts of a split, and the checks that every split has enough images."""

import pandas as pd

from stages.artifacts.images import PreparedImages
from stages.artifacts.tasks import SPLITS, SplitSummary
from stages.core.errors import UserError
from stages.core.wording import counted, listing
from stages.splitting.assignment import EXCLUDED, HELD_OUT, MIN_IMAGES
from stages.splitting.limits import limiting_classes


def check_published(settings: dict[str, float | int | str], dataset: str, images: pd.DataFrame, where: str) -> None:
    """Raise a `UserError` if a split is to be the published one, but the dataset does not publish it.

    settings: the values of `validation` and `test`. images: the table of the dataset, with a column split.
    """
    published = set(images["split"])
    for split in HELD_OUT:
        if settings[split] == "published" and split not in published:
            splits = listing(name for name in SPLITS if name in published)
            raise UserError(
                f"{where}.{split}: dataset {dataset!r} does not publish {split} images (splits: {splits}). Give a "
                "share, or a number of images per class."
            )


def count_images(table: pd.DataFrame, classes: int) -> pd.DataFrame:
    """The number of images of each class (row) in train, validation and test (columns)."""
    counts = table.groupby(["label", "split"]).size().unstack(fill_value=0)
    return counts.reindex(index=range(classes), columns=SPLITS, fill_value=0)


def check_counts(counts: pd.DataFrame, classes: list[str], table: pd.DataFrame, where: str) -> None:
    """Raise a `UserError` if a class has fewer than two images in a split. counts: see `count_images`."""
    for label, row in counts.iterrows():
        if row.min() < MIN_IMAGES:
            largest = int(table.loc[table["label"] == label, "group_id"].value_counts().max())
            group = f" (its largest group has {largest} images)" if largest > 1 else ""
            raise UserError(
                f"{where}: class {classes[label]!r} has {row['train']} train, {row['validation']} validation and "
                f"{counted(row['test'], 'test image')}{group}. Every split needs at least {MIN_IMAGES}: change "
                "the shares or add images."
            )


def summarize(
    table: pd.DataFrame, near_duplicates: pd.DataFrame, images: PreparedImages, is_published: bool
) -> SplitSummary:
    """Count what affected a split.

    table: the images of the task, see `stages.split.split_images`. is_published: whether the dataset publishes the
    validation split, which then is the only fold.
    """
    grouped = table[(table["group"] != "") | (table["name_group"] != "")]
    parts_per_group = table[table["split"] != EXCLUDED].groupby("group_id")["part"].nunique()
    return SplitSummary(
        grouped=len(grouped),
        groups=int(grouped["group_id"].nunique()),
        equal_content=int(table["sha256"].duplicated(keep=False).sum()),
        near_duplicates=len(near_duplicates),
        excluded=int((table["split"] == EXCLUDED).sum()),
        straddling=int((parts_per_group > 1).sum()),
        folds=int(table["fold"].max()) + 1,
        limiting_classes=[] if is_published else limiting_classes(table),
        unreadable=len(images.quarantine),
        first_unreadable=images.quarantine[["name", "reason"]].head(10).to_dict("records"),
    )
