"""What the keys of a task leave of the parts of its dataset: at most `max_per_class` images, and folds of full size."""

from collections import Counter

import pandas as pd

from stages.splitting.assignment import EXCLUDED, FOLDS, MAX_FOLDS, MIN_IMAGES, TRAIN


def limit_per_class(
    table: pd.DataFrame, max_per_class: int | None, earlier: pd.DataFrame, numbers: set[str]
) -> pd.DataFrame:
    """At most `max_per_class` images of each class, of every part the same share; a smaller choice is a subset.

    table: the images of a task, with the columns label, class, sha256, position and part. earlier: the table of an
    earlier split, whose images come first. Among copies of one content in a class, as many are taken for images of the
    earlier split as it has. numbers: those of test and validation of which the task wants a number of images, not a
    share; they are not reduced, and as many folds as possible keep their number.
    """
    if max_per_class is None:
        return table
    keys = ["class", "sha256"]
    earlier_copies = Counter(earlier[keys].itertuples(index=False, name=None))
    copies = [earlier_copies[key] for key in table[keys].itertuples(index=False, name=None)]
    order = pd.DataFrame(
        {
            "excluded": table["part"] == EXCLUDED,
            "new": table.groupby(keys).cumcount() >= copies,
            "reduced": ~table["part"].isin(numbers),
            "place": _places(table, fill_folds="validation" in numbers),
            "part": table["part"],
            "position": table["position"],
        }
    )
    order = order.sort_values(list(order), kind="stable")
    chosen = order.groupby(table["label"]).head(max_per_class)
    return table.loc[chosen.index.sort_values()]


def _places(table: pd.DataFrame, fill_folds: bool) -> pd.Series:
    """The place of each image in its class and part, spread evenly over 0 to 1 (Sainte-Lague).

    So the images of a class below any bound have the same share of every part. fill_folds: the folds from 1 and train
    are one part instead, in which the images of a fold come before those of the next one.
    """
    fold = table["part"].map({part: number for number, part in enumerate(FOLDS)}).fillna(len(FOLDS))
    part = table["part"].where(~table["part"].isin(FOLDS[1:]), TRAIN) if fill_folds else table["part"]
    ordered = table.assign(part=part, fold=fold).sort_values(["fold", "position"], kind="stable")
    of_class_and_part = ordered.groupby(["label", "part"])
    return (of_class_and_part.cumcount() + 0.5) / of_class_and_part["position"].transform("size")


def keep_full_folds(table: pd.DataFrame, earlier_parts: set[str]) -> pd.Series:
    """The parts of the images of a task, where folds that are too small for a class are merged with train.

    table: columns label and part. earlier_parts: those of an earlier split. Fold 0 always stays. Another fold needs two
    images of each class, and two outside it for training; a new fold also half as many as fold 0. The first fold that
    is too small and all later ones only train. So the other folds keep their numbers, which are the same in all tasks
    of a dataset.
    """
    counts = table.groupby(["label", "part"]).size().unstack(fill_value=0)
    training = counts.drop(columns=["test", EXCLUDED], errors="ignore").sum(axis=1)
    kept = 1
    for part in FOLDS[1:]:
        images, first = (counts.get(fold, 0 * training) for fold in (part, "validation"))
        is_full = (2 * images >= first) | (part in earlier_parts)
        if not ((images >= MIN_IMAGES) & is_full & (training - images >= MIN_IMAGES)).all():
            break
        kept += 1
    return table["part"].where(~table["part"].isin(FOLDS[kept:]), TRAIN)


def limiting_classes(table: pd.DataFrame) -> list[str]:
    """The names of the classes with too few images for another fold, where another class has enough.

    table: the images of a task, with the columns class, split and fold.
    """
    folds = table.groupby(["class", "fold"]).size().unstack(fill_value=0)
    only_training = table[(table["split"] == TRAIN) & (table["fold"] == -1)]
    left = only_training.groupby("class").size().reindex(folds.index, fill_value=0)
    is_limiting = left < folds[0]
    if is_limiting.all() or table["fold"].max() + 1 == MAX_FOLDS:
        return []
    return [str(name) for name in folds.index[is_limiting]]
