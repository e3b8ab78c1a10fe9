"""Reads local folders: one folder per class, or a table of paths and labels."""

import csv
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.config.datasets import CsvConfig, FolderConfig
from stages.core.errors import UserError
from stages.core.wording import did_you_mean, listing
from stages.sources.layout import (
    HELD_OUT,
    SPLIT_NAMES,
    SUFFIXES,
    class_name,
    is_system_file,
    locate_images,
    may_be_other,
    only_held_out,
    printable,
)
from stages.sources.listed_files import locate_files
from stages.sources.source_image import LARGEST_FILE, NotAnImage, SourceImage, ignored_file, unusable_image

COLUMNS = ["path", "label", "split", "group"]
DELIMITERS = ",;\t|"
EXCEL_SEPARATOR = re.compile(r'"?sep=([^"\s]|\t)"?\s*', re.IGNORECASE)  # the first line of some tables, for Excel
MAX_LISTED = 10  # lines in an error


def folder_images(dataset: FolderConfig, path: Path) -> Iterator[SourceImage]:
    """The images of a folder of class folders, in the order of their names."""
    for name, location in locate_images(*_walk(path), None, repr(str(path))).items():
        if location.unlabeled:
            yield ignored_file(printable(name), location.label, location.unlabeled)
        elif location.problem:
            yield unusable_image(printable(name), location.label, location.problem)
        else:
            content = lambda name=name: _read(path, name)  # noqa: E731
            yield SourceImage(printable(name), location.label, content, location.split, is_optional=may_be_other(name))


def csv_images(dataset: CsvConfig, path: Path) -> Iterator[SourceImage]:
    """The images that a table in the folder lists, in its order. Paths are relative to the folder."""
    table = path / dataset.table
    rows = _labeled_rows(table)  # check all rows before the first image is decoded
    labeled = [row for row in rows if not row["unlabeled"]]
    files, problems = locate_files(path, [row["path"] for row in labeled])
    if len(problems) > dataset.max_unreadable * len(labeled):
        lines = [
            f"line {row['line']}, {row['path']!r}: {problems[row['path']]}"
            for row in labeled
            if row["path"] in problems
        ]
        raise UserError(
            f"{str(table)!r} lists {len(problems)} of {len(labeled)} paths without a file in {str(path)!r} "
            f"({'; '.join(lines[:MAX_LISTED])}). Correct the paths, or remove these lines."
        )
    for row in rows:
        name, label = files.get(row["path"], row["path"]), row["label"]
        if row["unlabeled"]:
            yield ignored_file(printable(name), "", row["unlabeled"])
        elif row["path"] in problems:
            yield unusable_image(printable(name), label, problems[row["path"]])
        else:
            content = lambda name=name: _read(path, name)  # noqa: E731
            yield SourceImage(printable(name), label, content, row["split"], printable(row["group"]))


def published_splits(dataset: FolderConfig | CsvConfig, path: Path) -> set[str]:
    """The splits of the images, empty for some, without looking for the files that a table lists."""
    if isinstance(dataset, CsvConfig):
        return {row["split"] for row in _labeled_rows(path / dataset.table) if not row["unlabeled"]}
    return {image.split for image in folder_images(dataset, path)}


def unlabeled_images(path: Path) -> Iterator[SourceImage]:
    """A file, or every file of a folder and its subfolders by name, read as those of a dataset are.

    Hidden files are left out, as everywhere; those that look like images are unusable images with this reason.
    """
    if not path.is_dir():
        file = path.resolve()
        yield SourceImage(printable(str(path)), "", lambda: _read(file.parent, file.name))
        return
    for name in _walk(path)[0]:
        displayed = printable(str(path / name))
        if not is_system_file(Path(name).name):
            yield SourceImage(displayed, "", lambda name=name: _read(path, name))
        elif Path(name).suffix.casefold() in SUFFIXES and not Path(name).name.startswith("._"):  # macOS's own
            yield unusable_image(displayed, "", "it is hidden. Rename it")


def _walk(path: Path) -> tuple[list[str], list[str]]:
    """The files and the folders in a folder, as sorted paths relative to it."""
    if not path.is_dir():
        raise UserError(f"folder {str(path)!r} does not exist. Correct `path`, or put the images there.")
    files, folders = [], []

    def unreadable(error: OSError) -> None:
        raise UserError(f"folder {error.filename!r} cannot be read ({error.strerror}). Correct its permissions.")

    for folder, inside, names in os.walk(path, onerror=unreadable):
        here = Path(folder)
        inside[:] = [name for name in inside if not is_system_file(name)]
        for name in inside:
            if (here / name).is_symlink():
                raise UserError(
                    f"{str(here / name)!r} is a link to a folder, which is not followed. Replace it with the folder."
                )
        files += [(here / name).relative_to(path).as_posix() for name in names]
        folders += [(here / name).relative_to(path).as_posix() for name in inside]
    return sorted(files), sorted(folders)


