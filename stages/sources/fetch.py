"""Fetching one file, from an address or a path, with its checksum."""

import errno
import hashlib
import shutil
import time
from pathlib import Path
from urllib.request import url2pathname

import requests
import urllib3
from requests.adapters import HTTPAdapter
from tqdm import tqdm

from stages.core.errors import UserError
from stages.core.files import atomic_file
from stages.sources.urls import redact

# What has come of a download until it is whole. Not beside the target: that folder is an output of a stage.
PARTIAL = Path("data/partial")
# Seconds to wait for a connection, and for every further byte.
TIMEOUT = 30
# A download is given up after so many requests in a row that brought nothing new, with these seconds between two of
# them, which double each time; a server may ask for more, up to the longest pause.
ATTEMPTS, BACKOFF, LONGEST_PAUSE = 5, 1, 60
# These answers pass; any other refusal stays what it is however often one asks.
PASSING = (408, 429, *range(500, 600))
# The first that fits counts.
REASONS = {
    urllib3.exceptions.NewConnectionError: "there is no connection",
    urllib3.exceptions.SSLError: "there is no secure connection",
    urllib3.exceptions.TimeoutError: "the server does not answer in time",
    urllib3.exceptions.ProtocolError: "the connection broke off",
    urllib3.exceptions.HTTPError: "there is no connection",
}
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetch(source: str, target: Path, checksum: str | None) -> None:
    """Copy or download `source` to `target`, whole and verified or not at all.

    source: an http or https address, a file: URL, or a path; paths are relative to the project's folder.
    target: stays as it was when the fetch fails, and is not fetched again where it has the checksum already.
    checksum: `sha256:<digits>` or `md5:<digits>`, in lower case; None accepts what comes.

    A download that breaks off goes on where it stopped; with a checksum also in the next run, from `PARTIAL`.

    Raises `UserError` when the source is unreachable, does not fit on the disk or is not what the checksum says, and
    `OSError` when writing fails.
    """
    if checksum and target.is_file() and _checksum(target, checksum) == checksum:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_url(source):
        _copy(source, target, checksum)
        return
    try:
        _download(source, target, checksum)
    except UserError as error:
        raise UserError(redact(str(error))) from None


def is_url(source: str) -> bool:
    """Whether a source is an http or https address; else it is a path, maybe written as a file: URL."""
    return source.startswith(("http://", "https://"))


def _copy(source: str, target: Path, checksum: str | None) -> None:
    path = Path(source)
    if source.startswith("file:"):
        path = Path(url2pathname(source.removeprefix("file:").removeprefix("//localhost")))
    try:
        if path.is_dir():
            raise UserError(f"{source!r} is a folder; give a file (of images: a zip or tar of the class folders).")
        file = path.open("rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{source!r} cannot be read ({reason}); correct the path.") from None
    with file, atomic_file(target) as partial:
        if target.parent.resolve() in path.resolve().parents:
            raise UserError(f"{source!r} lies in {target.parent}, which this stage writes; move it to another folder.")
        _check_room(source, path.stat().st_size, target.parent)
        with partial.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        _verify(source, partial, checksum)


def _download(address: str, target: Path, checksum: str | None) -> None:
    # Not named after the address, so that a mirror goes on where the first server stopped; but after the target,
    # because two stages that fetch the same file may run at the same time.
    key = hashlib.sha256(repr((str(target), checksum)).encode()).hexdigest()[:12]
    partial = PARTIAL / f"{target.name[-40:]}-{key}"
    PARTIAL.mkdir(parents=True, exist_ok=True)
    if checksum is None:
        partial.unlink(missing_ok=True)  # nobody knows what this is the beginning of
    try:
        while True:
            earlier = _transfer(address, partial, target, checksum)
            try:
                _verify(address, partial, checksum)
                break
            except UserError:
                partial.unlink()
                if not earlier:
                    raise
            # What the earlier run left may be of another file: once more, from zero.
        with atomic_file(target) as whole:
            shutil.move(partial, whole)  # no rename: the two folders may lie on different disks
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        # ValueError: a server leads to an address that is none.
        file = _name(address) + (f" ({checksum})" if checksum else "")
        raise UserError(
            f"{address!r} cannot be downloaded ({_reason(error)}); check the address and the connection, or get {file} "
            "by other means and give its path or the address of a mirror instead, as url of a dataset or weights of a "
            "backbone."
        ) from None
    finally:
        if checksum is None:
            partial.unlink(missing_ok=True)


