"""Fetching a file from a URL or a path, and the weights of a backbone."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from stages.artifacts.weights import read_weights_record
from stages.backbones.published_weights import PUBLISHED_WEIGHTS, PublishedWeights
from stages.core.errors import UserError
from stages.core.params import Params
from stages.sources.fetch import LONGEST_PAUSE, PARTIAL, fetch, is_url
from stages.weights import main as weights_stage
from tests.conftest import write_archive

CONTENT = bytes(range(256)) * 2000
HALF = len(CONTENT) // 2
OTHER = CONTENT[::-1]  # another version of the file with the same length
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
WRONG = f"sha256:{'0' * 64}"
TARGET = Path("target/file")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each request as `server.script` says, and when that is used up, as `server.default_turn` says."""

    def do_GET(self):
        self.server.requests.append(self.headers)
        turn = self.server.script.pop(0) if self.server.script else self.server.default_turn
        turn(self)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.default_turn, self.requests, self.served = [], sends(), [], 0
        self.url = f"http://127.0.0.1:{self.server_port}/file"
        self.closing = threading.Event()

    @property
    def ranges(self):
        """The Range header of each request."""
        return [headers["Range"] for headers in self.requests]

    def handle_error(self, *_):
        pass  # the client may go away


def sends(content=CONTENT, stop=None, ranges=True, length=None, tag='"1"', then=lambda handler: None, **headers):
    """A turn of the server: send `content`, or the range asked for, up to the place `stop`; then close the connection.

    length: what Content-Length says, of the whole content; "none" announces nothing. tag: the ETag.
    """

    def turn(handler):
        start = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if ranges else None
        if start and handler.headers.get("If-Range", tag) != tag:
            start = None
        first = int(start[1]) if start else 0
        if start and first >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            return handler.end_headers()
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if length != "none":
            handler.send_header("Content-Length", str((length or len(content)) - first))
        if tag:
            handler.send_header("ETag", tag)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.server.served += len(content[first:stop])  # before the write, after which the client continues
        handler.wfile.write(content[first:stop])
        then(handler)

    return turn


