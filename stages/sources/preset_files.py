"""The files of a preset: in a folder, or fetched from Kaggle or Hugging Face."""

import errno
import re
from pathlib import Path

from stages.core.errors import UserError
from stages.sources.urls import local_path

KAGGLE, HUGGING_FACE = "kaggle://", "hf://"
# Configurations, and weights in the formats that KerasHub reads; not TensorFlow's tf_model.h5.
FILES = ["*.json", "*.weights.h5", "*.safetensors"]
# Errors of the disk, which are reported as they are.
ON_THIS_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}


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
    try:
        return Path(kagglehub.model_download(handle))
    except exceptions.DataCorruptionError:  # the client has removed the file
        reason = "the download is damaged"
    except (exceptions.CredentialError, exceptions.UnauthenticatedError, ValueError):
        reason = "your Kaggle credentials cannot be read or sent"
    except Exception as error:  # the client raises many types of errors
        reason = _response(error)
    raise UserError(f"{where}: {_problem(source, reason, page, 'KAGGLE_API_TOKEN')}")


def _from_hugging_face(source: str, where: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    name, _, revision = source.removeprefix(HUGGING_FACE).partition("@")
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=FILES))
    except HFValidationError:
        raise UserError(
            f"{where}: {source!r} is not the address of a preset. Give hf://owner/model, as on its page."
        ) from None
    except Exception as error:  # without a connection, the client raises errors of several libraries
        reason = _response(error)
    raise UserError(f"{where}: {_problem(source, reason, f'https://huggingface.co/{name}', 'HF_TOKEN')}")


def _response(error: BaseException) -> int | str:
    """The status of the response that led to an error, or a reason; raises the error of a full disk and the like."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "response", None) is not None:
            return cause.response.status_code
        if isinstance(cause, OSError) and cause.errno in ON_THIS_MACHINE:
            raise cause
        cause = cause.__cause__ or cause.__context__
    return "no connection"


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
    return (
        f"{source!r} cannot be downloaded ({reason}). Run again, or download its files by hand from {page} into a "
        "folder, and give the folder."
    )
