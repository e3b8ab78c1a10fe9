"""Folders of this machine: with a folder for each class, or with a table of paths and labels."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from stages.base.errors import UserError
from stages.sources.archives import LARGEST_FILE
from stages.sources.image import SourceImage, left_out
from stages.sources.layout import SPLIT_NAMES, places, printable
from stages.study.messages import listing, nearest
from stages.study.schema import Csv, Folder

COLUMNS = ["path", "label", "split", "group"]


def folder_images(dataset: Folder, path: Path) -> Iterator[SourceImage]:
    """The images of a folder of class folders, in the order of their names."""
    for name, place in places(*_walk(path), None, repr(str(path))).items():
        if place.problem:
            yield left_out(printable(name), place.label, place.problem)
        else:
            content = lambda name=name: _read(path, name)  # noqa: E731
            yield SourceImage(printable(name), place.label, content, place.split)


def csv_images(dataset: Csv, path: Path) -> Iterator[SourceImage]:
    """The images that a table in the folder lists, in the order of the table; paths are relative to the folder."""
    table = _read_table(path / dataset.table)
    for row in table.itertuples():
        content = lambda name=row.path: _read(path, name)  # noqa: E731
        yield SourceImage(row.path, row.label, content, row.split, row.group)


def _walk(path: Path) -> tuple[list[str], list[str]]:
    """The files and the folders in a folder, as sorted paths relative to it."""
    if not path.is_dir():
        raise UserError(f"there is no folder {str(path)!r}; correct its path, or put the images there.")
    files, folders = [], []

    def unreadable(error: OSError) -> None:
        raise UserError(f"the folder {error.filename!r} cannot be read ({error.strerror}); allow it to be read.")

    for folder, inside, names in os.walk(path, onerror=unreadable):
        here = Path(folder)
        for name in inside:
            if (here / name).is_symlink():
                raise UserError(
                    f"{str(here / name)!r} is a link to a folder, which is not followed; put the folder itself there."
                )
        files += [(here / name).relative_to(path).as_posix() for name in names]
        folders += [(here / name).relative_to(path).as_posix() for name in inside]
    return sorted(files), sorted(folders)


def _read(folder: Path, name: str) -> bytes:
    """The bytes of a file in the folder; raises with the reason why it is left out."""
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ValueError("it leads out of the folder")
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        if found.st_size > LARGEST_FILE:
            raise ValueError(f"it has {found.st_size:,} bytes, more than {LARGEST_FILE:,}")
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None


def _read_table(file: Path) -> pd.DataFrame:
    """The table of a csv source: columns path, label, split and group, all text."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except FileNotFoundError:
        raise UserError(f"there is no table {str(file)!r}; correct path or table.") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{str(file)!r} cannot be read as a table ({reason}); save it as UTF-8 text.") from None
    for column in ("path", "label"):
        if column not in table:
            raise UserError(
                f"{str(file)!r} has no column {column!r}{nearest(column, table.columns)}, only "
                f"{listing(table.columns)}; the first line must name path, label and maybe split and group."
            )
    table = table.reindex(columns=COLUMNS, fill_value="")
    lines = table.index + 2  # after the line of names, counted from 1
    for column in ("path", "label"):
        if (missing := table[column].str.strip() == "").any():
            raise UserError(f"{str(file)!r}, line {lines[missing][0]}: {column} is empty; fill it in.")
    if (again := table["path"].duplicated()).any():
        raise UserError(
            f"{str(file)!r}, line {lines[again][0]}: {table['path'][again].iloc[0]!r} stands there twice; keep one."
        )
    given = table["split"].str.strip().str.casefold()
    if (unknown := ~given.isin(["", *SPLIT_NAMES])).any():
        raise UserError(
            f"{str(file)!r}, line {lines[unknown][0]}: {table['split'][unknown].iloc[0]!r} is no split; accepted: "
            f"{listing(SPLIT_NAMES)}, or nothing."
        )
    return table.assign(split=given.map({"": "", **SPLIT_NAMES}))
