"""Fetching a file from an address or a path, and the weights of a backbone."""

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

CONTENT = bytes(range(256)) * 2000
HALF = len(CONTENT) // 2
OTHER = CONTENT[::-1]  # another version of the file, as long
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
WRONG = f"sha256:{'0' * 64}"
TARGET = Path("target/file")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each request as `server.script` says, and when that is used up, as `server.otherwise` says."""

    def do_GET(self):
        self.server.seen.append(self.headers)
        turn = self.server.script.pop(0) if self.server.script else self.server.otherwise
        turn(self)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.otherwise, self.seen, self.served = [], sends(), [], 0
        self.address = f"http://127.0.0.1:{self.server_port}/file"
        self.closing = threading.Event()

    @property
    def ranges(self):
        """What each request asked for."""
        return [headers["Range"] for headers in self.seen]

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
        handler.server.served += len(content[first:stop])  # first: the client goes on as soon as it has the bytes
        handler.wfile.write(content[first:stop])
        then(handler)

    return turn


def answers(status, **headers):
    def turn(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return turn


def hangs(handler):
    handler.server.closing.wait(60)


def resets(handler):
    """Close the connection so that the other side gets an error."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def trickles(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "40")
    handler.end_headers()
    for place in range(40):
        handler.wfile.write(CONTENT[place : place + 1])
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
        for place in range(0, stop, 64000):
            chunk = CONTENT[place : min(place + 64000, stop)]
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
    settings(monkeypatch, BACKOFF=0)
    TARGET.parent.mkdir()


def settings(monkeypatch, **constants):
    for name, value in constants.items():
        monkeypatch.setattr(f"stages.sources.fetch.{name}", value)


@pytest.fixture
def unused_address():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/file"


def left():
    """The files in the folder of the target and of partial downloads, but for the target."""
    folders = [folder for folder in (TARGET.parent, PARTIAL) if folder.exists()]
    return [path for folder in folders for path in folder.iterdir() if path != TARGET]


def refused(source, checksum):
    """The sentence with which a fetch is refused, which must keep the file that was there and leave nothing beside."""
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


# Downloads that go well.


@pytest.mark.parametrize("checksum", [SHA256, MD5, None])
@pytest.mark.parametrize("turn", [sends(), sends(length="none"), chunked(len(CONTENT))])
def test_a_download_is_whole(turn, checksum, server):
    server.otherwise = turn
    fetch(server.address, TARGET, checksum)
    assert TARGET.read_bytes() == CONTENT
    assert not left()
    assert len(server.seen) == 1


def test_an_empty_file_is_whole(server):
    server.otherwise = sends(b"")
    fetch(server.address, TARGET, None)
    assert TARGET.read_bytes() == b""


@pytest.mark.parametrize(("turn", "amount"), [(sends(), "0.5 MB"), (sends(length="none"), "a file of unknown size")])
def test_a_line_tells_the_size_before_a_download(turn, amount, server, capsys):
    server.otherwise = turn
    fetch(f"{server.address}s/photos.zip?v=1", TARGET, SHA256)
    printed = capsys.readouterr()
    assert printed.out == f"photos.zip: downloading {amount} from {server.address}s/photos.zip?...\n"
    assert not printed.err  # no bar where no terminal is


