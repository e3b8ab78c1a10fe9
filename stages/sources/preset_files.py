"""The files of a preset of KerasHub: in a folder, or fetched from Kaggle or Hugging Face."""

import re
from pathlib import Path

from stages.core.errors import UserError
from stages.sources.urls import local_path

KAGGLE, HUGGING_FACE = "kaggle://", "hf://"
# Configurations, and weights in the formats that KerasHub reads.
FILES = ["*.json", "*.h5", "*.safetensors"]


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
            "or correct the path."
        )
    return folder


def _from_kaggle(source: str, where: str) -> Path:
    import kagglehub
    import requests

    handle = source.removeprefix(KAGGLE)
    if not re.fullmatch(r"[^/]+/[^/]+/[^/]+/[^/]+/\d+", handle):
        raise UserError(
            f"{where}: {source!r} is not the address of a preset. Give kaggle://owner/model/keras/variation/version, "
            "as on its page."
        )
    page = "https://www.kaggle.com/models/{}/{}".format(*handle.split("/"))
    try:
        return Path(kagglehub.model_download(handle))
    except requests.RequestException as error:
        status = _status(error)
    except (ValueError, OSError):  # credentials that cannot be read or sent, or a damaged download
        status = 401
    raise UserError(f"{where}: {_reason(source, status, page, 'KAGGLE_API_TOKEN')}")


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
        status = _status(error)
    raise UserError(f"{where}: {_reason(source, status, f'https://huggingface.co/{name}', 'HF_TOKEN')}")


def _status(error: BaseException | None) -> int | None:
    """The status of the response that led to an error; None if there was none."""
    while error is not None:
        if getattr(error, "response", None) is not None:
            return error.response.status_code
        error = error.__cause__ or error.__context__
    return None


def _reason(source: str, status: int | None, page: str, credentials: str) -> str:
    """Why a download failed, and what to do. status: of the response, None if there was none."""
    if status in (401, 403):
        return (
            f"access to {source!r} was denied ({status}). Check the name, accept the terms on {page} if there are any, "
            f"and give valid credentials in {credentials}."
        )
    if status == 404:
        return f"{source!r} does not exist. Look for its address on {page}."
    reason = "no connection" if status is None else f"the server returned {status}"
    return (
        f"{source!r} cannot be downloaded ({reason}). Run again, or download its files by hand from {page} into a "
        "folder, and give the folder."
    )
