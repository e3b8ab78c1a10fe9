"""The split of an earlier run, which images keep when others are added or removed."""

from collections import Counter

import pandas as pd

from stages.artifacts.tasks import TASK_COLUMNS, TASKS_FOLDER, read_task
from stages.core.errors import UserError
from stages.splitting.assignment import EXCLUDED
from stages.splitting.groups import group_ids

NO_SPLIT = pd.DataFrame(columns=TASK_COLUMNS, dtype=str)


def read_earlier_split(
    name: str, settings: dict, candidates: pd.DataFrame, group_near_duplicates: bool
) -> tuple[pd.DataFrame, str]:
    """The table of the earlier split; or an empty table, and the reason why it cannot be kept.

    settings: those of the task now. candidates: its images now, with the columns that `group_ids` needs.
    """
    if not (TASKS_FOLDER / name).exists():
        return NO_SPLIT, "no earlier split"
    try:
        earlier = read_task(name)
    except UserError:
        return NO_SPLIT, "the earlier split is damaged"
    if earlier.settings != settings:
        return NO_SPLIT, "the settings have changed"
    splits = splits_by_content(earlier.table)
    # Content with more copies than before is not counted: one copy is new, and cannot be told from the others.
    earlier_copies = Counter(earlier.table["sha256"])
    copies = candidates["sha256"].map(candidates["sha256"].value_counts())
    is_old = candidates["sha256"].isin(splits) & (
        copies <= [earlier_copies[content] for content in candidates["sha256"]]
    )
    old = candidates[is_old]
    splits_per_group = old["sha256"].map(splits).groupby(group_ids(old, group_near_duplicates)).nunique()
    if (splits_per_group > 1).sum() > earlier.summary.straddling:  # groups were added to the images
        return NO_SPLIT, "the earlier split has images of one group in several splits"
    return earlier.table, ""


def splits_by_content(earlier: pd.DataFrame) -> dict[str, str]:
    """sha256 of the content -> split."""
    kept = earlier[earlier["split"] != EXCLUDED]
    return dict(zip(kept["sha256"], kept["split"], strict=True))


def limit_per_class(table: pd.DataFrame, max_per_class: int | None, earlier: pd.DataFrame) -> pd.DataFrame:
    """At most `max_per_class` images of each class: those of the earlier split first, then by ascending position.

    Among copies of one content in a class, as many are taken for images of the earlier split as it has.
    """
    if max_per_class is None:
        return table
    keys = ["class", "sha256"]
    earlier_copies = Counter(earlier[keys].itertuples(index=False, name=None))
    is_new = table.groupby(keys).cumcount() >= [
        earlier_copies[key] for key in table[keys].itertuples(index=False, name=None)
    ]
    ordered = table.assign(new=is_new).sort_values(["new", "position"], kind="stable")
    return table.loc[ordered.groupby("label").head(max_per_class).index.sort_values()]
