"""Fetching one file, from an address or a path, with its checksum."""

import shutil
from pathlib import Path

import pooch
import requests

from stages.base.errors import UserError
from stages.base.files import atomic_file


def fetch(source: str, target: Path, checksum: str | None) -> None:
    """Copy or download `source` to `target`, whole and verified or not at all.

    source: an http or https address, or a path (relative to the project's folder).
    checksum: `sha256:<digits>` or `md5:<digits>`; None accepts what comes. A target that has it already is kept.

    Raises `UserError` when the source is unreachable or its bytes are not those of the checksum.
    """
    if checksum and target.is_file() and _checksum(target, checksum) == checksum:
        return
    with atomic_file(target) as partial:
        if is_address(source):
            _download(source, partial)
        else:
            _copy(source, partial)
        if checksum and (found := _checksum(partial, checksum)) != checksum:
            raise UserError(
                f"{source!r} is not the file expected: its checksum is {found}, but the study expects {checksum}; "
                "fetch the file again, or correct the checksum if the new file is right."
            )


def is_address(source: str) -> bool:
    """Whether a source is an http or https address; else it is a path."""
    return source.startswith(("http://", "https://"))


def _copy(source: str, target: Path) -> None:
    path = Path(source)
    if path.is_dir():
        raise UserError(f"{source!r} is a folder; give a file (of images: a zip or tar of the class folders).")
    if path.resolve().parent == target.resolve().parent:
        raise UserError(f"{source!r} lies in {target.parent}, which this stage writes; move it to another folder.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{source!r} cannot be read ({error.strerror}); correct the path.") from None
    with file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy)


def _download(address: str, target: Path) -> None:
    try:
        pooch.HTTPDownloader(progressbar=True, timeout=30)(address, target, None)
    except requests.RequestException as error:
        raise UserError(
            f"{address!r} cannot be downloaded ({_reason(error)}); check the address and the connection, or fetch the "
            "file by other means and give its path instead of the address."
        ) from None


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}".rstrip()
    if isinstance(error, requests.Timeout):
        return "the server does not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return "there is no connection" if isinstance(error, requests.ConnectionError) else str(error)


def _checksum(path: Path, expected: str) -> str:
    algorithm = expected.split(":")[0]
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"
