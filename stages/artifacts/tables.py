"""Tables that stages write as CSV."""

from pathlib import Path

import pandas as pd

WHOLE_NUMBERS = {"index", "label", "fold", "order", "group_id"}


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a table of a stage. All columns but those of whole numbers stay text, also `nan` and `007`."""
    text = dict.fromkeys(set(columns) - WHOLE_NUMBERS, str)
    return pd.read_csv(path, usecols=columns, dtype=text, keep_default_na=False)
