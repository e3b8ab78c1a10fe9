"""Downloads from Kaggle: the real client against a local server that imitates Kaggle."""

import base64
import contextlib
import hashlib
import io
import json
import random
import re
import stat
import zipfile
from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.sources.kaggle import fetch_kaggle
from tests.imitated_kaggle import Answering, imitated_kaggle

HANDLE, VERSION = "some-owner/some-birds", 2
DATASET = "'some-owner/some-birds' version 2"
PAGE = "https://www.kaggle.com/datasets/some-owner/some-birds/versions/2"
TARGET = Path("data/raw/birds/some-owner-some-birds-2.zip")
SECRET = "KGAT_thisisnobodystoken"
CREDENTIALS = "KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, in the environment, or ~/.kaggle/kaggle.json"
MANUALLY = (
    f". Run again, or download the archive manually from {PAGE} and give it as `source: archive` with its path as url "
    "and its sha256, as sha256sum prints it."
)


def zipped(files):
    """The bytes of a zip archive; text instead of bytes makes a symbolic link to it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            if isinstance(content, str):
                entry.create_system = 3
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


# Larger than 1 MiB, which the client writes at once: an interrupted download then leaves a partial file.
ARCHIVE = zipped({f"birds/{color}/1.jpg": random.Random(color).randbytes(2**20) for color in ("black", "blue")})


class Handler(Answering):
    """Kaggle's API and, on another host name, the storage that it sends its clients to."""

    def do_POST(self):
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.authorizations.append(self.headers["Authorization"])
        if self.path != "/v1/datasets.DatasetApiService/DownloadDataset":
            return self.send_error(501)
        if self.server.status:
            return self.answer(self.server.status, json.dumps({"code": self.server.status, "message": "No."}).encode())
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/archive?signature={SECRET}")
        self.end_headers()

    def do_GET(self):
        self.server.storage_authorizations.append(self.headers["Authorization"])
        content = self.server.archive
        md5 = base64.b64encode(hashlib.md5(self.server.hashed_content or content).digest()).decode()
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Accept-Ranges", "bytes")
        if self.server.checksum:
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={md5}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        # A client that resumes a download does not read this response.
        with contextlib.suppress(OSError):
            self.wfile.write(content[start : len(content) * 3 // 4 if self.server.breaks else None])


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    with imitated_kaggle(Handler, tmp_path, monkeypatch) as server:
        server.archive, server.hashed_content, server.checksum, server.status, server.breaks = (
            ARCHIVE,
            None,
            True,
            0,
            False,
        )
        server.requests, server.authorizations, server.storage_authorizations, server.starts = [], [], [], []
        yield server


def files():
    """The files in the working folder, which is also the home folder."""
    return sorted(str(path) for path in Path().rglob("*") if not path.is_dir())


def fetch_error():
    """The message of a failed download, which must leave nothing at the target."""
    with pytest.raises(UserError) as error:
        fetch_kaggle(HANDLE, VERSION, TARGET)
    assert not TARGET.parent.exists() or not list(TARGET.parent.iterdir())
    sentence = str(error.value)
    assert "\n" not in sentence
    assert SECRET not in sentence
    assert sentence.startswith(DATASET)
    assert sentence.endswith(".")
    return sentence


def test_the_archive_is_stored_unchanged(kaggle):
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE
    assert files() == [str(TARGET)]
    assert kaggle.authorizations == [None]
    (requests,) = kaggle.requests
    assert (requests["ownerSlug"], requests["datasetSlug"], requests["datasetVersionNumber"]) == (
        "some-owner",
        "some-birds",
        2,
    )
    assert not requests.get("fileName")


def test_an_existing_target_is_not_downloaded_again(kaggle):
    fetch_kaggle(HANDLE, VERSION, TARGET)
    kaggle.archive = b"another"
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE
    assert len(kaggle.requests) == 1


@pytest.mark.parametrize("credentials", ["token", "key", "file", "token file"])
def test_credentials_are_sent_to_kaggle_only(credentials, kaggle, monkeypatch, capfd):
    basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
    credential_files = []
    if credentials == "token":
        monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    elif credentials == "key":
        monkeypatch.setenv("KAGGLE_USERNAME", "me")
        monkeypatch.setenv("KAGGLE_KEY", SECRET)
    else:
        name, content = (
            ("kaggle.json", {"username": "me", "key": SECRET}) if credentials == "file" else ("token", SECRET)
        )
        credential_files = [f".kaggle/{name}"]
        Path(".kaggle").mkdir()
        Path(credential_files[0]).write_text(content if isinstance(content, str) else json.dumps(content))
        if credentials == "token file":
            monkeypatch.setenv("KAGGLE_API_TOKEN", credential_files[0])
    kaggle.breaks = True
    fetch_error()
    assert files() == [*credential_files, "data/partial/kaggle-some-owner-some-birds-2.zip"]
    contents = [Path(path).read_bytes() for path in files() if path not in credential_files]
    kaggle.breaks = False
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert files() == [*credential_files, str(TARGET)]
    contents.append(TARGET.read_bytes())
    assert set(kaggle.authorizations) == {f"Bearer {SECRET}" if "token" in credentials else f"Basic {basic}"}
    assert set(kaggle.storage_authorizations) == {None}
    contents.append("".join(capfd.readouterr()).encode())
    for content in contents:
        assert SECRET.encode() not in content
        assert basic.encode() not in content


@pytest.mark.parametrize("token", [None, SECRET])
@pytest.mark.parametrize("answer", ["401 Unauthorized", "403 Forbidden"])
def test_the_error_of_a_denied_request_explains_credentials(answer, token, kaggle, monkeypatch):
    if token:
        monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    kaggle.status = int(answer[:3])
    assert fetch_error() == (
        f"{DATASET} was denied by Kaggle ({answer}). Check handle and version, give valid credentials ({CREDENTIALS}), "
        f"and accept the rules on {PAGE} if there are any."
    )
    assert files() == []


def test_a_missing_dataset_is_an_error(kaggle):
    kaggle.status = 404
    assert fetch_error() == f"{DATASET} does not exist on Kaggle (404 Not Found). Check handle and version."


def test_a_server_error_is_an_error(kaggle):
    kaggle.status = 503
    assert (
        fetch_error()
        == f"{DATASET} cannot be downloaded from Kaggle (Kaggle returned 503 Service Unavailable){MANUALLY}"
    )


def test_without_a_connection_the_error_explains_a_manual_download(kaggle):
    kaggle.shutdown()
    kaggle.server_close()
    assert fetch_error() == f"{DATASET} cannot be downloaded from Kaggle (no connection){MANUALLY}"


def test_an_interrupted_download_is_resumed(kaggle):
    kaggle.breaks = True
    assert fetch_error() == f"{DATASET} cannot be downloaded from Kaggle (the connection was interrupted){MANUALLY}"
    assert files() == ["data/partial/kaggle-some-owner-some-birds-2.zip"]
    kaggle.breaks = False
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert kaggle.starts == [0, 0, 2**20]
    assert TARGET.read_bytes() == ARCHIVE
    assert files() == [str(TARGET)]


def test_a_complete_partial_file_is_not_downloaded_again(kaggle):
    partial = Path("data/partial/kaggle-some-owner-some-birds-2.zip")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(ARCHIVE)
    kaggle.breaks = True
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE
    assert files() == [str(TARGET)]


@pytest.mark.parametrize("content", [b"<html>please log in</html>", ARCHIVE[:-30]])
def test_an_incomplete_zip_is_an_error_and_not_resumed(content, kaggle):
    kaggle.archive = content
    assert (
        fetch_error()
        == f"{DATASET} cannot be downloaded from Kaggle (the download is not a complete zip archive){MANUALLY}"
    )
    assert files() == []
    kaggle.archive = ARCHIVE
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE


def test_a_checksum_mismatch_is_an_error_and_not_resumed(kaggle):
    kaggle.hashed_content = b"another"
    reason = "checksum mismatch"
    assert fetch_error() == f"{DATASET} cannot be downloaded from Kaggle ({reason}){MANUALLY}"
    assert files() == []
    kaggle.hashed_content = None
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE


def test_a_missing_checksum_header_is_accepted(kaggle):
    kaggle.checksum = False
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE


def test_a_malicious_archive_is_not_unpacked(kaggle, tmp_path):
    kaggle.archive = zipped(
        {
            "../../../../evil": b"evil",
            f"{tmp_path}/evil": b"evil",
            "birds/link": str(tmp_path.parent),
            "birds/link/evil": b"evil",
            "birds/black/1.jpg": b"fine",
        }
    )
    before = sorted(tmp_path.parent.iterdir())
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == kaggle.archive
    assert files() == [str(TARGET)]
    assert sorted(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize("token", [f"{SECRET}\n", f"{SECRET}\N{SNOWMAN}", SECRET * 99])
def test_the_error_of_an_invalid_token_does_not_contain_it(token, kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    assert fetch_error() == (
        f"{DATASET} cannot be downloaded because your Kaggle credentials cannot be read. Correct or remove them "
        f"({CREDENTIALS})."
    )


@pytest.mark.parametrize("content", ["", "{", '{"username": "me"}', '{"key": "mine"}'])
def test_a_broken_credentials_file_is_an_error(content, kaggle):
    Path(".kaggle").mkdir()
    Path(".kaggle/kaggle.json").write_text(content)
    assert re.search(r"Kaggle credentials cannot be read\. .*~/\.kaggle/kaggle\.json", fetch_error())
