"""Class and split of an image from its path: `<class>/<image>` or `<split>/<class>/<image>` in any folder."""

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from stages.core.errors import UserError

# Names of splits in published datasets, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
    *(".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
}
# Files that operating systems create.
SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini", "icon\r"}


class Location(NamedTuple):
    """Class and split of a file. split: empty if its path has none. problem: why the file is unusable, or empty."""

    label: str
    split: str = ""
    problem: str = ""


def locate_images(
    files: Iterable[str], folders: Iterable[str], subfolder: str | None, where: str
) -> dict[str, Location]:
    """The location of every file that should be an image, in the given order.

    files, folders: paths with `/` inside the source. subfolder: files outside it are ignored. where: the name of the
    source in messages.

    Files next to the class folders are ignored, unless their suffix is that of an image. `UserError` for an empty class
    folder, and if there is no class folder.
    """
    below = {name: parts for name in files if (parts := _below(name, subfolder))}
    if subfolder and not below:
        raise UserError(f"{where} has no files in folder {subfolder!r}. Correct subfolder.")
    above = {parts[:depth] for parts in below.values() for depth in range(len(parts))}
    for folder in folders:
        if (parts := _below(folder, subfolder)) and parts not in above:
            raise UserError(f"{where}: the class folder {'/'.join(parts)!r} is empty. Put images in it, or remove it.")

    outside = {name for name, parts in below.items() if ".." in parts or parts[0] == "/"}
    with_folders = {
        parts[:depth] for name, parts in below.items() if name not in outside for depth in range(len(parts) - 1)
    }
    locations = {}
    for name, parts in below.items():
        if name in outside:
            locations[name] = Location("", problem="its path leads out of the source")
        elif len(parts) > 1 and parts[:-1] not in with_folders:
            split = SPLIT_NAMES.get(parts[-3].casefold(), "") if len(parts) > 2 else ""
            locations[name] = Location(class_name(parts[-2]), split)
        elif PurePosixPath(name).suffix.casefold() in SUFFIXES:
            locations[name] = Location("", problem="it is next to the class folders, so it has no class")
    usable = [location for location in locations.values() if not location.problem]
    if all(_is_split_alone(location) for location in usable):
        within = " and ".join(sorted({location.label for location in usable}))
        raise UserError(
            f"{where} has no <class>/<image> files. Put the images of each class in a folder named after the class"
            f"{', also in ' + within if within else ''}."
        )
    bases = {}
    for name, location in locations.items():
        if not location.problem:
            base = below[name][: -3 if location.split else -2]
            bases.setdefault(base, "/".join(below[name][:-1]))
    if len(bases) > 1:
        first, second, *_ = bases.values()
        raise UserError(
            f"{where} has class folders in different places, such as {first!r} and {second!r}. Name the folder that "
            "holds all of them and nothing else (subfolder of an archive, path of a folder), or list the images in a "
            "table (source: csv)."
        )
    if any(location.split for location in usable):
        for name, location in locations.items():
            if _is_split_alone(location):
                locations[name] = Location("", problem=f"it is in {location.label!r} without a class folder")
    return locations


def _is_split_alone(location: Location) -> bool:
    """Whether an image is directly in a folder with the name of a split."""
    return location.label.casefold() in SPLIT_NAMES and not location.split


def _below(name: str, subfolder: str | None) -> tuple[str, ...]:
    """The parts of a path below the subfolder; none for other, hidden and system files."""
    # Some Windows programs write \\ into a zip.
    parts = PurePosixPath(name if "/" in name else name.replace("\\", "/")).parts
    if any(map(is_system_file, parts)):
        return ()
    inside = PurePosixPath(subfolder or "").parts
    return parts[len(inside) :] if parts[: len(inside)] == inside else ()


def is_system_file(part: str) -> bool:
    """Whether a file or folder of this name is hidden or created by an operating system."""
    return part.casefold() in SYSTEM_FILES or (part.startswith(".") and part != "..")


def printable(name: str) -> str:
    """A name as one line of text, also if its bytes are not UTF-8 (old tar archives) or contain line ends."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(repr(mark)[1:-1] if unicodedata.category(mark) == "Cc" else mark for mark in text)


def class_name(name: str) -> str:
    """The class of a folder name or table cell, normalized: macOS writes an accented letter as two characters."""
    return unicodedata.normalize("NFC", printable(name))
