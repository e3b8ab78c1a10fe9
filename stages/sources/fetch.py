"""Downloads or copies one file, and verifies its checksum."""

import errno
import hashlib
import re
import shutil
import time
from pathlib import Path

import requests
import urllib3
from requests.adapters import HTTPAdapter

from stages.core.errors import UserError
from stages.core.files import atomic_file, sha256_of
from stages.core.progress import Progress
from stages.sources.urls import is_url, local_path, redact

# Incomplete downloads. Not next to the target, whose folder is an output of a stage.
PARTIAL = Path("data/partial")
# Where messages propose to put a file that a user gets by other means. Git ignores it.
BY_HAND = Path("files")
# Seconds to wait for a connection, and for the next byte.
TIMEOUT = 30
# A download fails after this many consecutive requests without progress. The pause between them, in seconds, doubles
# each time; a server may ask for a longer one, up to the longest pause.
ATTEMPTS, BACKOFF, LONGEST_PAUSE = 5, 1, 60
# Temporary failures; other status codes are not retried.
TEMPORARY = (408, 429, *range(500, 600))
# The first class that matches counts.
REASONS = {
    urllib3.exceptions.NewConnectionError: "no connection",
    urllib3.exceptions.SSLError: "no secure connection",
    urllib3.exceptions.TimeoutError: "the server timed out",
    urllib3.exceptions.ProtocolError: "the connection was interrupted",
    urllib3.exceptions.HTTPError: "no connection",
}
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetch(source: str, target: Path, checksum: str | None, key: str = "url") -> None:
    """Copy or download `source` to `target` atomically, and verify its checksum.

    source: an http, https or file URL, or a path relative to the project.
    target: is unchanged if the fetch fails, and is not fetched again if it has the checksum.
    checksum: `sha256:<digits>` or `md5:<digits>`, in lower case; None accepts any file.
    key: of the study, which holds the source: `url`, or `weights`, which needs a `sha256` if it is not `imagenet`.

    An interrupted download is resumed; with a checksum also in the next run, from `PARTIAL`.

    Raises `UserError` if the source is unreachable, does not fit on the disk or has another checksum, and `OSError` if
    writing fails.
    """
    if checksum and target.is_file() and _checksum(target, checksum) == checksum:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_url(source):
        _copy(source, target, checksum)
        return
    try:
        _download(source, target, checksum, key)
    except UserError as error:
        raise UserError(redact(str(error))) from None


def _copy(source: str, target: Path, checksum: str | None) -> None:
    path = local_path(source)
    try:
        if path.is_dir():
            raise UserError(
                f"{source!r} is a folder. Give a file: for images a zip or tar of the class folders, for weights a "
                "file that Keras saved."
            )
        file = path.open("rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{source!r} cannot be read ({reason}). Correct the path.") from None
    with file, atomic_file(target) as partial:
        if target.parent.resolve() in path.resolve().parents:
            raise UserError(f"{source!r} is in {target.parent}, which this stage writes. Move it to another folder.")
        _check_room(source, path.stat().st_size, target.parent)
        with partial.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        _verify(source, partial, checksum)


def _download(url: str, target: Path, checksum: str | None, key: str) -> None:
    # Named after the target, not the URL: a mirror resumes the download of another server, and two stages can fetch the
    # same file at the same time.
    digits = hashlib.sha256(repr((str(target), checksum)).encode()).hexdigest()[:12]
    partial = PARTIAL / f"{target.name[-40:]}-{digits}"
    PARTIAL.mkdir(parents=True, exist_ok=True)
    if checksum is None:
        partial.unlink(missing_ok=True)  # it may be of another file
    try:
        while True:
            earlier = _transfer(url, partial, target, checksum)
            try:
                _verify(url, partial, checksum)
                break
            except UserError:
                partial.unlink()
                if not earlier:
                    raise
            # The partial file of the earlier run may be of another file. Start again.
        with atomic_file(target) as complete:
            shutil.move(partial, complete)  # not renamed: the folders may be on different disks
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        # ValueError: a server redirects to an invalid URL.
        raise UserError(
            f"{url!r} cannot be downloaded ({_reason(error)}). Check the URL and the connection, or "
            f"{_by_hand(BY_HAND / _name(url)[-100:], checksum, key)}."
        ) from None
    finally:
        if checksum is None:
            partial.unlink(missing_ok=True)


def _by_hand(path: Path, checksum: str | None, key: str) -> str:
    """What to do without a connection: where to put the file, and what to write into the study."""
    is_right = path.is_file() and (not checksum or _checksum(path, checksum) == checksum)
    algorithm, _, digits = (checksum or "").partition(":")
    file = f"the file, for which `{algorithm}sum` prints {digits}," if checksum else "the file"
    replacing = f"{path}, which is another file now," if path.is_file() else path
    action = f"use {path}, which is there:" if is_right else f"get {file} elsewhere, save it as {replacing} and"
    if checksum and key == "url":  # the study has the checksum
        return f"{action} set `url: {path}`"
    sha256 = f"`sha256: {sha256_of(path)}`" if is_right else f"`sha256` to what `sha256sum {path}` prints"
    return f"{action} set `{key}: {path}` and {sha256}"


