"""Finds the files that a table lists, also where the table writes their paths in another way."""

import os
import posixpath
import unicodedata
from collections import defaultdict
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from stages.core.wording import did_you_mean, listing
from stages.sources.layout import has_picture_suffix, printable

MOST_SUGGESTIONS = 10  # each compares a path with those of all files


def locate_files(folder: Path, paths: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Listed path -> the file in the folder that it means; and listed path -> why there is none.

    A path may have \\ between folders, another Unicode normalization than the file, and no suffix if only one picture
    has its name.
    """
    files = {path: path for path in paths if os.path.lexists(folder / path) and not (folder / path).is_dir()}
    unknown = [path for path in paths if path not in files]
    if not unknown:
        return files, {}
    existing = [
        (Path(above) / name).relative_to(folder).as_posix() for above, _, names in os.walk(folder) for name in names
    ]
    by_path, by_stem = defaultdict(list), defaultdict(list)
    for file in sorted(existing):
        by_path[_normalized(file)].append(file)
        if has_picture_suffix(file):
            by_stem[_normalized(posixpath.splitext(file)[0])].append(file)
    problems = {}
    for path in unknown:
        candidates = by_path.get(_normalized(path)) or by_stem.get(_normalized(path)) or []
        if len(candidates) == 1:
            files[path] = candidates[0]
        elif candidates:
            problems[path] = f"it could be any of {listing(map(printable, candidates))}"
        elif os.path.lexists(folder / path):
            problems[path] = "it is not a file"
        elif _normalized(path).startswith("../"):
            problems[path] = "it leads out of the folder"
        else:
            hint = _nearest(path, existing) if len(problems) < MOST_SUGGESTIONS else ""
            problems[path] = f"it does not exist{hint}"
    return files, problems


def _normalized(path: str) -> str:
    return unicodedata.normalize("NFC", posixpath.normpath(path.replace("\\", "/")))


def _nearest(path: str, files: list[str]) -> str:
    """A suggestion: a file of the same name in another folder, with another suffix, or of a similar path."""
    wanted = PurePosixPath(_normalized(path).casefold())
    for part in ("name", "stem"):
        same = [file for file in files if getattr(PurePosixPath(file.casefold()), part) == getattr(wanted, part)]
        if same:
            return f" (did you mean {get_close_matches(path, map(printable, sorted(same)), n=1, cutoff=0)[0]!r}?)"
    return did_you_mean(path, map(printable, files))
