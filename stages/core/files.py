"""Reads and writes files atomically: a half-written file is never mistaken for a complete one."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core.errors import UserError


def _partial(path: Path) -> Path:
    """The temporary neighbor of `path`; with the same suffix, by which some writers choose the format."""
    return path.with_name(f".partial-{path.name}")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`. Rename it to `path` if the block succeeds, else remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory next to `path`. Rename it to `path` if the block succeeds, else remove it."""
    partial = _partial(path)
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        _remove(path)
        partial.replace(path)
    finally:
        _remove(partial)


@contextmanager
def resumable_directory(path: Path, fingerprint: str) -> Iterator[Path]:
    """As `atomic_directory`, but yield the directory of an interrupted run again if it has the same `fingerprint`.

    After an error, the directory is removed. It stays after a kill or a keyboard interrupt.
    """
    partial = _partial(path)
    marker = partial / ".fingerprint"
    try:
        if not marker.exists() or marker.read_bytes() != fingerprint.encode():
            _remove(partial)
            partial.mkdir(parents=True)
            write_text(marker, fingerprint)
        yield partial
        marker.unlink()
        _remove(path)
        partial.replace(path)
    except Exception:
        _remove(partial)
        raise


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def keep_only(folder: Path, files: list[Path]) -> None:
    """Create a folder, and remove everything else than the given files from it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in set(folder.iterdir()) - set(files):
        _remove(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, keys in the given order; ValueError for NaN and infinity."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of reading an artifact in the block into a `UserError` that names it.

    path: the file or its folder.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or path} is missing. Run `dvc repro` to create it.") from None
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}). Delete it and run `dvc repro`.") from None


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote; `UserError` if it is missing or damaged."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
