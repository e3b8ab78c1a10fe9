"""Tables that stages write as CSV."""

from pathlib import Path

import pandas as pd


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table as a stage wrote it: text stays text, also `nan` and `007`, but in columns of whole numbers."""
    text = dict.fromkeys(set(columns) - {"index", "label", "order", "linked"}, str)
    return pd.read_csv(path, usecols=columns, dtype=text, keep_default_na=False)
