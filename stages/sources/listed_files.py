"""Finds the files that a table lists, also where the table writes their paths in another way."""

import os
import posixpath
import unicodedata
from collections import defaultdict
from difflib import get_close_matches
from pathlib import Path

from stages.core.wording import listing
from stages.sources.layout import has_picture_suffix, printable

MOST_SUGGESTIONS, MOST_CANDIDATES = 10, 5000  # each suggestion compares a path with as many files


def locate_files(folder: Path, paths: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Listed path -> the file in the folder that it means; and listed path -> why there is none.

    A path may have \\ between folders, another Unicode normalization or letter case than the file, and no suffix if
    only one picture has its name.
    """
    files = {path: path for path in paths if os.path.lexists(folder / path) and not (folder / path).is_dir()}
    unknown = [path for path in paths if path not in files]
    if not unknown:
        return files, {}
    existing = sorted(
        (Path(above) / name).relative_to(folder).as_posix() for above, _, names in os.walk(folder) for name in names
    )
    by_path, by_stem, by_folded, by_folded_stem = indexes = [defaultdict(list) for _ in range(4)]
    for file in existing:
        by_path[_normalized(file)].append(file)
        by_folded[_folded(file)].append(file)
        if has_picture_suffix(file):
            by_stem[_normalized(posixpath.splitext(file)[0])].append(file)
            by_folded_stem[_folded(posixpath.splitext(file)[0])].append(file)
    problems = {}
    for path in unknown:
        names = (_normalized(path), _normalized(path), _folded(path), _folded(path))
        candidates = next((index[name] for index, name in zip(indexes, names, strict=True) if name in index), [])
        if len(candidates) == 1:
            files[path] = candidates[0]
        elif candidates:
            problems[path] = f"it could be any of {listing(map(printable, candidates))}"
        elif os.path.lexists(folder / path):
            problems[path] = "it is not a file"
        elif _normalized(path).startswith("../"):
            problems[path] = "it leads out of the folder"
        else:
            hint = _nearest(_folded(path), by_folded) if len(problems) < MOST_SUGGESTIONS else ""
            problems[path] = f"it does not exist{hint}"
    return files, problems


def _normalized(path: str) -> str:
    return unicodedata.normalize("NFC", posixpath.normpath(path.replace("\\", "/")))


def _folded(path: str) -> str:
    return _normalized(path).casefold()


def _nearest(path: str, files: dict[str, list[str]]) -> str:
    """A suggestion: a file of the same name in another folder or with another suffix, or of a similar path.

    path, files: normalized and in lower case. files: with their real paths.
    """
    folder, stem = posixpath.split(posixpath.splitext(path)[0])
    same = [file for file in files if posixpath.splitext(posixpath.basename(file))[0] == stem]
    candidates = sorted(same or files, key=lambda file: posixpath.dirname(file) != folder)[:MOST_CANDIDATES]
    closest = get_close_matches(path, candidates, n=1, cutoff=0 if same else 0.6)
    return f" (did you mean {printable(files[closest[0]][0])!r}?)" if closest else ""
