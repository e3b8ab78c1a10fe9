"""Where results go: tables in reports/, which evaluate writes and report draws, and exported models."""

from pathlib import Path

import pandas as pd

from stages.core.files import atomic_directory, atomic_file, reading

REPORTS_FOLDER = Path("reports")
EXPORTS_FOLDER = Path("exports/recommended")
EXPORTED_MODELS = Path("exports")  # of the command `export`, not an output of a stage
INTERIM_FOLDER = Path("exports/interim_report")  # not an output of a stage
TEXT_COLUMNS = ("model", "actual", "predicted", "task", "features", "cut", "class")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, numbers with six significant digits."""
    with atomic_file(path) as partial:
        table.to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")


def write_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write every table as `<name>.csv`; other files of the folder are removed."""
    with atomic_directory(folder) as partial:
        for name, table in tables.items():
            write_table(partial / f"{name}.csv", table)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table; class names stay text, also `nan` and `007`. `UserError` if it is missing or damaged."""
    text = dict.fromkeys(TEXT_COLUMNS, str)
    with reading(path):
        columns = pd.read_csv(path, nrows=0).columns
        empty = {column: [""] for column in columns.difference(text)}
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)
