"""Fetching from Kaggle: its own client against a server of the test that answers as Kaggle does."""

import base64
import contextlib
import hashlib
import http.server
import io
import json
import random
import re
import stat
import threading
import zipfile
from pathlib import Path

import kagglehub  # noqa: F401 - its log goes to the output of the moment it is imported, which must outlive one test
import pytest
from kagglesdk import KaggleEnv, kaggle_env

from stages.core.errors import UserError
from stages.sources.kaggle import fetch_kaggle

HANDLE, VERSION = "some-owner/some-birds", 2
NAMED = "'some-owner/some-birds' version 2"
PAGE = "https://www.kaggle.com/datasets/some-owner/some-birds/versions/2"
TARGET = Path("data/raw/birds/some-owner-some-birds-2.zip")
SECRET = "KGAT_thisisnobodystoken"
CREDENTIALS = "KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, in the environment, or ~/.kaggle/kaggle.json"
BY_HAND = (
    f". Run again, or download the archive manually from {PAGE} and give it as `source: archive` with its path as url "
    "and its sha256."
)


def zipped(files):
    """The bytes of a zip archive; a value that is no bytes is the target of a symbolic link."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            if isinstance(content, str):
                entry.create_system = 3
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


# Larger than the 1 MiB that the client writes at a time: of less, nothing is there when the connection breaks off.
ARCHIVE = zipped({f"birds/{color}/1.jpg": random.Random(color).randbytes(2**20) for color in ("black", "blue")})


class Handler(http.server.BaseHTTPRequestHandler):
    """Kaggle's API and, on another host name, the storage that it sends its clients to."""

    def do_POST(self):
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.authorised.append(self.headers["Authorization"])
        if self.path != "/v1/datasets.DatasetApiService/DownloadDataset":
            return self.send_error(501)
        if self.server.status:
            return self.answer(self.server.status, json.dumps({"code": self.server.status, "message": "No."}).encode())
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/archive?signature={SECRET}")
        self.end_headers()

    def do_GET(self):
        self.server.authorised_to_storage.append(self.headers["Authorization"])
        content = self.server.archive
        md5 = base64.b64encode(hashlib.md5(self.server.announced or content).digest()).decode()
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Accept-Ranges", "bytes")
        if self.server.checksum:
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={md5}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        # A client that takes a download up again leaves this answer unread.
        with contextlib.suppress(OSError):
            self.wfile.write(content[start : len(content) * 3 // 4 if self.server.breaks else None])

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / ".kaggle"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("API_TOKEN", "USERNAME", "KEY", "API_ENVIRONMENT", "KERNEL_RUN_TYPE"):
        monkeypatch.delenv(f"KAGGLE_{name}", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.archive, server.announced, server.checksum, server.status, server.breaks = ARCHIVE, None, True, 0, False
        server.asked, server.authorised, server.authorised_to_storage, server.starts = [], [], [], []
        # No setting of the client names another server than Kaggle's own few.
        monkeypatch.setitem(kaggle_env._env_to_endpoint, KaggleEnv.PROD, f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def files():
    """The files below the working folder, which is the home of the user too."""
    return sorted(str(path) for path in Path().rglob("*") if not path.is_dir())


def refused():
    """The sentence with which the dataset is refused, which must leave nothing at the target."""
    with pytest.raises(UserError) as error:
        fetch_kaggle(HANDLE, VERSION, TARGET)
    assert not TARGET.parent.exists() or not list(TARGET.parent.iterdir())
    sentence = str(error.value)
    assert "\n" not in sentence
    assert SECRET not in sentence
    assert sentence.startswith(NAMED)
    assert sentence.endswith(".")
    return sentence


def test_the_archive_is_kept_as_kaggle_serves_it_and_nothing_else(kaggle):
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE
    assert files() == [str(TARGET)]
    assert kaggle.authorised == [None]
    (asked,) = kaggle.asked
    assert (asked["ownerSlug"], asked["datasetSlug"], asked["datasetVersionNumber"]) == ("some-owner", "some-birds", 2)
    assert not asked.get("fileName")


def test_a_target_that_is_there_is_not_asked_for(kaggle):
    fetch_kaggle(HANDLE, VERSION, TARGET)
    kaggle.archive = b"another"
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE
    assert len(kaggle.asked) == 1


@pytest.mark.parametrize("given", ["token", "key", "file", "token file"])
def test_credentials_reach_kaggle_and_nothing_else(given, kaggle, monkeypatch, capfd):
    basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
    mine = []
    if given == "token":
        monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    elif given == "key":
        monkeypatch.setenv("KAGGLE_USERNAME", "me")
        monkeypatch.setenv("KAGGLE_KEY", SECRET)
    else:
        name, content = ("kaggle.json", {"username": "me", "key": SECRET}) if given == "file" else ("token", SECRET)
        mine = [f".kaggle/{name}"]
        Path(".kaggle").mkdir()
        Path(mine[0]).write_text(content if isinstance(content, str) else json.dumps(content))
        if given == "token file":
            monkeypatch.setenv("KAGGLE_API_TOKEN", mine[0])
    kaggle.breaks = True
    refused()
    assert files() == [*mine, "data/partial/kaggle-some-owner-some-birds-2.zip"]
    contents = [Path(path).read_bytes() for path in files() if path not in mine]
    kaggle.breaks = False
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert files() == [*mine, str(TARGET)]
    contents.append(TARGET.read_bytes())
    assert set(kaggle.authorised) == {f"Bearer {SECRET}" if "token" in given else f"Basic {basic}"}
    assert set(kaggle.authorised_to_storage) == {None}
    contents.append("".join(capfd.readouterr()).encode())
    for content in contents:
        assert SECRET.encode() not in content
        assert basic.encode() not in content


@pytest.mark.parametrize("token", [None, SECRET])
@pytest.mark.parametrize("answer", ["401 Unauthorized", "403 Forbidden"])
def test_a_refusal_says_how_to_give_credentials_and_consent(answer, token, kaggle, monkeypatch):
    if token:
        monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    kaggle.status = int(answer[:3])
    assert refused() == (
        f"{NAMED} was denied by Kaggle ({answer}). Check handle and version, give valid credentials ({CREDENTIALS}), "
        f"and accept the rules on {PAGE} if there are any."
    )
    assert files() == []


def test_what_kaggle_does_not_have_is_answered_in_a_sentence(kaggle):
    kaggle.status = 404
    assert refused() == f"{NAMED} does not exist on Kaggle (404 Not Found). Check handle and version."


def test_a_trouble_of_kaggles_is_answered_in_a_sentence(kaggle):
    kaggle.status = 503
    assert refused() == f"{NAMED} cannot be downloaded from Kaggle (Kaggle returned 503 Service Unavailable){BY_HAND}"


def test_without_a_connection_the_sentence_names_the_way_by_hand(kaggle):
    kaggle.shutdown()
    kaggle.server_close()
    assert refused() == f"{NAMED} cannot be downloaded from Kaggle (no connection){BY_HAND}"


def test_a_download_that_broke_off_is_taken_up_again(kaggle):
    kaggle.breaks = True
    assert refused() == f"{NAMED} cannot be downloaded from Kaggle (the connection was interrupted){BY_HAND}"
    assert files() == ["data/partial/kaggle-some-owner-some-birds-2.zip"]
    kaggle.breaks = False
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert kaggle.starts == [0, 0, 2**20]
    assert TARGET.read_bytes() == ARCHIVE
    assert files() == [str(TARGET)]


def test_a_download_that_was_complete_is_not_repeated(kaggle):
    partial = Path("data/partial/kaggle-some-owner-some-birds-2.zip")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(ARCHIVE)
    kaggle.breaks = True
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE
    assert files() == [str(TARGET)]


@pytest.mark.parametrize("content", [b"<html>please log in</html>", ARCHIVE[:-30]])
def test_what_is_no_whole_zip_archive_is_refused_and_not_taken_up_again(content, kaggle):
    kaggle.archive = content
    assert (
        refused() == f"{NAMED} cannot be downloaded from Kaggle (the download is not a complete zip archive){BY_HAND}"
    )
    assert files() == []
    kaggle.archive = ARCHIVE
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE


def test_another_archive_than_announced_is_refused_and_not_taken_up_again(kaggle):
    kaggle.announced = b"another"
    reason = "checksum mismatch"
    assert refused() == f"{NAMED} cannot be downloaded from Kaggle ({reason}){BY_HAND}"
    assert files() == []
    kaggle.announced = None
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE


def test_a_storage_without_checksums_does(kaggle):
    kaggle.checksum = False
    fetch_kaggle(HANDLE, VERSION, TARGET)
    assert TARGET.read_bytes() == ARCHIVE


def test_nothing_of_a_hostile_archive_is_unpacked(kaggle, tmp_path):
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
def test_a_token_that_cannot_be_used_is_answered_without_showing_it(token, kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    assert refused() == (
        f"{NAMED} cannot be downloaded because your Kaggle credentials cannot be read. Correct or remove them "
        f"({CREDENTIALS})."
    )


@pytest.mark.parametrize("content", ["", "{", '{"username": "me"}', '{"key": "mine"}'])
def test_a_broken_credentials_file_is_answered_in_a_sentence(content, kaggle):
    Path(".kaggle").mkdir()
    Path(".kaggle/kaggle.json").write_text(content)
    assert re.search(r"Kaggle credentials cannot be read\. .*~/\.kaggle/kaggle\.json", refused())
