"""The files of a preset: in a folder, or fetched from Kaggle or Hugging Face."""

import errno
import hashlib
import io
import logging
import re
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from stages.core.errors import UserError
from stages.core.files import sha256_of
from stages.sources import fetch
from stages.sources.urls import local_path

KAGGLE, HUGGING_FACE = "kaggle://", "hf://"
# Configurations, and weights in the formats that KerasHub reads; not TensorFlow's tf_model.h5.
FILES = ["*.json", "*.weights.h5", "*.safetensors"]
SAVED_WHEN = "metadata.json"  # versions and the date
# Errors of the disk, which are reported as they are.
ON_THIS_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
NO_CONNECTION = "no connection"
OFFLINE = "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"


def preset_folder(source: str, where: str) -> Path:
    """The folder of a preset, which Kaggle's or Hugging Face's own client downloads into its cache.

    source: `kaggle://owner/model/keras/variation/version`, `hf://owner/model`, also with `@revision`, or the path of a
    folder. where: the setting, for messages. `UserError` if there is no such preset, access is denied, or the server
    cannot be reached.
    """
    if source.startswith(KAGGLE):
        return _from_kaggle(source, where)
    if source.startswith(HUGGING_FACE):
        return _from_hugging_face(source, where)
    folder = local_path(source)
    if not (folder / "config.json").is_file():
        reason = "it has no config.json" if folder.is_dir() else "there is no such folder"
        raise UserError(
            f"{where}: {source!r} is not a preset of KerasHub ({reason}). Give the folder that save_to_preset wrote, "
            "or save_pretrained of transformers, or correct the path."
        )
    return folder


def is_commit(source: str) -> bool:
    """Whether an address on Hugging Face is that of a commit, whose files never change."""
    return re.fullmatch(rf"{HUGGING_FACE}[^@]+@[0-9a-f]{{40}}", source) is not None


def preset_checksum(folder: Path) -> str:
    """The SHA-256 of the lines that `sha256sum` prints of the files of a preset, sorted by name."""
    files = {path for pattern in FILES for path in folder.glob(pattern) if path.name != SAVED_WHEN}
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in sorted(files, key=lambda path: path.name)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def checksum_mismatch(where: str, source: str, actual: str, expected: str) -> str:
    """The message about a preset with another checksum than the study gives. where: the backbone."""
    return (
        f"{where}.sha256: checksum mismatch: the files of {source!r} have {actual}, the study expects {expected}. Give "
        f"`sha256: {actual}` if these files are the right ones."
    )


def _from_kaggle(source: str, where: str) -> Path:
    import kagglehub
    from kagglehub import exceptions

    handle = source.removeprefix(KAGGLE)
    if not re.fullmatch(r"[^/]+/[^/]+/[^/]+/[^/]+/\d+", handle):
        raise UserError(
            f"{where}: {source!r} is not the address of a preset. Give kaggle://owner/model/keras/variation/version, "
            "as on its page."
        )
    page = "https://www.kaggle.com/models/{}/{}".format(*handle.split("/"))
    logging.getLogger("kagglehub").setLevel(logging.ERROR)  # it logs to standard output
    no_credentials = (exceptions.CredentialError, exceptions.UnauthenticatedError, ValueError)
    try:
        return _patiently(lambda: kagglehub.model_download(handle), (exceptions.DataCorruptionError, *no_credentials))
    except exceptions.DataCorruptionError:  # the client has removed the file
        reason = "the download is damaged"
    except no_credentials:
        reason = "your Kaggle credentials cannot be read or sent"
    except Exception as error:  # the client raises many types of errors
        reason = _response(error)
    raise UserError(f"{where}: {_problem(source, reason, page, 'KAGGLE_API_TOKEN')}")


def _from_hugging_face(source: str, where: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    name, _, revision = source.removeprefix(HUGGING_FACE).partition("@")
    try:
        return _patiently(
            lambda: huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=FILES),
            (HFValidationError,),
        )
    except HFValidationError:
        raise UserError(
            f"{where}: {source!r} is not the address of a preset. Give hf://owner/model, as on its page."
        ) from None
    except Exception as error:  # without a connection, the client raises errors of several libraries
        reason = _response(error)
    raise UserError(f"{where}: {_problem(source, reason, f'https://huggingface.co/{name}', 'HF_TOKEN')}")


def _patiently(download: Callable[[], str], permanent: tuple[type[Exception], ...]) -> Path:
    """The folder that a client downloads; after a temporary failure it is asked again, as often as `fetch` does.

    permanent: errors after which it is not. What the client prints goes to standard error, and only to a terminal:
    standard output has the lines of the stage, and a progress bar would fill a log file.
    """
    attempt = 0
    while True:
        attempt += 1
        output = sys.stderr if sys.stderr.isatty() else io.StringIO()
        try:
            with redirect_stdout(output), redirect_stderr(output):
                return Path(download())
        except permanent:
            raise
        except Exception as error:
            reason = _response(error)
            is_temporary = reason == NO_CONNECTION or reason in fetch.TEMPORARY
            if not is_temporary or attempt == fetch.ATTEMPTS:
                raise
            pause = max(fetch.BACKOFF * 2 ** (attempt - 1), min(_retry_after(error), fetch.LONGEST_PAUSE))
        time.sleep(pause)


def _retry_after(error: Exception) -> int:
    """The pause in seconds that a server asks for, 0 if it asks for none."""
    response = getattr(error, "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return int(asked) if asked.isdecimal() else 0


def _response(error: BaseException) -> int | str:
    """The status of the response that led to an error, or a reason; raises the error of a full disk and the like."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "response", None) is not None:
            return cause.response.status_code
        if isinstance(cause, OSError) and cause.errno in ON_THIS_MACHINE:
            raise cause
        if type(cause).__name__ == "OfflineModeIsEnabled":
            return OFFLINE
        cause = cause.__cause__ or cause.__context__
    return NO_CONNECTION


def _problem(source: str, reason: int | str, page: str, credentials: str) -> str:
    """Why a download failed, and what to do. reason: the status of the response, or in words."""
    if reason in (401, 403):
        return (
            f"access to {source!r} was denied ({reason}). Check the name, accept the terms on {page} if there are any, "
            f"and give valid credentials in {credentials}."
        )
    if reason == 404:
        return f"{source!r} does not exist. Look for its address on {page}."
    if isinstance(reason, int):
        reason = f"the server returned {reason}"
    again = "Unset it and run again" if reason == OFFLINE else "Run again"
    return (
        f"{source!r} cannot be downloaded ({reason}). {again}, or download its files by hand from {page} into a "
        "folder, and give the folder."
    )