def _read(folder: Path, name: str) -> bytes:
    """The bytes of a file in the folder; ValueError with the reason if it is unusable."""
    file = folder / name
    try:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ValueError("it leads out of the folder")
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a file")
        if status.st_size > LARGEST_FILE:
            raise NotAnImage(f"it has {status.st_size:,} bytes, more than {LARGEST_FILE:,}")
        return file.read_bytes()
    except RuntimeError:  # Python 3.11 and 3.12, of links in a ring
        raise ValueError("it cannot be read (Too many levels of symbolic links)") from None
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None


def _labeled_rows(table: Path) -> list[dict[str, Any]]:
    """All rows of a table, also with unlabeled: why the image has no class, or empty."""
    rows = list(_rows_of(table))
    named = {}
    for row in rows:
        row["label"] = class_name(row["label"])
        if row["label"]:
            where = f"{str(table)!r}, line {row['line']}"
            named.setdefault((row["label"], row["split"]), f"{where}: class {row['label']!r}")
    unlabeled = only_held_out(named) | {"": "its label is empty"}
    return [{**row, "unlabeled": unlabeled.get(row["label"], "")} for row in rows]


def _rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table with path, label, split, group and line; `UserError` with the lines of all mistakes."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header = lines.readline()
            separator = EXCEL_SEPARATOR.fullmatch(header)
            if not separator:
                lines.seek(0)
            delimiter = separator[1] if separator else _delimiter(header)
            reader = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
            yield from _checked(str(file), reader, 1 if separator else 0)
    except FileNotFoundError:
        raise UserError(f"table {str(file)!r} does not exist. Correct `path` or `table`.") from None
    except csv.Error as error:
        line = reader.reader.line_num + bool(separator)
        raise UserError(
            f"{str(file)!r} cannot be read as a table ({error}, in or before line {line}). "
            "Close each quote, and write a quote inside of quotes twice."
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{str(file)!r} cannot be read as a table ({error}). Save it as UTF-8 text.") from None
    except OSError as error:
        raise UserError(
            f"{str(file)!r} cannot be read as a table ({error.strerror}). Give a text file that you may read."
        ) from None


def _delimiter(header: str) -> str:
    """The character between the columns of a table: the one by which most columns of the header are known."""

    def known(delimiter: str) -> int:
        return len(set(COLUMNS) & {name.strip(' \r\n"').casefold() for name in header.split(delimiter)})

    return max(DELIMITERS, key=known)


def _checked(file: str, reader: csv.DictReader, skipped: int) -> Iterator[dict[str, Any]]:
    """The rows. skipped: lines of the file before those of the reader."""
    reader.fieldnames = names = [name.strip().casefold() for name in reader.fieldnames or []]
    missing = [f"column {name!r}{did_you_mean(name, names)}" for name in ("path", "label") if name not in names]
    if missing:
        raise UserError(
            f"{file!r} has no {' and no '.join(missing)}. Columns: {listing(names)}. "
            "The first line must name the columns: path, label and optionally split and group."
        )
    seen, problems = set(), []
    for cells in reader:
        row = {column: (cells.get(column) or "").strip() for column in COLUMNS}
        if not any(row.values()) and None not in cells:
            continue
        split, line = row["split"].casefold(), reader.line_num + skipped
        problems += [f"{file!r}, line {line}: {problem}" for problem in _row_problems(cells, row, seen)]
        seen.add(row["path"])
        yield {**row, "split": SPLIT_NAMES.get(split, ""), "line": line}
    if problems:
        more = [f"{file!r}: {len(problems) - MAX_LISTED} more lines have mistakes."] if problems[MAX_LISTED:] else []
        raise UserError(*problems[:MAX_LISTED], *more)
    if not seen:
        raise UserError(f"{file!r} lists no images. Add one line per image, with its path and label.")


def _row_problems(cells: dict[str | None, Any], row: dict[str, str], seen: set[str]) -> Iterator[str]:
    """The mistakes of a row. seen: the paths of earlier rows."""
    if None in cells:
        yield "more cells than columns. Put text with commas in quotes."
        return
    is_held_out = SPLIT_NAMES.get(row["split"].casefold()) in HELD_OUT  # such images may have no label
    for column in ("path",) if is_held_out else ("path", "label"):
        if not row[column]:
            yield f"{column} is empty. Fill it in."
    if row["path"] and row["path"] in seen:
        yield f"{row['path']!r} is listed twice. Remove one of the lines."
    if row["split"] and row["split"].casefold() not in SPLIT_NAMES:
        yield f"{row['split']!r} is not a split. Give {listing(SPLIT_NAMES)}, or leave it empty."
