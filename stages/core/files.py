"""Reading and writing files so that a half-written one is never taken for a whole one."""

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
    """The temporary neighbor of `path`; the suffix stays, because some writers choose the format by it."""
    return path.with_name(f".partial-{path.name}")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` when the block ends well; else remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory beside `path` and rename it to `path` when the block ends well; else remove it."""
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
    """As `atomic_directory`, but what a killed run left is yielded again where it was begun for the same `fingerprint`.

    After an error nothing is left; only a run that is killed or interrupted from the keyboard leaves its work.
    """
    partial = _partial(path)
    mark = partial / ".made-of"
    try:
        if not mark.exists() or mark.read_bytes() != fingerprint.encode():
            _remove(partial)
            partial.mkdir(parents=True)
            write_text(mark, fingerprint)
        yield partial
        mark.unlink()
        _remove(path)
        partial.replace(path)
    except Exception:
        _remove(partial)
        raise


def _remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def keep_only(folder: Path, files: list[Path]) -> None:
    """Make a folder and remove everything in it but the given files."""
    folder.mkdir(parents=True, exist_ok=True)
    for other in set(folder.iterdir()) - set(files):
        _remove(other)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, keys in the order given; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong in the block while a file that a stage wrote is read becomes a `UserError` that names it.

    path: the file, or the folder it lies in.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or path} is missing; `dvc repro` makes it.") from None
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}); delete it and run `dvc repro`.") from None


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote; `UserError` when it is missing or broken."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
