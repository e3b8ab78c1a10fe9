"""Counts of a split, and the checks that every split has enough images."""

from collections.abc import Iterable

import pandas as pd

from stages.artifacts.images import PreparedImages
from stages.artifacts.tasks import SPLITS, SplitSummary
from stages.config.tasks import TaskConfig
from stages.core.errors import UserError
from stages.core.wording import counted, listing
from stages.splitting.assignment import EXCLUDED, HELD_OUT, MIN_IMAGES
from stages.splitting.classes import TaskClasses, included_items
from stages.splitting.limits import limiting_classes

MAX_LISTED = 10  # classes in an error


def check_published(settings: dict[str, float | int | str], dataset: str, images: pd.DataFrame, where: str) -> None:
    """Raise a `UserError` if a split is to be the published one, but the dataset does not publish it.

    settings: the values of `validation` and `test`. images: the table of the dataset, with a column split.
    """
    published = set(images["split"])
    splits = listing(name for name in SPLITS if name in published)
    problems = [
        f"{where}.{split}: dataset {dataset!r} does not publish {split} images (splits: {splits}). Give a share, or a "
        "number of images per class."
        for split in HELD_OUT
        if settings[split] == "published" and split not in published
    ]
    if problems:
        raise UserError(*problems)


def count_images(table: pd.DataFrame, classes: int) -> pd.DataFrame:
    """The number of images of each class (row) in train, validation and test (columns)."""
    counts = table.groupby(["label", "split"]).size().unstack(fill_value=0)
    return counts.reindex(index=range(classes), columns=SPLITS, fill_value=0)


def check_counts(
    counts: pd.DataFrame,
    entry: TaskConfig,
    classes: list[str],
    table: pd.DataFrame,
    dataset_classes: list[str],
    where: str,
) -> None:
    """Raise a `UserError` for all classes with fewer than two images in a split.

    counts: see `count_images`. classes, table: the classes and the images of the task.
    """
    small = counts[counts.min(axis=1) < MIN_IMAGES]
    problems = []
    for label, row in small.head(MAX_LISTED).iterrows():
        images = table[table["label"] == label]
        unpublished = [
            split
            for split in HELD_OUT
            if getattr(entry, split) == "published" and split not in set(images["published"])
        ]
        if unpublished:
            problems.append(
                f"{where}: dataset {entry.dataset!r} publishes no images of class {classes[label]!r} for "
                f"{' and '.join(unpublished)}. Give a share, or leave the class out."
            )
            continue
        largest = int(images["group_id"].value_counts().max())
        group = f" (its largest group has {largest} images)" if largest > 1 else ""
        problems.append(
            f"{where}: class {classes[label]!r} has {row['train']} train, {row['validation']} validation and "
            f"{counted(row['test'], 'test image')}{group}. Every split needs at least {MIN_IMAGES}: change the shares "
            "or add images."
        )
    if len(small) > MAX_LISTED:
        problems.append(f"{where}: {len(small)} classes have too few images.")
    if len(counts) - len(small) >= 2 and len(small):
        problems.append(
            f"{where}: To leave these classes out, write `{_without(entry, classes, small.index, dataset_classes)}`."
        )
    if problems:
        raise UserError(*problems)


def _without(entry: TaskConfig, classes: list[str], labels: Iterable[int], dataset_classes: list[str]) -> str:
    """The line of a task without some of its classes, as YAML; all names are quoted."""
    if entry.include is not None:
        kept = [name for label, name in enumerate(classes) if label not in labels]
        key, items = "include", included_items(entry, dataset_classes, kept)
    else:
        key, items = "exclude", [*(entry.exclude or []), *(classes[label] for label in labels)]
    quoted = ("'" + item.replace("'", "''") + "'" if isinstance(item, str) else str(item) for item in items)
    return f"{key}: [{', '.join(quoted)}]"


def contradicting_labels(candidates: pd.DataFrame, classes: TaskClasses, table: pd.DataFrame) -> pd.DataFrame:
    """The images of a task whose content is also in another class of it, those of one content together.

    candidates: all images of the task's classes, with the labels of the dataset. table: those that the task uses.
    """
    names = candidates["label"].map({label: classes.names[new] for label, new in classes.label_of.items()})
    splits = candidates["index"].map(dict(zip(table["index"], table["split"], strict=True))).fillna(EXCLUDED)
    images = candidates.assign(**{"class": names, "split": splits})
    by_content = images.groupby("sha256", sort=False)
    is_contradicting = by_content["class"].transform("nunique") > 1
    return images[is_contradicting].sort_values(["sha256", "index"], kind="stable")


def unused_splits(entry: TaskConfig, table: pd.DataFrame) -> dict[str, list[int]]:
    """Split that the dataset publishes, but the task does not use -> its images, and how many are in other splits.

    table: the images of the task, with the columns published and split.
    """
    unused = {}
    for split in HELD_OUT:
        published = table[table["published"] == split]
        if getattr(entry, split) != "published" and len(published):
            unused[split] = [len(published), int((~published["split"].isin([split, EXCLUDED])).sum())]
    return unused


def summarize(
    table: pd.DataFrame,
    near_duplicates: pd.DataFrame,
    contradictions: pd.DataFrame,
    images: PreparedImages,
    entry: TaskConfig,
) -> SplitSummary:
    """Count what affected a split.

    table: the images of the task, see `stages.split.split_images`. contradictions: see `contradicting_labels`. entry:
    the task, settled for its dataset.
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
        limiting_classes=[] if entry.validation == "published" else limiting_classes(table),
        unreadable=len(images.quarantine),
        first_unreadable=images.quarantine[["name", "reason"]].head(10).to_dict("records"),
        ignored=images.ignored,
        contradictions=len(contradictions),
        first_contradictions=_first_content(contradictions),
        published=[split for split in HELD_OUT if getattr(entry, split) == "published"],
        unused=unused_splits(entry, table),
    )


def _first_content(contradictions: pd.DataFrame) -> list[dict[str, str]]:
    """Name and class of an image of each class of one content, at most of ten."""
    first = contradictions[contradictions["sha256"].isin(contradictions["sha256"].head(1))].drop_duplicates("class")
    return first[["name", "class"]].head(MAX_LISTED).to_dict("records")
