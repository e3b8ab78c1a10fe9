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
    """Download one version of a Kaggle dataset to `target`, a zip archive, whole or not at all.

    handle: `owner/name`, as in the address of the dataset's page. version: from 1 upward.
    target: kept where it is there already, because a version never changes; so its name must hold handle and version.

    Credentials are taken from where Kaggle's own client looks for them; public datasets mostly need none. A download
    that broke off lies in data/partial, and the next call takes it up again.

    Raises `UserError` when Kaggle refuses or lacks the dataset, cannot be reached, or sends no whole zip archive.
    """
    if target.is_file():
        return
    PARTIAL.mkdir(parents=True, exist_ok=True)
    partial = PARTIAL / f"kaggle-{handle.replace('/', '-')}-{version}.zip"
    _download(handle, version, partial)
    if not zipfile.is_zipfile(partial):
        partial.unlink()  # there is nothing in it to take up again
        raise UserError(_no_download(handle, version, "what came is no whole zip archive"))
    with atomic_file(target) as whole:
        shutil.move(partial, whole)  # no rename: the two folders may lie on different disks


def _download(handle: str, version: int, partial: Path) -> None:
    # Imported here because no other source needs it. Its front door, dataset_download, would unpack the archive to
    # thousands of files; these are the request and the download it consists of, without the unpacking.
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
        raise UserError(_answer(handle, version, error)) from None
    except DataCorruptionError:  # kagglehub has removed the file
        raise UserError(_no_download(handle, version, "what came has not the checksum Kaggle announced")) from None
    except ValueError:  # a credential that cannot be sent, such as one with a line break
        raise UserError(_no_credentials(handle, version)) from None


# None of these sentences quotes an exception: its text may hold a credential or the signed address of the archive.


def _answer(handle: str, version: int, error: requests.RequestException) -> str:
    if error.response is None:
        broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
        return _no_download(handle, version, "the connection broke off" if broken else "there is no connection")
    answer = f"{error.response.status_code} {error.response.reason}".rstrip()
    if error.response.status_code in (401, 403):
        return (
            f"{handle!r} version {version} is refused by Kaggle ({answer}); check handle and version, give valid "
            f"credentials ({CREDENTIALS}), and accept the rules on {_page(handle, version)} if it shows any."
        )
    if error.response.status_code == 404:
        return f"{handle!r} version {version} does not exist on Kaggle ({answer}); check handle and version."
    return _no_download(handle, version, f"Kaggle answers {answer}")


def _no_download(handle: str, version: int, reason: str) -> str:
    return (
        f"{handle!r} version {version} cannot be downloaded from Kaggle ({reason}); run again, or download the archive "
        f"by hand from {_page(handle, version)} and give it as `source: archive` with its path as url and its sha256."
    )


def _no_credentials(handle: str, version: int) -> str:
    return (
        f"{handle!r} version {version} cannot be downloaded because your credentials for Kaggle cannot be read; "
        f"correct or remove them ({CREDENTIALS})."
    )


def _page(handle: str, version: int) -> str:
    return f"https://www.kaggle.com/datasets/{handle}/versions/{version}"