def _transfer(url: str, partial: Path, target: Path, checksum: str | None) -> bool:
    """Download the rest of `partial`; True if it still starts with the bytes of an earlier run.

    urllib3 retries requests without a response, the loop interrupted responses. Both raise in the end.
    """
    largest = _size(partial)
    earlier, failures, validator = largest > 0, 0, None
    options = {"backoff_factor": BACKOFF, "retry_after_max": LONGEST_PAUSE, "raise_on_status": False}
    retry = urllib3.Retry(ATTEMPTS - 1, status_forcelist=TEMPORARY, **options)
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        session.headers["Accept-Encoding"] = "identity"  # sizes and ranges are then those of the file itself
        while True:
            size = _size(partial)
            headers = {"Range": f"bytes={size}-", "If-Range": validator} if size else {}
            try:
                with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                    status, span = response.status_code, response.headers.get("Content-Range", "")
                    if size and status == 416 and span == f"bytes */{size}":
                        return earlier  # it is already complete
                    resumed = status == 206 and span.startswith(f"bytes {size}-")
                    if size and not resumed and status in (200, 206, 416):
                        partial.unlink()  # the file has changed, or the server does not support ranges
                        earlier = False
                        if status != 200:
                            continue
                    response.raise_for_status()
                    validator = _validator(response) or (validator if resumed else None)
                    length = span.rpartition("/")[2] if resumed else response.headers.get("Content-Length", "")
                    _receive(response, url, partial, target, int(length) if length.isdecimal() else None)
                    return earlier
            except urllib3.exceptions.HTTPError:
                # Without ranges, every request starts again: only more bytes than ever before are progress.
                failures = 1 if _size(partial) > largest else failures + 1
                if failures >= ATTEMPTS:
                    raise
                largest = max(largest, _size(partial))
                if not (checksum or validator):
                    partial.unlink(missing_ok=True)  # the rest may be of another file
            time.sleep(BACKOFF * 2 ** (failures - 1))


def _validator(response: requests.Response) -> str | None:
    """The version of a file for the header If-Range, which does not accept weak ETags."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def _receive(response: requests.Response, url: str, partial: Path, target: Path, total: int | None) -> None:
    """Append a response to `partial`. total: size of the complete file in bytes; None if unknown."""
    size, name = _size(partial), _name(url)
    if total is not None:
        _check_room(url, total - size, PARTIAL, target.parent)
    amount = "a file of unknown size" if total is None else _megabytes(total)
    progress = f" ({_megabytes(size)} complete)" if size else ""
    print(f"{name}: downloading {amount} from {redact(url)}{progress}", flush=True)
    try:
        with Progress(name, "B", total, size) as bar, partial.open("ab") as file:
            # Not read(), which loses an incomplete chunk when the connection is interrupted. Not decoded, because
            # servers declare the compression of a .tar.gz as an encoding.
            while data := response.raw.read1(2**16, decode_content=False):
                bar.update(file.write(data))
    except OSError as error:
        if error.errno in DISK_FULL:
            partial.unlink(missing_ok=True)
        raise
    if total is not None and _size(partial) < total:
        raise urllib3.exceptions.ProtocolError("the server sent less than it announced")


def _reason(error: Exception) -> str:
    """The reason why requests or urllib3 failed."""
    if isinstance(error, requests.HTTPError):
        return f"the server returned {error.response.status_code} {error.response.reason}".rstrip()
    cause = error.args[0] if isinstance(error, requests.ConnectionError) else error
    cause = getattr(cause, "reason", cause)  # of the last attempt
    # The remaining errors of requests are about the URL itself.
    return next((words for kind, words in REASONS.items() if isinstance(cause, kind)), " ".join(str(cause).split()))


def _verify(source: str, file: Path, checksum: str | None) -> None:
    if checksum and (actual := _checksum(file, checksum)) != checksum:
        raise UserError(
            f"{source!r}: checksum mismatch: the file has {actual}, the study expects {checksum}. "
            "Fetch the file again, or correct the checksum if the new file is right."
        )


def _check_room(source: str, needed: int, *folders: Path) -> None:
    free = min(shutil.disk_usage(folder).free for folder in folders)
    if needed > free:
        sizes = f"needs {_megabytes(needed)} on the disk, but only {_megabytes(free)} are free"
        raise UserError(f"{source!r} {sizes}. Free some space and run again.")


def _checksum(file: Path, expected: str) -> str:
    algorithm = expected.split(":")[0]
    with file.open("rb") as content:
        return f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"


def _name(url: str) -> str:
    return re.split("[?#]", url)[0].rpartition("/")[2] or "file"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
