"""Fetching a file from an address or a path, and the weights of a backbone."""

import contextlib
import hashlib
import http.server
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from stages.base.errors import UserError
from stages.data.weights import read_weights_record
from stages.sources.fetch import fetch
from stages.study.architectures import ARCHITECTURES, Architecture
from stages.weights import main as weights_stage

CONTENT = bytes(range(256)) * 2000
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
WRONG = f"sha256:{'0' * 64}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, whole or half of what it announces."""

    def do_GET(self):
        if self.path == "/missing":
            return self.send_error(404)
        self.send_response(200)
        if self.path != "/unannounced":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/half" else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def unused_address():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/file"


def refused(source, target, checksum):
    """The sentence with which a fetch is refused, which must leave nothing behind."""
    with pytest.raises(UserError) as error:
        fetch(source, target, checksum)
    assert not list(target.parent.iterdir())
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.startswith(repr(source))
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("checksum", [SHA256, MD5, None])
@pytest.mark.parametrize("path", ["/file", "/unannounced"])
def test_a_download_is_whole(path, checksum, server, tmp_path):
    fetch(server + path, tmp_path / "file", checksum)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_local_file_is_copied(tmp_path):
    (tmp_path / "source").write_bytes(CONTENT)
    fetch(str(tmp_path / "source"), tmp_path / "to/target", SHA256)
    assert (tmp_path / "to/target").read_bytes() == CONTENT
    assert (tmp_path / "source").exists()


def test_another_file_than_expected_is_refused(server, tmp_path):
    sentence = refused(f"{server}/file", tmp_path / "file", WRONG)
    assert SHA256 in sentence
    assert WRONG in sentence
    assert sentence.endswith("fetch the file again, or correct the checksum if the new file is right.")


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/missing", "the server answers 404 Not Found"), ("/half", "the connection broke off")],
)
@pytest.mark.parametrize("checksum", [SHA256, None])
def test_a_download_that_fails_leaves_nothing(path, reason, checksum, server, tmp_path):
    assert refused(server + path, tmp_path / "file", checksum) == (
        f"'{server}{path}' cannot be downloaded ({reason}); check the address and the connection, or fetch the file by "
        "other means and give its path instead of the address."
    )


def test_a_server_that_is_not_there_is_answered_in_a_sentence(unused_address, tmp_path):
    assert "(there is no connection)" in refused(unused_address, tmp_path / "file", None)


def test_an_address_that_is_none_is_answered_in_a_sentence(tmp_path):
    assert "cannot be downloaded" in refused("http://", tmp_path / "file", None)


def test_a_failed_download_keeps_the_file_that_was_there(server, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(UserError):
        fetch(f"{server}/half", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_path_that_cannot_be_read_is_answered_in_a_sentence(tmp_path):
    (tmp_path / "target").mkdir()
    sentence = refused(str(tmp_path / "missing.zip"), tmp_path / "target/file", None)
    assert sentence == f"'{tmp_path}/missing.zip' cannot be read (No such file or directory); correct the path."
    sentence = refused(str(tmp_path), tmp_path / "target/file", None)
    assert sentence == f"'{tmp_path}' is a folder; give a file (of images: a zip or tar of the class folders)."


def test_a_file_in_the_folder_that_is_written_is_refused_and_kept(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine").write_text("mine")
    with pytest.raises(UserError, match=r"/target/mine' lies in .*/target, which this stage writes; move it"):
        fetch(str(tmp_path / "target/mine"), tmp_path / "target/file", None)
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["mine"]


def test_weights_without_a_checksum_must_stay_what_they_were(weights_file, monkeypatch):
    """Keras publishes no checksum of these weights: what came first is kept, and nothing else taken for it."""
    imagenet = Architecture(smallest_image=8, any_size=True, imagenet="some.weights.h5")
    monkeypatch.setitem(ARCHITECTURES, "four_conv", imagenet)
    weights_stage(study_of_backbone("imagenet"), "b")
    first = read_weights_record("b").sha256
    weights_file.unlink()
    weights_stage(study_of_backbone("imagenet"), "b")
    assert read_weights_record("b").sha256 == first == sha256_hex(Path("data/weights/b/backbone.weights.h5"))


# The weights stage.


def study_of_backbone(weights, sha256=None):
    entry = SimpleNamespace(architecture="four_conv", weights=weights, sha256=sha256)
    return SimpleNamespace(backbones={"b": entry})


@pytest.fixture
def weights_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File(tmp_path / "some.weights.h5", "w") as file:
        file["kernel"] = [1.0, 2.0]
    return tmp_path / "some.weights.h5"


def sha256_hex(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_random_weights_have_a_record_and_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert weights_stage(study_of_backbone("random"), "b") == "four_conv, random weights"
    assert [path.name for path in (tmp_path / "data/weights/b").iterdir()] == ["backbone.json"]
    record = read_weights_record("b")
    assert (record.architecture, record.source, record.file, record.sha256) == ("four_conv", "random", None, None)


def test_a_weights_file_is_kept_with_its_checksum(weights_file):
    weights_stage(study_of_backbone("some.weights.h5", sha256_hex(weights_file)), "b")
    record = read_weights_record("b")
    assert (record.source, record.file, record.sha256) == (
        "some.weights.h5",
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


@pytest.mark.parametrize(
    ("name", "kept"),
    [("old.h5", "backbone.h5"), ("new.weights.h5", "backbone.weights.h5")],
)
def test_the_name_keeps_the_ending_by_which_keras_tells_its_formats(name, kept, weights_file):
    weights_file.rename(name)
    weights_stage(study_of_backbone(name, sha256_hex(Path(name))), "b")
    assert read_weights_record("b").file == kept


def test_weights_with_another_checksum_are_refused(weights_file):
    with pytest.raises(UserError, match=r"'some\.weights\.h5' is not the file expected"):
        weights_stage(study_of_backbone("some.weights.h5", "0" * 64), "b")
    assert not list(Path("data/weights/b").iterdir())


def test_weights_that_are_no_hdf5_file_are_refused(weights_file):
    weights_file.write_text("<html>not found</html>")
    with pytest.raises(UserError) as error:
        weights_stage(study_of_backbone("some.weights.h5", sha256_hex(weights_file)), "b")
    assert str(error.value) == (
        "backbones.b.weights: 'some.weights.h5' is not an HDF5 file; give weights that Keras saved."
    )
    assert not list(Path("data/weights/b").iterdir())


def test_weights_that_changed_since_are_refused(weights_file):
    weights_stage(study_of_backbone("some.weights.h5", sha256_hex(weights_file)), "b")
    with Path("data/weights/b/backbone.weights.h5").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"data/weights/b is damaged .*; delete it and run `dvc repro`\.$"):
        read_weights_record("b")