def _transfer(address: str, partial: Path, target: Path, checksum: str | None) -> bool:
    """Download what is missing of `partial`; True when it still begins with what an earlier run left.

    urllib3 repeats a request that is not answered, the loop one whose answer breaks off; in the end either raises.
    """
    most = _size(partial)
    earlier, failures, validator = most > 0, 0, None
    options = {"backoff_factor": BACKOFF, "retry_after_max": LONGEST_PAUSE, "raise_on_status": False}
    retry = urllib3.Retry(ATTEMPTS - 1, status_forcelist=PASSING, **options)
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        session.headers["Accept-Encoding"] = "identity"  # the file itself: sizes and ranges are to be its own
        while True:
            size = _size(partial)
            headers = {"Range": f"bytes={size}-", "If-Range": validator} if size else {}
            try:
                with session.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
                    status, span = response.status_code, response.headers.get("Content-Range", "")
                    if size and status == 416 and span == f"bytes */{size}":
                        return earlier  # all had come before
                    goes_on = status == 206 and span.startswith(f"bytes {size}-")
                    if size and not goes_on and status in (200, 206, 416):
                        partial.unlink()  # the file has changed, or the server knows no ranges
                        earlier = False
                        if status != 200:
                            continue
                    response.raise_for_status()
                    validator = _validator(response) or (validator if goes_on else None)
                    length = span.rpartition("/")[2] if goes_on else response.headers.get("Content-Length", "")
                    _receive(response, address, partial, target, int(length) if length.isdecimal() else None)
                    return earlier
            except urllib3.exceptions.HTTPError:
                # A server that knows no ranges begins anew each time: what counts is more than there ever was.
                failures = 1 if _size(partial) > most else failures + 1
                if failures >= ATTEMPTS:
                    raise
                most = max(most, _size(partial))
                if not (checksum or validator):
                    partial.unlink(missing_ok=True)  # nothing would tell whether the rest is of the same file
            time.sleep(BACKOFF * 2 ** (failures - 1))


def _validator(response: requests.Response) -> str | None:
    """What tells a server, in If-Range, which version of a file is meant; a weak ETag may not stand there."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def _receive(response: requests.Response, address: str, partial: Path, target: Path, total: int | None) -> None:
    """Append what a server sends to `partial`; total: the bytes it holds then, None where the server does not say."""
    size, name = _size(partial), _name(address)
    if total is not None:
        _check_room(address, total - size, PARTIAL, target.parent)
    amount = "a file of unknown size" if total is None else _megabytes(total)
    there = f" ({_megabytes(size)} are there)" if size else ""
    print(f"{name}: downloading {amount} from {redact(address)}{there}", flush=True)
    bar = tqdm(desc=name, total=total, initial=size, unit="B", unit_scale=True, disable=None)
    try:
        with bar, partial.open("ab") as file:
            # Not read(), which waits for a whole chunk and loses what has come of it when the connection breaks; and
            # not decoded, because servers call the compression of a .tar.gz an encoding.
            while data := response.raw.read1(2**16, decode_content=False):
                bar.update(file.write(data))
    except OSError as error:
        if error.errno in DISK_FULL:
            partial.unlink(missing_ok=True)
        raise
    if total is not None and _size(partial) < total:
        raise urllib3.exceptions.ProtocolError("the server sent less than it announced")


def _reason(error: Exception) -> str:
    """Why requests or urllib3 gave up, in words."""
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code} {error.response.reason}".rstrip()
    cause = error.args[0] if isinstance(error, requests.ConnectionError) else error
    cause = getattr(cause, "reason", cause)  # of the last of several attempts
    # What is left of requests is about the address itself.
    return next((words for kind, words in REASONS.items() if isinstance(cause, kind)), " ".join(str(cause).split()))


def _verify(source: str, file: Path, checksum: str | None) -> None:
    if checksum and (found := _checksum(file, checksum)) != checksum:
        raise UserError(
            f"{source!r} is not the file expected: its checksum is {found}, but the study expects {checksum}; "
            "fetch the file again, or correct the checksum if the new file is right."
        )


def _check_room(source: str, needed: int, *folders: Path) -> None:
    free = min(shutil.disk_usage(folder).free for folder in folders)
    if needed > free:
        sizes = f"needs {_megabytes(needed)} on the disk, but only {_megabytes(free)} are free"
        raise UserError(f"{source!r} {sizes}; make room and run it again.")


def _checksum(file: Path, expected: str) -> str:
    algorithm = expected.split(":")[0]
    with file.open("rb") as content:
        return f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"


def _name(address: str) -> str:
    return address.split("?")[0].rpartition("/")[2] or "the file"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