def test_a_file_that_is_there_and_right_is_not_downloaded_again(server):
    TARGET.write_bytes(CONTENT)
    fetch(server.address, TARGET, SHA256)
    assert not server.seen
    TARGET.write_bytes(b"damaged")
    fetch(server.address, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT


def test_a_redirect_is_followed(server):
    server.script = [answers(302, Location="/elsewhere")]
    fetch(server.address, TARGET, SHA256)
    assert len(server.seen) == 2


def test_a_compressed_file_stays_compressed_whatever_the_server_calls_it(server):
    packed = gzip.compress(b"some tar")
    server.otherwise = sends(packed, Content_Encoding="gzip")
    fetch(server.address, TARGET, None)
    assert TARGET.read_bytes() == packed
    assert server.seen[0]["Accept-Encoding"] == "identity"


def test_a_slow_but_steady_server_is_waited_for(server, monkeypatch):
    """All of it takes longer than a server may be silent."""
    settings(monkeypatch, TIMEOUT=0.3)
    server.otherwise = trickles
    fetch(server.address, TARGET, None)
    assert TARGET.read_bytes() == CONTENT[:40]


def test_a_download_gets_to_a_target_on_another_disk(server, monkeypatch):
    def other_disk(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", other_disk)
    fetch(server.address, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert not left()


# Connections that break.


@pytest.mark.parametrize("checksum", [SHA256, None])
@pytest.mark.parametrize("turn", [sends(stop=HALF), chunked(HALF)])
def test_a_download_that_breaks_off_goes_on_where_it_stopped(turn, checksum, server, capsys):
    server.script = [turn]
    fetch(server.address, TARGET, checksum)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.seen[1]["If-Range"] == '"1"'
    assert capsys.readouterr().out.endswith(f"file: downloading 0.5 MB from {server.address} (0.3 MB complete)\n")


def test_nothing_is_sent_twice_and_each_step_forward_gives_new_attempts(server, monkeypatch):
    settings(monkeypatch, ATTEMPTS=2)
    server.script = [sends(stop=place) for place in range(25_600, len(CONTENT), 25_600)]
    fetch(server.address, TARGET, None)
    assert TARGET.read_bytes() == CONTENT
    assert len(server.seen) == 20
    assert server.served == len(CONTENT)


@pytest.mark.parametrize("checksum", [SHA256, None])
@pytest.mark.parametrize("turn", [resets, sends(stop=HALF, then=resets), answers(503), answers(429), answers(408)])
def test_what_passes_is_tried_again(turn, checksum, server):
    server.script = [turn, turn]
    fetch(server.address, TARGET, checksum)
    assert TARGET.read_bytes() == CONTENT
    assert len(server.seen) == 3


@pytest.mark.parametrize("turn", [hangs, sends(stop=HALF, then=hangs)])
def test_a_server_that_hangs_is_asked_again(turn, server, monkeypatch):
    settings(monkeypatch, TIMEOUT=0.3)
    server.script = [turn]
    fetch(server.address, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_sends_all_again(server):
    server.script = [sends(stop=HALF, ranges=False)]
    server.otherwise = sends(ranges=False)
    fetch(server.address, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("checksum", [f"sha256:{hashlib.sha256(OTHER).hexdigest()}", None])
def test_a_file_that_changes_between_two_attempts_is_not_pieced_together(checksum, server):
    server.script = [sends(stop=HALF)]
    server.otherwise = sends(OTHER, tag='"2"')
    fetch(server.address, TARGET, checksum)
    assert TARGET.read_bytes() == OTHER
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_file_that_got_shorter_between_two_attempts_is_fetched_from_zero(server):
    server.script = [sends(stop=HALF, tag=None, Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")]
    server.script += [answers(416), sends(b"short")]
    fetch(server.address, TARGET, None)
    assert TARGET.read_bytes() == b"short"
    assert server.seen[1]["If-Range"] == "Mon, 01 Jan 2024 00:00:00 GMT"
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_a_range_that_was_not_asked_for_is_not_taken(server):
    server.script = [sends(stop=HALF), answers(206, Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")]
    fetch(server.address, TARGET, None)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_a_server_may_send_less_than_the_range_it_is_asked_for(server):
    server.script = [sends(stop=HALF)]
    server.otherwise = sends_a_piece
    fetch(server.address, TARGET, None)
    assert TARGET.read_bytes() == CONTENT
    assert len(server.seen) == 4


@pytest.mark.parametrize("tag", [None, 'W/"1"'])
def test_without_anything_to_know_the_file_by_it_is_fetched_from_zero(tag, server):
    server.script = [sends(stop=HALF, tag=tag)]
    fetch(server.address, TARGET, None)
    assert server.ranges == [None, None]


def test_a_server_that_asks_for_patience_gets_some(server, monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    server.script = [answers(503, Retry_After="7"), answers(429, Retry_After="86400")]
    fetch(server.address, TARGET, SHA256)
    assert slept == [7, LONGEST_PAUSE]


def test_the_pauses_between_attempts_double(server, monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    settings(monkeypatch, BACKOFF=1, ATTEMPTS=4)
    server.otherwise = sends(stop=HALF, ranges=False)
    refused(server.address, SHA256)
    assert slept == [1, 2, 4]
    assert len(server.seen) == 4


# Downloads that fail.


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (answers(404), "the server returned 404 Not Found"),
        (answers(503), "the server returned 503 Service Unavailable"),
        (resets, "the connection was interrupted"),
        (sends(stop=HALF), "the connection was interrupted"),
        (sends(ranges=False, length=len(CONTENT) + 1), "the connection was interrupted"),
        (chunked(HALF), "the connection was interrupted"),
        (hangs, "the server timed out"),
        (sends(stop=HALF, then=hangs), "the server timed out"),
        (answers(302, Location="/file"), "Exceeded 30 redirects."),
    ],
)
@pytest.mark.parametrize("checksum", [SHA256, None])
def test_a_download_that_fails_is_answered_in_a_sentence(turn, reason, checksum, server, monkeypatch):
    settings(monkeypatch, TIMEOUT=0.1 if "timed out" in reason else 30, ATTEMPTS=2)
    server.otherwise = turn
    expected = f"file ({checksum})" if checksum else "file"
    assert refused(server.address, checksum) == (
        f"'{server.address}' cannot be downloaded ({reason}). Check the URL and the connection, or get {expected} "
        "by other means and give its path or a mirror as `url` of the dataset or `weights` of the backbone."
    )
    assert checksum or not left()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_that_will_not_pass_is_believed_at_once(status, server):
    server.otherwise = answers(status)
    assert f"the server returned {status}" in refused(server.address, SHA256)
    assert len(server.seen) == 1
    assert not left()


def test_a_server_that_is_not_there_is_answered_in_a_sentence(unused_address):
    assert "(no connection)" in refused(unused_address, None)


def test_a_server_without_encryption_is_answered_in_a_sentence(server):
    assert "(no secure connection)" in refused(server.address.replace("http:", "https:"), None)


@pytest.mark.parametrize("address", ["http://", "http://[", "http://127.0.0.1:99999/file", "http://.a/file"])
def test_an_address_that_is_none_is_answered_in_a_sentence(address):
    assert "cannot be downloaded" in refused(address, None)


@pytest.mark.parametrize("checksum", [WRONG, WRONG.replace("sha256", "md5")])
def test_another_file_than_expected_is_refused(checksum, server):
    sentence = refused(server.address, checksum)
    assert (SHA256 if checksum == WRONG else MD5) in sentence
    assert checksum in sentence
    assert sentence.endswith("Fetch the file again, or correct the checksum if the new file is right.")
    assert not left()
    assert len(server.seen) == 1


# What an earlier run left.


def breaks_off(server, checksum, content=CONTENT):
    """A run that ends when half has come."""
    server.script = [sends(content, stop=HALF), answers(404)]
    assert "404" in refused(server.address, checksum)
    server.seen.clear()


def test_the_next_run_goes_on_where_the_last_one_failed(server):
    breaks_off(server, SHA256)
    (partial,) = left()
    assert partial.parent == PARTIAL
    assert partial.name.startswith("file-")
    assert partial.read_bytes() == CONTENT[:HALF]
    fetch(server.address, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-"]
    assert server.served == len(CONTENT)
    assert not left()


def test_a_mirror_goes_on_where_the_first_server_failed(server):
    breaks_off(server, SHA256)
    fetch(server.address.replace("file", "mirror"), TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-"]


def test_the_next_run_goes_on_where_the_last_one_was_killed(server):
    server.script = [sends(stop=HALF, then=hangs)]
    code = f"from stages.sources.fetch import *; fetch({server.address!r}, Path({str(TARGET)!r}), {SHA256!r})"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as run:
        while run.poll() is None and not any(path.stat().st_size for path in left()):
            server.closing.wait(0.01)
        run.kill()
    (partial,) = left()
    size = partial.stat().st_size
    fetch(server.address, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={size}-"]
    assert not left()


def test_without_a_checksum_the_next_run_starts_from_zero(server):
    breaks_off(server, None)
    assert not left()
    fetch(server.address, TARGET, None)
    assert server.ranges == [None]


def test_what_was_begun_for_another_checksum_is_not_taken_up(server):
    breaks_off(server, WRONG)
    fetch(server.address, TARGET, SHA256)
    assert server.ranges == [None]


def test_what_is_left_of_another_file_is_fetched_from_zero_once(server):
    breaks_off(server, SHA256, OTHER)
    fetch(server.address, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-", None]
    assert not left()


@pytest.mark.parametrize("content", [b"short", CONTENT[:HALF]])
def test_what_is_left_of_another_file_may_be_as_long_or_longer(content, server):
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    breaks_off(server, checksum, OTHER)
    server.otherwise = sends(content)
    fetch(server.address, TARGET, checksum)
    assert TARGET.read_bytes() == content
    assert server.ranges == [f"bytes={HALF}-", None]


def test_a_wrong_checksum_is_complained_of_after_one_download_from_zero(server):
    breaks_off(server, WRONG)
    assert "checksum mismatch" in refused(server.address, WRONG)
    assert server.ranges == [f"bytes={HALF}-", None]
    assert not left()


def test_a_server_that_knows_no_ranges_is_not_asked_again_for_a_wrong_checksum(server):
    breaks_off(server, WRONG)
    server.otherwise = sends(ranges=False)
    assert "checksum mismatch" in refused(server.address, WRONG)
    assert server.ranges == [f"bytes={HALF}-"]


# Disks that are full.


def test_a_file_that_cannot_fit_is_refused_before_it_is_downloaded(server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=200_000))
    assert refused(server.address, SHA256) == (
        f"'{server.address}' needs 0.5 MB on the disk, but only 0.2 MB are free. Free some space and run again."
    )
    assert len(server.seen) == 1
    assert not left()
    Path("source").write_bytes(CONTENT)
    assert refused("source", SHA256).startswith("'source' needs 0.5 MB on the disk, but only 0.2 MB are free.")


def test_only_what_is_missing_must_fit(server, monkeypatch):
    breaks_off(server, SHA256)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(CONTENT) - HALF))
    fetch(server.address, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT


@pytest.fixture
def small_files(monkeypatch):
    """No file may get longer than 200 kB, which to the program looks as a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("source", ["download", "copy"])
@pytest.mark.parametrize("checksum", [SHA256, None])
def test_a_disk_that_gets_full_is_left_as_it_was(source, checksum, server, request):
    Path("source").write_bytes(CONTENT)
    TARGET.write_bytes(b"old")
    request.getfixturevalue("small_files")
    with pytest.raises(OSError) as error:
        fetch(server.address if source == "download" else "source", TARGET, checksum)
    assert error.value.errno == errno.EFBIG
    assert TARGET.read_bytes() == b"old"
    assert not left()


def test_a_download_is_not_lost_when_the_disk_of_the_target_is_full(server, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "move", full)
        with pytest.raises(OSError, match="No space left"):
            fetch(server.address, TARGET, SHA256)
    assert not list(TARGET.parent.iterdir())
    fetch(server.address, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert server.served == len(CONTENT)


# Files of this machine.


@pytest.mark.parametrize("checksum", [SHA256, MD5, None])
def test_a_local_file_is_copied(checksum):
    Path("source").write_bytes(CONTENT)
    fetch("source", Path("to/target"), checksum)
    assert Path("to/target").read_bytes() == CONTENT
    assert Path("source").exists()


@pytest.mark.parametrize("name", ["photos.zip", "Übung 1 #2?.zip", "100%25.zip"])
@pytest.mark.parametrize("form", ["{uri}", "file://localhost{encoded}", "file:{encoded}", "file:{name}", "{plain}"])
def test_a_file_is_found_by_its_path_or_file_url(form, name, tmp_path):
    (tmp_path / name).write_bytes(CONTENT)
    uri = (tmp_path / name).as_uri()
    source = form.format(
        uri=uri, encoded=uri.removeprefix("file://"), name=uri.rpartition("/")[2], plain=tmp_path / name
    )
    fetch(source, TARGET, SHA256)
    assert TARGET.read_bytes() == CONTENT
    assert not is_url(source)


def test_a_local_file_other_than_expected_is_refused():
    Path("source").write_bytes(CONTENT)
    assert f"the file has {SHA256}, the study expects {WRONG}" in refused("source", WRONG)


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
def test_a_path_that_cannot_be_read_is_answered_in_a_sentence(source, reason):
    assert refused(source, None) == f"{source!r} cannot be read ({reason}). Correct the path."


def test_a_path_without_permission_is_answered_in_a_sentence(monkeypatch):
    """As of a file in a folder that is closed to the user."""
    is_dir = Path.is_dir

    def forbidden(path):
        if path == Path("source"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", forbidden)
    assert refused("source", None) == "'source' cannot be read (Permission denied). Correct the path."


def test_a_folder_is_refused(tmp_path):
    assert refused(str(tmp_path), None) == (
        f"'{tmp_path}' is a folder. Give a file (for images: a zip or tar of the class folders)."
    )


@pytest.mark.parametrize("name", ["mine", "deeper/mine"])
def test_a_file_in_the_folder_that_is_written_is_refused_and_kept(name):
    mine = TARGET.parent / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"^'target/.*mine' is in target, which this stage writes\. Move it"):
        fetch(str(mine), TARGET, None)
    assert [path for path in TARGET.parent.rglob("*") if path.is_file()] == [mine]


# The weights stage.


def study_of_backbone(weights, sha256=None):
    return Params({"backbones": {"b": {"architecture": "four_conv", "weights": weights, "sha256": sha256}}})


@pytest.fixture
def weights_file(tmp_path):
    with h5py.File(tmp_path / "some.weights.h5", "w") as file:
        file["kernel"] = [1.0, 2.0]
    return tmp_path / "some.weights.h5"


def sha256_hex(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_random_weights_have_a_record_and_no_file(tmp_path):
    assert weights_stage(study_of_backbone("random"), "b") == "four_conv, random weights"
    assert [path.name for path in (tmp_path / "data/weights/b").iterdir()] == ["backbone.json"]
    record = read_weights_record("b")
    assert (record.architecture, record.file, record.sha256) == ("four_conv", None, None)


def test_a_weights_file_is_kept_with_its_checksum(weights_file):
    weights_stage(study_of_backbone("some.weights.h5", sha256_hex(weights_file)), "b")
    record = read_weights_record("b")
    assert (record.file, record.sha256) == (
        "backbone.weights.h5",
        sha256_hex(weights_file),
    )
    assert Path("data/weights/b/backbone.weights.h5").read_bytes() == weights_file.read_bytes()


def test_a_file_that_is_there_and_right_is_not_fetched_again(weights_file):
    entry = study_of_backbone("some.weights.h5", sha256_hex(weights_file))
    weights_stage(entry, "b")
    Path("data/weights/b/left.over").touch()
    weights_file.unlink()
    weights_stage(entry, "b")
    assert sorted(path.name for path in Path("data/weights/b").iterdir()) == ["backbone.json", "backbone.weights.h5"]
    Path("data/weights/b/backbone.weights.h5").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"'some\.weights\.h5' cannot be read"):
        weights_stage(entry, "b")


def test_weights_without_a_checksum_must_stay_what_they_were(weights_file, monkeypatch):
    """Keras publishes no checksum of these weights: what came first is kept, and nothing else taken for it."""
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "four_conv", PublishedWeights("some.weights.h5", None))
    weights_stage(study_of_backbone("imagenet"), "b")
    first = read_weights_record("b").sha256
    weights_file.unlink()
    weights_stage(study_of_backbone("imagenet"), "b")
    assert read_weights_record("b").sha256 == first == sha256_hex(Path("data/weights/b/backbone.weights.h5"))
    Path("data/weights/b/backbone.weights.h5").unlink()
    with h5py.File("some.weights.h5", "w") as file:
        file["kernel"] = [3.0]
    monkeypatch.setattr("stages.weights.earlier_checksum", lambda *_: f"sha256:{first}")
    with pytest.raises(UserError, match="to replace them, delete data/weights/b first"):
        weights_stage(study_of_backbone("imagenet"), "b")


@pytest.mark.parametrize(
    ("name", "kept"),
    [("old.h5", "backbone.h5"), ("new.weights.h5", "backbone.weights.h5")],
)
def test_the_name_keeps_the_ending_by_which_keras_tells_its_formats(name, kept, weights_file):
    weights_file.rename(name)
    weights_stage(study_of_backbone(name, sha256_hex(Path(name))), "b")
    assert read_weights_record("b").file == kept


def test_weights_with_another_checksum_are_refused(weights_file):
    with pytest.raises(UserError, match=r"'some\.weights\.h5': checksum mismatch"):
        weights_stage(study_of_backbone("some.weights.h5", "0" * 64), "b")
    assert not list(Path("data/weights/b").iterdir())


def test_weights_that_are_no_hdf5_file_are_refused(weights_file):
    weights_file.write_text("<html>not found</html>")
    with pytest.raises(UserError) as error:
        weights_stage(study_of_backbone("some.weights.h5", sha256_hex(weights_file)), "b")
    assert str(error.value) == (
        "backbones.b.weights: 'some.weights.h5' is not an HDF5 file. Give weights that Keras saved."
    )
    assert not list(Path("data/weights/b").iterdir())


def test_weights_that_changed_since_are_refused(weights_file):
    weights_stage(study_of_backbone("some.weights.h5", sha256_hex(weights_file)), "b")
    with Path("data/weights/b/backbone.weights.h5").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"data/weights/b is damaged .*. Delete it and run `dvc repro`\.$"):
        read_weights_record("b")
