"""Fetching one version of a dataset from Kaggle, as the archive that Kaggle serves."""

import shutil
import zipfile
from pathlib import Path

import requests

from stages.core.errors import UserError
from stages.core.files import atomic_file

PARTIAL = Path("data/partial")
CREDENTIALS = "KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, in the environment, or ~/.kaggle/kaggle.json"


def fetch_kaggle(handle: str, version: int, target: Path) -> None:
    """Download one version of a Kaggle dataset to `target`, a zip archive, atomically.

    handle: `owner/name`, as in the address of the dataset's page. version: from 1 upward.
    target: is kept if it exists, because a version never changes. So its name must contain handle and version.

    Kaggle's own client looks up the credentials; most public datasets need none. The next call resumes an interrupted
    download from data/partial.

    Raises `UserError` if Kaggle denies access or does not have the dataset, if it cannot be reached, or if the download
    is not a complete zip archive.
    """
    if target.is_file():
        return
    PARTIAL.mkdir(parents=True, exist_ok=True)
    partial = PARTIAL / f"kaggle-{handle.replace('/', '-')}-{version}.zip"
    _download(handle, version, partial)
    if not zipfile.is_zipfile(partial):
        partial.unlink()  # it cannot be resumed
        raise UserError(_no_download(handle, version, "the download is not a complete zip archive"))
    with atomic_file(target) as whole:
        shutil.move(partial, whole)  # not renamed: the folders may be on different disks


def _download(handle: str, version: int, partial: Path) -> None:
    # Imported here: no other source needs it. kagglehub.dataset_download would unpack the archive to thousands of
    # files; this is the same request and download without the unpacking.
    from kagglehub.clients import build_kaggle_client, download_file
    from kagglehub.exceptions import DataCorruptionError
    from kagglehub.handle import DatasetHandle
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    owner, name = handle.split("/")
    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug, request.dataset_version_number = owner, name, version
    try:
        client = build_kaggle_client()
    except (ValueError, OSError):
        raise UserError(_no_credentials(handle, version)) from None
    try:
        with client:
            response = client.datasets.dataset_api_client.download_dataset(request)
            download_file(response, str(partial), DatasetHandle(owner, name, version))
    except requests.RequestException as error:
        raise UserError(_request_problem(handle, version, error)) from None
    except DataCorruptionError:  # kagglehub has removed the file
        raise UserError(_no_download(handle, version, "checksum mismatch")) from None
    except ValueError:  # a credential that cannot be sent, such as one with a line break
        raise UserError(_no_credentials(handle, version)) from None


# No message quotes an exception: its text may contain a credential or the signed URL of the archive.


def _request_problem(handle: str, version: int, error: requests.RequestException) -> str:
    if error.response is None:
        broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
        return _no_download(handle, version, "the connection was interrupted" if broken else "no connection")
    status = f"{error.response.status_code} {error.response.reason}".rstrip()
    if error.response.status_code in (401, 403):
        return (
            f"{handle!r} version {version} was denied by Kaggle ({status}). Check handle and version, give valid "
            f"credentials ({CREDENTIALS}), and accept the rules on {_page(handle, version)} if there are any."
        )
    if error.response.status_code == 404:
        return f"{handle!r} version {version} does not exist on Kaggle ({status}). Check handle and version."
    return _no_download(handle, version, f"Kaggle returned {status}")


def _no_download(handle: str, version: int, reason: str) -> str:
    return (
        f"{handle!r} version {version} cannot be downloaded from Kaggle ({reason}). Run again, or download the archive "
        f"manually from {_page(handle, version)} and give it as `source: archive` with its path as url and its sha256, "
        "as sha256sum prints it."
    )


def _no_credentials(handle: str, version: int) -> str:
    return (
        f"{handle!r} version {version} cannot be downloaded because your Kaggle credentials cannot be read. "
        f"Correct or remove them ({CREDENTIALS})."
    )


def _page(handle: str, version: int) -> str:
    return f"https://www.kaggle.com/datasets/{handle}/versions/{version}"