def responds(status, **headers):
    def turn(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return turn


def stalls(handler):
    handler.server.closing.wait(60)


def resets(handler):
    """Close the connection with an error for the client."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def trickles(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "40")
    handler.end_headers()
    for position in range(40):
        handler.wfile.write(CONTENT[position : position + 1])
        handler.server.closing.wait(0.02)


def sends_a_piece(handler):
    first = int(handler.headers["Range"].strip("bytes=-"))
    piece = CONTENT[first : first + 100_000]
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first}-{first + len(piece) - 1}/{len(CONTENT)}")
    handler.send_header("Content-Length", str(len(piece)))
    handler.end_headers()
    handler.wfile.write(piece)


def chunked(stop):
    """A turn that sends the content in chunks, whose end is missing where it stops early."""

    def turn(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        for position in range(0, stop, 64000):
            chunk = CONTENT[position : min(position + 64000, stop)]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if stop == len(CONTENT):
            handler.wfile.write(b"0\r\n\r\n")

    return turn


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.closing.set()
        running.shutdown()


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    set_constants(monkeypatch, BACKOFF=0)
    TARGET.parent.mkdir()


def set_constants(monkeypatch, **constants):
    for name, value in constants.items():
        monkeypatch.setattr(f"stages.sources.fetch.{name}", value)


@pytest.fixture
def unused_url():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/file"


def leftovers():
    """The files in the folder of the target and of partial downloads, but for the target."""
    folders = [folder for folder in (TARGET.parent, PARTIAL) if folder.exists()]
    return [path for folder in folders for path in folder.iterdir() if path != TARGET]


def fetch_error(source, checksum):
    """The message of a failed fetch, which must keep the earlier target and leave no other file."""
    TARGET.write_bytes(b"old")
    with pytest.raises(UserError) as error:
        fetch(source, TARGET, checksum)
    assert TARGET.read_bytes() == b"old"
    assert list(TARGET.parent.iterdir()) == [TARGET]
    TARGET.unlink()
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.startswith(repr(source))
    assert sentence.endswith(".")
    return sentence


# Successful downloads.


@pytest.mark.parametrize("checksum", [SHA256, MD5, None])
@pytest.mark.parametrize("turn", [sends(), sends(length="none"), chunked(len(CONTENT))])
def test_a_download_is_complete(turn, checksum, server):
    server.default_turn = turn
    fetch(server.url, TARGET, checksum)
    assert TARGET.read_bytes() == CONTENT
    assert not leftovers()
    assert len(server.requests) == 1


def test_an_empty_file_is_downloaded(server):
    server.default_turn = sends(b"")
    fetch(server.url, TARGET, None)
    assert TARGET.read_bytes() == b""


@pytest.mark.parametrize(("turn", "amount"), [(sends(), "0.5 MB"), (sends(length="none"), "a file of unknown size")])
def test_the_size_is_logged_before_a_download(turn, amount, server, capsys):
    server.default_turn = turn
    fetch(f"{server.url}s/photos.zip?v=1", TARGET, SHA256)
    printed = capsys.readouterr()
    assert printed.out == f"photos.zip: downloading {amount} from {server.url}s/photos.zip?...\n"
    assert not printed.err  # no progress bar without a terminal


def test_a_target_with_the_right_checksum_is_not_downloaded_again(server):
    TARGET.write_bytes(CONTENT)
    fetch(server.url, TARGET, SHA256)
    assert not server.requests
    TARGET.write_bytes(b"damaged")
    fetch(server.url, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT


def test_a_redirect_is_followed(server):
    server.script = [responds(302, Location="/elsewhere")]
    fetch(server.url, TARGET, SHA256)
    assert len(server.requests) == 2


def test_content_encoding_is_not_decoded(server):
    packed = gzip.compress(b"some tar")
    server.default_turn = sends(packed, Content_Encoding="gzip")
    fetch(server.url, TARGET, None)
    assert TARGET.read_bytes() == packed
    assert server.requests[0]["Accept-Encoding"] == "identity"


def test_a_slow_server_does_not_time_out(server, monkeypatch):
    """The whole download takes longer than the timeout between two bytes."""
    set_constants(monkeypatch, TIMEOUT=0.3)
    server.default_turn = trickles
    fetch(server.url, TARGET, None)
    assert TARGET.read_bytes() == CONTENT[:40]


def test_the_target_may_be_on_another_disk(server, monkeypatch):
    def other_disk(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", other_disk)
    fetch(server.url, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert not leftovers()


# Interrupted connections.


@pytest.mark.parametrize("checksum", [SHA256, None])
@pytest.mark.parametrize("turn", [sends(stop=HALF), chunked(HALF)])
def test_an_interrupted_download_is_resumed(turn, checksum, server, capsys):
    server.script = [turn]
    fetch(server.url, TARGET, checksum)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.requests[1]["If-Range"] == '"1"'
    assert capsys.readouterr().out.endswith(f"file: downloading 0.5 MB from {server.url} (0.3 MB complete)\n")


def test_progress_resets_the_attempts(server, monkeypatch):
    set_constants(monkeypatch, ATTEMPTS=2)
    server.script = [sends(stop=position) for position in range(25_600, len(CONTENT), 25_600)]
    fetch(server.url, TARGET, None)
    assert TARGET.read_bytes() == CONTENT
    assert len(server.requests) == 20
    assert server.served == len(CONTENT)


@pytest.mark.parametrize("checksum", [SHA256, None])
@pytest.mark.parametrize("turn", [resets, sends(stop=HALF, then=resets), responds(503), responds(429), responds(408)])
def test_temporary_failures_are_retried(turn, checksum, server):
    server.script = [turn, turn]
    fetch(server.url, TARGET, checksum)
    assert TARGET.read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize("turn", [stalls, sends(stop=HALF, then=stalls)])
def test_a_timeout_is_retried(turn, server, monkeypatch):
    set_constants(monkeypatch, TIMEOUT=0.3)
    server.script = [turn]
    fetch(server.url, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT


def test_a_server_without_ranges_restarts_the_download(server):
    server.script = [sends(stop=HALF, ranges=False)]
    server.default_turn = sends(ranges=False)
    fetch(server.url, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("checksum", [f"sha256:{hashlib.sha256(OTHER).hexdigest()}", None])
def test_a_file_that_changed_between_attempts_is_downloaded_again(checksum, server):
    server.script = [sends(stop=HALF)]
    server.default_turn = sends(OTHER, tag='"2"')
    fetch(server.url, TARGET, checksum)
    assert TARGET.read_bytes() == OTHER
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_file_that_became_shorter_is_downloaded_again(server):
    server.script = [sends(stop=HALF, tag=None, Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")]
    server.script += [responds(416), sends(b"short")]
    fetch(server.url, TARGET, None)
    assert TARGET.read_bytes() == b"short"
    assert server.requests[1]["If-Range"] == "Mon, 01 Jan 2024 00:00:00 GMT"
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_an_unrequested_range_is_rejected(server):
    server.script = [sends(stop=HALF), responds(206, Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")]
    fetch(server.url, TARGET, None)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_a_server_may_send_partial_ranges(server):
    server.script = [sends(stop=HALF)]
    server.default_turn = sends_a_piece
    fetch(server.url, TARGET, None)
    assert TARGET.read_bytes() == CONTENT
    assert len(server.requests) == 4


@pytest.mark.parametrize("tag", [None, 'W/"1"'])
def test_without_a_strong_validator_the_download_restarts(tag, server):
    server.script = [sends(stop=HALF, tag=tag)]
    fetch(server.url, TARGET, None)
    assert server.ranges == [None, None]


def test_retry_after_is_respected(server, monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    server.script = [responds(503, Retry_After="7"), responds(429, Retry_After="86400")]
    fetch(server.url, TARGET, SHA256)
    assert pauses == [7, LONGEST_PAUSE]


def test_the_pauses_between_attempts_double(server, monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    set_constants(monkeypatch, BACKOFF=1, ATTEMPTS=4)
    server.default_turn = sends(stop=HALF, ranges=False)
    fetch_error(server.url, SHA256)
    assert pauses == [1, 2, 4]
    assert len(server.requests) == 4


# Failed downloads.


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (responds(404), "the server returned 404 Not Found"),
        (responds(503), "the server returned 503 Service Unavailable"),
        (resets, "the connection was interrupted"),
        (sends(stop=HALF), "the connection was interrupted"),
        (sends(ranges=False, length=len(CONTENT) + 1), "the connection was interrupted"),
        (chunked(HALF), "the connection was interrupted"),
        (stalls, "the server timed out"),
        (sends(stop=HALF, then=stalls), "the server timed out"),
        (responds(302, Location="/file"), "Exceeded 30 redirects."),
    ],
)
@pytest.mark.parametrize("checksum", [SHA256, None])
def test_a_failed_download_is_an_error(turn, reason, checksum, server, monkeypatch):
    set_constants(monkeypatch, TIMEOUT=0.1 if "timed out" in reason else 30, ATTEMPTS=2)
    server.default_turn = turn
    assert fetch_error(server.url, checksum).startswith(
        f"'{server.url}' cannot be downloaded ({reason}). Check the URL and the connection, or get the file"
    )
    assert checksum or not leftovers()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_permanent_failures_are_not_retried(status, server):
    server.default_turn = responds(status)
    assert f"the server returned {status}" in fetch_error(server.url, SHA256)
    assert len(server.requests) == 1
    assert not leftovers()


GET = "get the file, for which `{} elsewhere, save it as files/file and set `{}: files/file`"
TO_PRINT = " and `sha256` to what `sha256sum files/file` prints"
TO_COPY = f" and `sha256: {SHA256.removeprefix('sha256:')}`"


@pytest.mark.parametrize(
    ("key", "checksum", "there", "remedy"),
    [
        ("url", SHA256, None, GET.format(f"sha256sum` prints {SHA256[7:]},", "url")),
        ("url", SHA256, CONTENT, "use files/file, which is there: set `url: files/file`"),
        ("weights", MD5, None, GET.format(f"md5sum` prints {MD5[4:]},", "weights") + TO_PRINT),
        ("weights", MD5, CONTENT, "use files/file, which is there: set `weights: files/file`" + TO_COPY),
        (
            "weights",
            None,
            None,
            "get the file elsewhere, save it as files/file and set `weights: files/file`" + TO_PRINT,
        ),
        ("weights", None, CONTENT, "use files/file, which is there: set `weights: files/file`" + TO_COPY),
        (
            "weights",
            SHA256,
            b"another",
            f"get the file, for which `sha256sum` prints {SHA256[7:]}, elsewhere, save it as files/file, which is "
            "another file now, and set `weights: files/file`" + TO_PRINT,
        ),
    ],
)
def test_without_a_connection_the_error_says_what_to_get_by_hand_and_what_to_write(
    key, checksum, there, remedy, unused_url
):
    if there:
        Path("files").mkdir()
        Path("files/file").write_bytes(there)
    with pytest.raises(UserError) as error:
        fetch(unused_url, TARGET, checksum, key)
    start = f"'{unused_url}' cannot be downloaded (no connection). Check the URL and the connection, or "
    assert str(error.value) == f"{start}{remedy}."


def test_an_unreachable_server_is_an_error(unused_url):
    assert "(no connection)" in fetch_error(unused_url, None)


def test_a_server_without_tls_is_an_error(server):
    assert "(no secure connection)" in fetch_error(server.url.replace("http:", "https:"), None)


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:99999/file", "http://.a/file"])
def test_an_invalid_url_is_an_error(url):
    assert "cannot be downloaded" in fetch_error(url, None)


@pytest.mark.parametrize("checksum", [WRONG, WRONG.replace("sha256", "md5")])
def test_a_wrong_checksum_is_an_error(checksum, server):
    sentence = fetch_error(server.url, checksum)
    assert (SHA256 if checksum == WRONG else MD5) in sentence
    assert checksum in sentence
    assert sentence.endswith("Fetch the file again, or correct the checksum if the new file is right.")
    assert not leftovers()
    assert len(server.requests) == 1


# Partial downloads of earlier runs.


def interrupt_download(server, checksum, content=CONTENT):
    """Run a download that fails after half of the content."""
    server.script = [sends(content, stop=HALF), responds(404)]
    assert "404" in fetch_error(server.url, checksum)
    server.requests.clear()


def test_the_next_run_resumes_a_failed_download(server):
    interrupt_download(server, SHA256)
    (partial,) = leftovers()
    assert partial.parent == PARTIAL
    assert partial.name.startswith("file-")
    assert partial.read_bytes() == CONTENT[:HALF]
    fetch(server.url, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-"]
    assert server.served == len(CONTENT)
    assert not leftovers()


def test_a_mirror_resumes_the_download_of_another_server(server):
    interrupt_download(server, SHA256)
    fetch(server.url.replace("file", "mirror"), TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-"]


def test_the_next_run_resumes_a_killed_download(server):
    server.script = [sends(stop=HALF, then=stalls)]
    code = f"from stages.sources.fetch import *; fetch({server.url!r}, Path({str(TARGET)!r}), {SHA256!r})"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as run:
        while run.poll() is None and not any(path.stat().st_size for path in leftovers()):
            server.closing.wait(0.01)
        run.kill()
    (partial,) = leftovers()
    size = partial.stat().st_size
    fetch(server.url, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={size}-"]
    assert not leftovers()


def test_without_a_checksum_the_next_run_restarts(server):
    interrupt_download(server, None)
    assert not leftovers()
    fetch(server.url, TARGET, None)
    assert server.ranges == [None]


def test_a_partial_file_of_another_checksum_is_not_resumed(server):
    interrupt_download(server, WRONG)
    fetch(server.url, TARGET, SHA256)
    assert server.ranges == [None]


def test_a_wrong_partial_file_is_downloaded_again_once(server):
    interrupt_download(server, SHA256, OTHER)
    fetch(server.url, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-", None]
    assert not leftovers()


@pytest.mark.parametrize("content", [b"short", CONTENT[:HALF]])
def test_a_wrong_partial_file_may_be_longer_than_the_target(content, server):
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    interrupt_download(server, checksum, OTHER)
    server.default_turn = sends(content)
    fetch(server.url, TARGET, checksum)
    assert TARGET.read_bytes() == content
    assert server.ranges == [f"bytes={HALF}-", None]


def test_a_wrong_checksum_is_an_error_after_one_full_download(server):
    interrupt_download(server, WRONG)
    assert "checksum mismatch" in fetch_error(server.url, WRONG)
    assert server.ranges == [f"bytes={HALF}-", None]
    assert not leftovers()


def test_a_full_download_with_a_wrong_checksum_is_not_repeated(server):
    interrupt_download(server, WRONG)
    server.default_turn = sends(ranges=False)
    assert "checksum mismatch" in fetch_error(server.url, WRONG)
    assert server.ranges == [f"bytes={HALF}-"]


# Full disks.


def test_a_file_larger_than_the_free_space_is_an_error(server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=200_000))
    assert fetch_error(server.url, SHA256) == (
        f"'{server.url}' needs 0.5 MB on the disk, but only 0.2 MB are free. Free some space and run again."
    )
    assert len(server.requests) == 1
    assert not leftovers()
    Path("source").write_bytes(CONTENT)
    assert fetch_error("source", SHA256).startswith("'source' needs 0.5 MB on the disk, but only 0.2 MB are free.")


def test_only_the_remaining_bytes_need_space(server, monkeypatch):
    interrupt_download(server, SHA256)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(CONTENT) - HALF))
    fetch(server.url, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT


@pytest.fixture
def small_files(monkeypatch):
    """Limit files to 200 kB, which acts like a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("source", ["download", "copy"])
@pytest.mark.parametrize("checksum", [SHA256, None])
def test_a_full_disk_leaves_the_target_unchanged(source, checksum, server, request):
    Path("source").write_bytes(CONTENT)
    TARGET.write_bytes(b"old")
    request.getfixturevalue("small_files")
    with pytest.raises(OSError) as error:
        fetch(server.url if source == "download" else "source", TARGET, checksum)
    assert error.value.errno == errno.EFBIG
    assert TARGET.read_bytes() == b"old"
    assert not leftovers()


def test_a_download_survives_a_full_target_disk(server, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "move", full)
        with pytest.raises(OSError, match="No space left"):
            fetch(server.url, TARGET, SHA256)
    assert not list(TARGET.parent.iterdir())
    fetch(server.url, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.served == len(CONTENT)


# Local files.


@pytest.mark.parametrize("checksum", [SHA256, MD5, None])
def test_a_local_file_is_copied(checksum):
    Path("source").write_bytes(CONTENT)
    fetch("source", Path("to/target"), checksum)
    assert Path("to/target").read_bytes() == CONTENT
    assert Path("source").exists()


@pytest.mark.parametrize("name", ["photos.zip", "Übung 1 #2?.zip", "100%25.zip"])
@pytest.mark.parametrize("form", ["{uri}", "file://localhost{encoded}", "file:{encoded}", "file:{name}", "{plain}"])
def test_local_files_are_read_from_paths_and_file_urls(form, name, tmp_path):
    (tmp_path / name).write_bytes(CONTENT)
    uri = (tmp_path / name).as_uri()
    source = form.format(
        uri=uri, encoded=uri.removeprefix("file://"), name=uri.rpartition("/")[2], plain=tmp_path / name
    )
    fetch(source, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert not is_url(source)


def test_a_local_file_with_a_wrong_checksum_is_an_error():
    Path("source").write_bytes(CONTENT)
    assert f"the file has {SHA256}, the study expects {WRONG}" in fetch_error("source", WRONG)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("missing.zip", "No such file or directory"),
        ("file:///no/such/photos.zip", "No such file or directory"),
        ("file://data/photos.zip", "No such file or directory"),
        ("x" * 300, "File name too long"),
        ("nul\0", "embedded null byte"),
    ],
)
def test_an_unreadable_path_is_an_error(source, reason):
    assert fetch_error(source, None) == f"{source!r} cannot be read ({reason}). Correct the path."


def test_a_path_without_permission_is_an_error(monkeypatch):
    """As for a file in a folder without permission."""
    is_dir = Path.is_dir

    def forbidden(path):
        if path == Path("source"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", forbidden)
    assert fetch_error("source", None) == "'source' cannot be read (Permission denied). Correct the path."


def test_the_home_folder_may_be_written_as_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("photos.zip").write_bytes(CONTENT)
    fetch("~/photos.zip", TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert fetch_error("~nobody/photos.zip", None).startswith("'~nobody/photos.zip' cannot be read (")


def test_a_folder_is_an_error(tmp_path):
    assert fetch_error(str(tmp_path), None) == (
        f"'{tmp_path}' is a folder. Give a file: for images a zip or tar of the class folders, for weights a file "
        "that Keras saved."
    )


@pytest.mark.parametrize("name", ["mine", "deeper/mine"])
def test_a_source_in_the_output_folder_is_an_error_and_kept(name):
    mine = TARGET.parent / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"^'target/.*mine' is in target, which this stage writes\. Move it"):
        fetch(str(mine), TARGET, None)
    assert [path for path in TARGET.parent.rglob("*") if path.is_file()] == [mine]


# The weights stage.


def backbone_params(weights, sha256=None):
    return Params({"backbones": {"b": {"architecture": "four_conv", "weights": weights, "sha256": sha256}}})


@pytest.fixture
def weights_file(tmp_path):
    with h5py.File(tmp_path / "some.weights.h5", "w") as file:
        file["kernel"] = [1.0, 2.0]
    return tmp_path / "some.weights.h5"


def sha256_hex(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_random_weights_have_a_record_and_no_file(tmp_path):
    assert weights_stage(backbone_params("random"), "b") == "four_conv, random weights"
    assert [path.name for path in (tmp_path / "data/weights/b").iterdir()] == ["backbone.json"]
    record = read_weights_record("b")
    assert (record.architecture, record.file, record.sha256) == ("four_conv", None, None)


def test_a_weights_file_is_stored_with_its_checksum(weights_file):
    weights_stage(backbone_params("some.weights.h5", sha256_hex(weights_file)), "b")
    record = read_weights_record("b")
    assert (record.file, record.sha256) == (
        "backbone.weights.h5",
        sha256_hex(weights_file),
    )
    assert Path("data/weights/b/backbone.weights.h5").read_bytes() == weights_file.read_bytes()


def test_a_stored_weights_file_is_not_fetched_again(weights_file):
    entry = backbone_params("some.weights.h5", sha256_hex(weights_file))
    weights_stage(entry, "b")
    Path("data/weights/b/left.over").touch()
    weights_file.unlink()
    weights_stage(entry, "b")
    assert sorted(path.name for path in Path("data/weights/b").iterdir()) == ["backbone.json", "backbone.weights.h5"]
    Path("data/weights/b/backbone.weights.h5").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"'some\.weights\.h5' cannot be read"):
        weights_stage(entry, "b")


def test_weights_without_a_checksum_must_not_change(weights_file, monkeypatch):
    """Keras does not publish a checksum of these weights: the first file is kept, and a different one is an error."""
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "four_conv", PublishedWeights("some.weights.h5", None))
    weights_stage(backbone_params("imagenet"), "b")
    first = read_weights_record("b").sha256
    weights_file.unlink()
    weights_stage(backbone_params("imagenet"), "b")
    assert read_weights_record("b").sha256 == first == sha256_hex(Path("data/weights/b/backbone.weights.h5"))
    Path("data/weights/b/backbone.weights.h5").unlink()
    with h5py.File("some.weights.h5", "w") as file:
        file["kernel"] = [3.0]
    monkeypatch.setattr("stages.weights.earlier_checksum", lambda *_: f"sha256:{first}")
    with pytest.raises(UserError, match="to replace them, delete data/weights/b first"):
        weights_stage(backbone_params("imagenet"), "b")


def old_file(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv1"]


def old_model(path):
    with h5py.File(path, "w") as file:
        file.create_group("model_weights").attrs["layer_names"] = ["conv1"]


def new_model(path):
    write_archive(path.with_suffix(".zip"), {"config.json": b"{}", "model.weights.h5": b"..."}).rename(path)


@pytest.mark.parametrize(
    ("name", "write", "stored"),
    [
        ("old.h5", old_file, "backbone.h5"),
        ("old.weights.h5", old_file, "backbone.h5"),
        ("whole.h5", old_model, "backbone.h5"),
        ("new.weights.h5", None, "backbone.weights.h5"),
        ("new.h5", None, "backbone.weights.h5"),
        ("new", None, "backbone.weights.h5"),
        ("model.keras", new_model, "backbone.keras"),
        ("model.bin", new_model, "backbone.keras"),
    ],
)
def test_the_suffix_of_stored_weights_is_that_of_their_content(name, write, stored, weights_file):
    """Keras goes by the suffix."""
    write(Path(name)) if write else weights_file.rename(name)
    entry = backbone_params(name, sha256_hex(Path(name)))
    weights_stage(entry, "b")
    assert read_weights_record("b").file == stored
    Path(name).unlink()
    weights_stage(entry, "b")  # from the stored file
    assert {path.name for path in Path("data/weights/b").iterdir()} == {"backbone.json", stored}


def test_weights_with_a_wrong_checksum_are_an_error(weights_file):
    with pytest.raises(UserError, match=r"'some\.weights\.h5': checksum mismatch"):
        weights_stage(backbone_params("some.weights.h5", "0" * 64), "b")
    assert not list(Path("data/weights/b").iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("some.weights.h5", b"<html>not found</html>"),
        ("some.pt", {"archive/data.pkl": b"..."}),
        ("some.onnx", b"\x08\x08\x12\x07pytorch"),
        ("damaged.h5", b"\x89HDF\r\n\x1a\n" + bytes(40)),
        ("cut.keras", b"PK\x03\x04" + bytes(40)),
    ],
)
def test_a_file_without_keras_weights_is_an_error(name, content, weights_file):
    if isinstance(content, dict):
        write_archive(Path("some.zip"), content).rename(name)
    else:
        Path(name).write_bytes(content)
    with pytest.raises(UserError) as error:
        weights_stage(backbone_params(name, sha256_hex(Path(name))), "b")
    assert str(error.value) == (
        f"backbones.b.weights: {name!r} is not a file of Keras weights. Give one that Keras saved (.weights.h5, .h5 or "
        ".keras), such as by model.save_weights('backbone.weights.h5'). Weights of PyTorch, ONNX and TensorFlow's own "
        "formats cannot be read."
    )
    assert not list(Path("data/weights/b").iterdir())


def test_weights_that_changed_on_disk_are_an_error(weights_file):
    weights_stage(backbone_params("some.weights.h5", sha256_hex(weights_file)), "b")
    with Path("data/weights/b/backbone.weights.h5").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"data/weights/b is damaged .*. Delete it and run `dvc repro`\.$"):
        read_weights_record("b")
