"""The split of an earlier run, which images keep when others are added or removed."""

from collections import Counter

import pandas as pd

from stages.artifacts.tasks import TASK_COLUMNS, TASKS_FOLDER, read_task
from stages.config.tasks import TaskConfig
from stages.core.errors import UserError
from stages.core.wording import counted
from stages.splitting.assignment import EXCLUDED, HELD_OUT, parts_of
from stages.splitting.groups import group_ids

NO_SPLIT = pd.DataFrame({column: pd.Series(dtype=int if column == "fold" else str) for column in TASK_COLUMNS})


def read_earlier_split(
    name: str, settings: dict, entry: TaskConfig, candidates: pd.DataFrame
) -> tuple[pd.DataFrame, str]:
    """The table of the earlier split; or an empty table, and the reason why it cannot be kept.

    settings: those of the task now. entry: the task, settled for its dataset. candidates: its images now, with the
    columns that `group_ids` needs.
    """
    if not (TASKS_FOLDER / name).exists():
        return NO_SPLIT, "no earlier split"
    try:
        earlier = read_task(name)
    except UserError:
        return NO_SPLIT, "the earlier split is damaged"
    if earlier.settings != settings:
        return NO_SPLIT, "the settings have changed"
    if earlier.summary.published != [split for split in HELD_OUT if getattr(entry, split) == "published"]:
        return NO_SPLIT, "the dataset publishes other splits"
    parts = parts_by_content(earlier.table)
    # Content with more copies than before is not counted: one copy is new, and cannot be told from the others.
    earlier_copies = Counter(earlier.table["sha256"])
    copies = candidates["sha256"].map(candidates["sha256"].value_counts())
    is_old = candidates["sha256"].isin(parts) & (
        copies <= [earlier_copies[content] for content in candidates["sha256"]]
    )
    old = candidates[is_old]
    parts_per_group = old["sha256"].map(parts).groupby(group_ids(old, entry.near_duplicates == "group")).nunique()
    if (parts_per_group > 1).sum() > earlier.summary.straddling:  # groups were added to the images
        return NO_SPLIT, "the earlier split has images of one group in several splits"
    return earlier.table, ""


def check_vanished(name: str, entry: TaskConfig, images: pd.DataFrame) -> None:
    """`UserError` if most images of the earlier split are missing from the dataset, by content or by name.

    A folder of images can be incomplete, as in a clone that did not fetch it. images: the dataset now.
    """
    try:
        earlier = read_task(name)
    except UserError:  # there is none, or it is damaged
        return
    table = earlier.table
    gone = table["name"][~table["sha256"].isin(images["sha256"]) & ~table["name"].isin(images["name"])]
    if earlier.dataset == entry.dataset and len(gone) > entry.max_vanished * len(table):
        raise UserError(
            f"tasks.{name}: {len(gone)} of {counted(len(table), 'image')} of the earlier split, such as "
            f"{gone.iloc[0]!r}, are not in dataset {entry.dataset!r} any more. Put them back (`dvc checkout` or `dvc "
            "pull`, if DVC tracks the folder), or set max_vanished: 1 to go on without them."
        )


def parts_by_content(earlier: pd.DataFrame) -> dict[str, str]:
    """sha256 of the content -> part, see `assign_parts`."""
    kept = earlier[earlier["split"] != EXCLUDED]
    return dict(zip(kept["sha256"], parts_of(kept), strict=True))
