"""Reads local folders: one folder per class, or a table of paths and labels."""

import csv
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from stages.config.datasets import CsvConfig, FolderConfig
from stages.core.errors import UserError
from stages.core.wording import did_you_mean, listing
from stages.sources.archives import LARGEST_FILE
from stages.sources.layout import SPLIT_NAMES, SUFFIXES, class_name, is_system_file, locate_images, printable
from stages.sources.source_image import SourceImage, unusable_image

COLUMNS = ["path", "label", "split", "group"]


def folder_images(dataset: FolderConfig, path: Path) -> Iterator[SourceImage]:
    """The images of a folder of class folders, in the order of their names."""
    for name, location in locate_images(*_walk(path), None, repr(str(path))).items():
        if location.problem:
            yield unusable_image(printable(name), location.label, location.problem)
        else:
            content = lambda name=name: _read(path, name)  # noqa: E731
            yield SourceImage(printable(name), location.label, content, location.split)


def csv_images(dataset: CsvConfig, path: Path) -> Iterator[SourceImage]:
    """The images that a table in the folder lists, in its order. Paths are relative to the folder."""
    for row in list(_rows_of(path / dataset.table)):  # check all rows before the first image is decoded
        content = lambda name=row["path"]: _read(path, name)  # noqa: E731
        yield SourceImage(
            printable(row["path"]), class_name(row["label"]), content, row["split"], printable(row["group"])
        )


def unlabeled_images(path: Path) -> Iterator[SourceImage]:
    """A file, or every file of a folder and its subfolders by name, read as those of a dataset are.

    Hidden files are left out, as everywhere; those that look like images are unusable images with this reason.
    """
    if not path.is_dir():
        file = path.resolve()
        yield SourceImage(printable(str(path)), "", lambda: _read(file.parent, file.name))
        return
    for name in _walk(path)[0]:
        shown = printable(str(path / name))
        if not is_system_file(Path(name).name):
            yield SourceImage(shown, "", lambda name=name: _read(path, name))
        elif Path(name).suffix.casefold() in SUFFIXES and not Path(name).name.startswith("._"):  # macOS's own
            yield unusable_image(shown, "", "it is hidden. Rename it")


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
            raise ValueError(f"it has {status.st_size:,} bytes, more than {LARGEST_FILE:,}")
        return file.read_bytes()
    except RuntimeError:  # Python 3.11 and 3.12, of links in a ring
        raise ValueError("it cannot be read (Too many levels of symbolic links)") from None
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None


def _rows_of(file: Path) -> Iterator[dict[str, str]]:
    """The rows of a table with path, label, split and group; `UserError` with the line of a mistake."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            yield from _checked(str(file), csv.DictReader(lines, skipinitialspace=True, strict=True))
    except FileNotFoundError:
        raise UserError(f"table {str(file)!r} does not exist. Correct `path` or `table`.") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{str(file)!r} cannot be read as a table ({error}). Save it as UTF-8 text.") from None


def _checked(file: str, reader: csv.DictReader) -> Iterator[dict[str, str]]:
    reader.fieldnames = names = [name.strip().casefold() for name in reader.fieldnames or []]
    for column in ("path", "label"):
        if column not in names:
            raise UserError(
                f"{file!r} has no column {column!r}{did_you_mean(column, names)}. Columns: {listing(names)}. "
                "The first line must name the columns: path, label and optionally split and group."
            )
    seen = set()
    for row in reader:
        where = f"{file!r}, line {reader.line_num}"
        if None in row:
            raise UserError(f"{where}: more cells than columns. Put text with commas in quotes.")
        row = {column: (row.get(column) or "").strip() for column in COLUMNS}
        if not any(row.values()):
            continue
        for column in ("path", "label"):
            if not row[column]:
                raise UserError(f"{where}: {column} is empty. Fill it in.")
        if row["path"] in seen:
            raise UserError(f"{where}: {row['path']!r} is listed twice. Remove one of the lines.")
        seen.add(row["path"])
        split = row["split"].casefold()
        if split and split not in SPLIT_NAMES:
            raise UserError(
                f"{where}: {row['split']!r} is not a split. Give {listing(SPLIT_NAMES)}, or leave it empty."
            )
        yield {**row, "split": SPLIT_NAMES.get(split, "")}
    if not seen:
        raise UserError(f"{file!r} lists no images. Add a line with path and label for each image.")
