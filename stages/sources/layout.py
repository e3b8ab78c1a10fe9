"""What the path of an image says: `<class>/<image>` or `<split>/<class>/<image>`, in any folder above."""

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from stages.core.errors import UserError

# What published datasets call their parts, in small letters.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
# What operating systems leave behind.
LITTER = {"__macosx", "thumbs.db", "desktop.ini", "icon\r"}


class Location(NamedTuple):
    """Where a file belongs. split: empty where its path names none. problem: why it cannot be used, or empty."""

    label: str
    split: str = ""
    problem: str = ""


def locate_images(
    files: Iterable[str], folders: Iterable[str], subfolder: str | None, where: str
) -> dict[str, Location]:
    """The place of every file that is meant to be an image, in the order given.

    files, folders: paths with `/` inside the source. subfolder: only what lies below it counts. where: what the source
    is called in messages.

    Files beside the class folders are passed over, unless they look like images. `UserError` for an empty class folder
    and where there is no class folder at all.
    """
    below = {name: parts for name in files if (parts := _below(name, subfolder))}
    if subfolder and not below:
        raise UserError(f"{where} holds nothing in the folder {subfolder!r}; correct subfolder.")
    above = {parts[:depth] for parts in below.values() for depth in range(len(parts))}
    for folder in folders:
        if (parts := _below(folder, subfolder)) and parts not in above:
            raise UserError(f"{where}: the class folder {'/'.join(parts)!r} is empty; put images in it, or remove it.")

    outside = {name for name, parts in below.items() if ".." in parts or parts[0] == "/"}
    with_folders = {
        parts[:depth] for name, parts in below.items() if name not in outside for depth in range(len(parts) - 1)
    }
    found = {}
    for name, parts in below.items():
        if name in outside:
            found[name] = Location("", problem="its path leads out of the source")
        elif len(parts) > 1 and parts[:-1] not in with_folders:
            split = SPLIT_NAMES.get(parts[-3].casefold(), "") if len(parts) > 2 else ""
            found[name] = Location(class_name(parts[-2]), split)
        elif PurePosixPath(name).suffix.casefold() in SUFFIXES:
            found[name] = Location("", problem="it lies beside the class folders, so that it has no class")
    good = [place for place in found.values() if not place.problem]
    if all(_is_split_alone(place) for place in good):
        within = " and ".join(sorted({place.label for place in good}))
        raise UserError(
            f"{where} holds no <class>/<image> files; put the images of each class in a folder of its name"
            f"{', also in ' + within if within else ''}."
        )
    bases = {}
    for name, place in found.items():
        if not place.problem:
            base = below[name][: -3 if place.split else -2]
            bases.setdefault(base, "/".join(below[name][:-1]))
    if len(bases) > 1:
        one, other, *_ = bases.values()
        raise UserError(
            f"{where} has class folders in different places, such as {one!r} and {other!r}; name the folder that holds "
            "all of them and nothing else (subfolder of an archive, path of a folder), or list the images in a table "
            "(source: csv)."
        )
    if any(place.split for place in good):
        for name, place in found.items():
            if _is_split_alone(place):
                found[name] = Location("", problem=f"it lies in {place.label!r} without a class folder")
    return found


def _is_split_alone(place: Location) -> bool:
    """Whether an image lies in a folder that is called as a split, with no class between."""
    return place.label.casefold() in SPLIT_NAMES and not place.split


def _below(name: str, subfolder: str | None) -> tuple[str, ...]:
    """The parts of a path below the subfolder; none for what lies elsewhere, is hidden or is litter."""
    # Some Windows programs write \\ into a zip.
    parts = PurePosixPath(name if "/" in name else name.replace("\\", "/")).parts
    if any(map(is_system_file, parts)):
        return ()
    inside = PurePosixPath(subfolder or "").parts
    return parts[len(inside) :] if parts[: len(inside)] == inside else ()


def is_system_file(part: str) -> bool:
    """Whether a file or folder of this name is hidden, or of the operating system, and no part of the data."""
    return part.casefold() in LITTER or (part.startswith(".") and part != "..")


def printable(name: str) -> str:
    """A name as one line of text, also where its bytes were no UTF-8 (old tar archives) or ended a line."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(repr(mark)[1:-1] if unicodedata.category(mark) == "Cc" else mark for mark in text)


def class_name(name: str) -> str:
    """The class a folder or a cell of a table names; macOS writes an accented letter as two characters."""
    return unicodedata.normalize("NFC", printable(name))
