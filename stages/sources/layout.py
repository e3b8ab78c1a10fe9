"""Class and split of an image from its path: `<class>/<image>` or `<split>/<class>/<image>` in any folder."""

import posixpath
import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
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
HELD_OUT = ("validation", "test")
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
    *(".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
}
# Also of pictures in other formats, which count as unreadable: they are not other files beside the images.
PICTURE_SUFFIXES = SUFFIXES | {
    *(
        ".apng",
        ".jxl",
        ".tga",
        ".ico",
        ".exr",
        ".hdr",
        ".svg",
        ".eps",
        ".psd",
        ".dcm",
        ".dicom",
        ".nii",
        ".fits",
        ".svs",
    ),
    *(".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
}
# Files without a suffix that accompany images.
TEXT_FILES = {"readme", "license", "licence", "copying", "notice", "changelog"}
# Files that operating systems create.
SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini", "icon\r"}


class Location(NamedTuple):
    """Class and split of a file.

    split: empty if its path has none. problem: why the file is unusable, or empty. unlabeled: why it has no class, or
    empty.
    """

    label: str
    split: str = ""
    problem: str = ""
    unlabeled: str = ""


def locate_images(
    files: Iterable[str], folders: Iterable[str], subfolder: str | None, where: str
) -> dict[str, Location]:
    """The location of every file that should be an image, in the given order.

    files, folders: paths with `/` inside the source. subfolder: files outside it are ignored. where: the name of the
    source in messages.

    Files next to the class folders are left out, unless their suffix is that of an image. Other files, such as
    annotations, are unlabeled if they are not in a class folder. Images without a class folder are unlabeled, and so
    are those beside a split folder for training, and those of validation and test in a folder that the images for
    training lack.
    `UserError` for empty class folders, for a folder such as `test` beside class folders, for a folder of validation
    and test with nearly the name of a class, and if there is no class folder.
    """
    below = {name: parts for name in files if (parts := _below(name, subfolder))}
    if subfolder and not below:
        raise UserError(f"{where} has no files in folder {subfolder!r}. Correct subfolder.")
    above = {parts[:depth] for parts in below.values() for depth in range(len(parts))}
    empty = [parts for folder in folders if (parts := _below(folder, subfolder)) and parts not in above]
    if empty:
        raise UserError(
            *(
                f"{where}: the class folder {'/'.join(parts)!r} is empty. Put images in it, or remove it."
                for parts in empty
            )
        )

    outside = {name for name, parts in below.items() if ".." in parts or parts[0] == "/"}
    inside = {name: parts for name, parts in below.items() if name not in outside}
    # Other files do not decide the layout, unless no image is in a folder.
    pictures = {name for name, parts in inside.items() if len(parts) > 1 and not may_be_other(name)} or set(inside)
    with_folders = {inside[name][:depth] for name in pictures for depth in range(len(inside[name]) - 1)}
    locations, bases = {}, {}
    for name, parts in below.items():
        if name in outside:
            locations[name] = Location("", problem="its path leads out of the source")
        elif len(parts) > 1 and parts[:-1] not in with_folders:
            split = SPLIT_NAMES.get(parts[-3].casefold(), "") if len(parts) > 2 else ""
            locations[name] = Location(class_name(parts[-2]), split)
            if name in pictures:
                bases.setdefault(_base(parts, split), "/".join(parts[:-1]))
        elif has_picture_suffix(name):
            locations[name] = Location("", unlabeled="it is next to the class folders, so it has no class")
    usable = [location for name, location in locations.items() if location.label and name in pictures]
    if all(_is_split_alone(location) for location in usable):
        within = " and ".join(sorted({location.label for location in usable}))
        raise UserError(
            f"{where} has no <class>/<image> files. Put the images of each class in a folder named after the class"
            f"{', also in ' + within if within else ''}."
        )
    if len(bases) > 1:
        first, second, *_ = bases.values()
        raise UserError(
            f"{where} has class folders in different places, such as {first!r} and {second!r}. Name the folder that "
            "holds all of them and nothing else (subfolder of an archive, path of a folder), or list the images in a "
            "table (source: csv)."
        )
    readable = {posixpath.splitext(name)[0] for name in inside if _suffix(name) in SUFFIXES}
    for name, location in locations.items():
        if location.label and _base(below[name], location.split) not in bases:
            locations[name] = Location("", unlabeled="it is not in a class folder")
        elif _suffix(name) in PICTURE_SUFFIXES - SUFFIXES and posixpath.splitext(name)[0] in readable:
            locations[name] = Location("", unlabeled="the same picture is beside it in a format that is read")
    if any(location.split for location in usable):
        if any(location.split == "train" for location in usable):
            for name, location in locations.items():
                if location.label and not location.split and not _is_split_alone(location):
                    locations[name] = Location("", unlabeled="it is beside the split folders")
        named = {
            (location.label, location.split): f"{where}: folder {'/'.join(below[name][:-1])!r}"
            for name, location in locations.items()
            if location.label and not _is_split_alone(location)
        }
        unlabeled = only_held_out(named)
        for name, location in locations.items():
            if _is_split_alone(location):
                locations[name] = Location("", unlabeled=f"it is in {location.label!r} without a class folder")
            elif location.split in HELD_OUT and location.label in unlabeled:
                locations[name] = Location("", unlabeled=unlabeled[location.label])
    else:
        _refuse_split_beside_classes(sorted({location.label for location in usable}), where)
    return locations


def _base(parts: tuple[str, ...], split: str) -> tuple[str, ...]:
    """The folder that holds the class folders or the split folders."""
    return parts[: -3 if split else -2]


def only_held_out(named: dict[tuple[str, str], str]) -> dict[str, str]:
    """Labels of validation and test that are not classes, because the images for training have others; with the reason.

    named: label and split -> how a message names them. Only if there are at least two classes for training. `UserError`
    for a label that is close to one of these classes: it would lose published images of the class.
    """
    trained = {label.casefold(): label for label, split in named if split not in HELD_OUT}
    others = {label for label, _ in named if len(trained) > 1 and label.casefold() not in trained}
    problems = [
        f"{name} has no training images (did you mean {trained[closest]!r}?). Rename it as its class is named for "
        "training, or take it out of the dataset if it is not a class."
        for (label, _), name in named.items()
        if label in others and (closest := _closest(label.casefold(), trained))
    ]
    if problems:
        raise UserError(*problems)
    return {label: f"{label!r} is only in validation or test, so it is not a class" for label in others}


def _closest(label: str, trained: Iterable[str]) -> str:
    """The most similar class, or empty. Numbers tell classes apart: `1` and `10`, or `type 1` and `type 2`."""

    def numbers(name: str) -> list[int]:
        return [int(digits) for digits in re.findall("[0-9]+", name)]

    own = numbers(label)
    similar = [name for name in trained if not own or not numbers(name) or numbers(name) == own]
    return next(iter(get_close_matches(label, similar, n=1)), "")


def _refuse_split_beside_classes(labels: list[str], where: str) -> None:
    """`UserError` for folders such as `test` beside class folders: their images may be unlabeled."""
    splits = [label for label in labels if SPLIT_NAMES.get(label.casefold()) in HELD_OUT]
    classes = [label for label in labels if label not in splits]
    if splits and len(classes) > 1:
        raise UserError(
            *(
                f"{where}: folder {split!r} has the name of a split, but is beside class folders such as "
                f"{classes[0]!r}. Move it to another place if its images have no class, or rename it if it is a class."
                for split in splits
            )
        )


def has_picture_suffix(name: str) -> bool:
    """Whether the suffix of a file name is that of a picture."""
    return _suffix(name) in PICTURE_SUFFIXES


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.casefold()


def may_be_other(name: str) -> bool:
    """Whether a file may be something else beside the pictures, such as a .json file or a README without a suffix."""
    path = PurePosixPath(name)
    return path.name.casefold() in TEXT_FILES or (bool(path.suffix) and not has_picture_suffix(name))


def _is_split_alone(location: Location) -> bool:
    """Whether an image is directly in a folder with the name of a split."""
    return location.label.casefold() in SPLIT_NAMES and not location.split


def _below(name: str, subfolder: str | None) -> tuple[str, ...]:
    """The parts of a path below the subfolder; none for other, hidden and system files."""
    # Some Windows programs write \\ into a zip.
    parts = PurePosixPath(name if "/" in name else name.replace("\\", "/")).parts
    if any(map(is_system_file, parts)):
        return ()
    inside = _folders(subfolder or "")
    return parts[len(inside) :] if tuple(map(_normalized, parts[: len(inside)])) == inside else ()


@cache
def _folders(subfolder: str) -> tuple[str, ...]:
    return PurePosixPath(_normalized(subfolder.replace("\\", "/"))).parts


def _normalized(name: str) -> str:
    """A name in one normalization of Unicode: macOS writes an accented letter as two characters."""
    return unicodedata.normalize("NFC", name)


def is_system_file(part: str) -> bool:
    """Whether a file or folder of this name is hidden or created by an operating system."""
    return part.casefold() in SYSTEM_FILES or (part.startswith(".") and part != "..")


def printable(name: str) -> str:
    """A name as one line of text, also if its bytes are not UTF-8 (old tar archives) or contain line ends."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(repr(mark)[1:-1] if unicodedata.category(mark) == "Cc" else mark for mark in text)


def class_name(name: str) -> str:
    """The class of a folder name or table cell."""
    return _normalized(printable(name))
