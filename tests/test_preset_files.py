"""Presets from Kaggle and Hugging Face: the real clients against a local server that imitates both."""

import errno
import http.server
import json
import threading

import huggingface_hub
import kagglehub
import pytest
from huggingface_hub import constants
from kagglehub import exceptions
from kagglesdk import KaggleEnv, kaggle_env

from stages import weights
from stages.core.errors import UserError
from stages.core.params import Params
from stages.sources.preset_files import preset_folder
from tests.transformers_models import write_model

WHERE, SECRET = "backbones.mine.weights", "hf_thisisnobodystoken"
KAGGLE, HUGGING_FACE = "kaggle://some-owner/net/keras/small/3", "hf://some-owner/net"
PAGES = {
    KAGGLE: "https://www.kaggle.com/models/some-owner/net",
    HUGGING_FACE: "https://huggingface.co/some-owner/net",
}
CREDENTIALS = {KAGGLE: "KAGGLE_API_TOKEN", HUGGING_FACE: "HF_TOKEN"}
FILES = {
    "config.json": b'{"registered_name": "net"}',
    "model.weights.h5": b"weights" * 1000,
    "notes.txt": b"-",
    "pytorch_model.bin": b"PyTorch",
    "tf_model.h5": b"TensorFlow",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(http.server.BaseHTTPRequestHandler):
    """The interfaces of Kaggle (POST) and of Hugging Face (GET and HEAD)."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.status:
            return self.answer(self.server.status, json.dumps({"code": self.server.status, "message": "No."}).encode())
        if self.path.endswith("/ListModelInstanceVersionFiles"):
            return self.answer(200, json.dumps({"files": [{"name": name} for name in FILES]}).encode())
        return self.answer(200, FILES[request["path"]], "application/octet-stream")

    def do_GET(self):
        if self.server.status:
            return self.answer(self.server.status, b'{"error": "No."}')
        if self.path.startswith(f"/api/models/some-owner/net/tree/{COMMIT}"):
            files = [
                {"type": "file", "path": name, "size": len(content), "oid": name} for name, content in FILES.items()
            ]
            return self.answer(200, json.dumps(files).encode())
        if self.path.startswith("/api/models/some-owner/net"):
            siblings = [{"rfilename": name} for name in FILES]
            return self.answer(200, json.dumps({"id": "some-owner/net", "sha": COMMIT, "siblings": siblings}).encode())
        name = self.path.rpartition("/")[2]
        if name not in FILES:
            return self.answer(404, b"{}")
        return self.answer(
            200, FILES[name], "application/octet-stream", **{"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'}
        )

    do_HEAD = do_GET

    def answer(self, status, body, kind="application/json", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.server.breaks and body in FILES.values() else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / ".kaggle"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    for name in ("API_TOKEN", "USERNAME", "KEY", "API_ENVIRONMENT", "KERNEL_RUN_TYPE"):
        monkeypatch.delenv(f"KAGGLE_{name}", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as local:
        local.status, local.breaks = 0, False
        address = f"http://127.0.0.1:{local.server_port}"
        # No setting of the clients names another server once they are imported.
        monkeypatch.setitem(kaggle_env._env_to_endpoint, KaggleEnv.PROD, address)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        threading.Thread(target=local.serve_forever, args=(0.01,), daemon=True).start()
        yield local
        local.shutdown()


@pytest.mark.parametrize("source", [KAGGLE, HUGGING_FACE, f"{HUGGING_FACE}@{COMMIT}"])
def test_a_preset_is_downloaded_once(server, source, capfd):
    folder = preset_folder(source, WHERE)
    for name in ("config.json", "model.weights.h5"):
        assert (folder / name).read_bytes() == FILES[name]
    assert capfd.readouterr().out == ""
    server.shutdown()
    server.server_close()
    assert preset_folder(source, WHERE) == folder  # without a connection


def test_only_files_of_a_preset_are_taken_from_hugging_face(server):
    assert sorted(path.name for path in preset_folder(HUGGING_FACE, WHERE).iterdir()) == [
        "config.json",
        "model.weights.h5",
    ]


@pytest.mark.parametrize("source", [HUGGING_FACE, f"{HUGGING_FACE}@{COMMIT}"])
@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_a_model_of_transformers_is_converted_from_hugging_face(server, tmp_path, monkeypatch, source, kind):
    write_model(tmp_path / "saved", kind)
    for file in (tmp_path / "saved").iterdir():
        monkeypatch.setitem(FILES, file.name, file.read_bytes())
    params = Params({"backbones": {"x": {"architecture": "preset", "weights": source}}})
    assert weights.main(params, "x").startswith(f"x-preset, {source}, model.safetensors sha256 ")
    server.shutdown()
    server.server_close()
    assert weights.main(params, "x").startswith("x-preset")  # without a connection


@pytest.mark.parametrize("source", [KAGGLE, HUGGING_FACE])
@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_answers_other_than_the_files_are_told(server, source, status):
    server.status = status
    with pytest.raises(UserError) as error:
        preset_folder(source, WHERE)
    page = PAGES[source]
    denied = (
        f"access to {source!r} was denied ({status}). Check the name, accept the terms on {page} if there are any, and "
        f"give valid credentials in {CREDENTIALS[source]}."
    )
    by_hand = f"Run again, or download its files by hand from {page} into a folder, and give the folder."
    expected = {
        401: denied,
        403: denied,
        404: f"{source!r} does not exist. Look for its address on {page}.",
        500: f"{source!r} cannot be downloaded (the server returned 500). {by_hand}",
    }
    assert str(error.value) == f"{WHERE}: {expected[status]}"


@pytest.mark.parametrize("source", [KAGGLE, HUGGING_FACE])
def test_without_a_connection_the_way_by_hand_is_told(server, source):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError) as error:
        preset_folder(source, WHERE)
    assert str(error.value) == (
        f"{WHERE}: {source!r} cannot be downloaded (no connection). Run again, or download its files by hand from "
        f"{PAGES[source]} into a folder, and give the folder."
    )
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("source", [KAGGLE, HUGGING_FACE])
def test_an_interrupted_download_is_told_and_then_repeated(server, source):
    server.breaks = True
    with pytest.raises(UserError, match=r"cannot be downloaded \(.*\)\. Run again, or download its files by hand"):
        preset_folder(source, WHERE)
    server.breaks = False
    assert (preset_folder(source, WHERE) / "model.weights.h5").read_bytes() == FILES["model.weights.h5"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "kaggle://some-owner/net",
            "is not the address of a preset. Give kaggle://owner/model/keras/variation/version",
        ),
        ("kaggle://some-owner/net/keras/small", "is not the address of a preset. Give kaggle://owner/model/keras"),
        ("kaggle://some-owner/net/keras/small/new", "is not the address of a preset. Give kaggle://owner/model/keras"),
        ("hf://some owner/net", "is not the address of a preset. Give hf://owner/model, as on its page."),
        ("hf://a/b/c", "is not the address of a preset. Give hf://owner/model, as on its page."),
        ("nowhere", "is not a preset of KerasHub (there is no such folder). Give the folder that save_to_preset wrote"),
        (
            "~/nowhere",
            "is not a preset of KerasHub (there is no such folder). Give the folder that save_to_preset wrote",
        ),
        ("empty", "is not a preset of KerasHub (it has no config.json). Give the folder that save_to_preset wrote"),
    ],
)
def test_other_places_are_refused(server, tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as error:
        preset_folder(source, WHERE)
    assert str(error.value).startswith(f"{WHERE}: {source!r} {message}")


@pytest.mark.parametrize("source", ["mine", "~/mine"])
def test_a_folder_is_used_as_it_is(server, tmp_path, source):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text("{}")
    assert preset_folder(source, WHERE).resolve() == tmp_path / "mine"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (exceptions.DataCorruptionError("signed?key=1"), "the download is damaged"),
        (exceptions.UnauthenticatedError(), "your Kaggle credentials cannot be read or sent"),
        (exceptions.CredentialError("secret"), "your Kaggle credentials cannot be read or sent"),
        (ValueError("a line break in a token"), "your Kaggle credentials cannot be read or sent"),
        (exceptions.BackendError("later"), "no connection"),
    ],
)
def test_other_errors_of_kaggles_client_are_one_sentence(server, monkeypatch, error, reason):
    monkeypatch.setattr(kagglehub, "model_download", raise_error(error))
    with pytest.raises(UserError) as told:
        preset_folder(KAGGLE, WHERE)
    assert str(told.value).startswith(f"{WHERE}: {KAGGLE!r} cannot be downloaded ({reason}). Run again, or ")


@pytest.mark.parametrize(("source", "client"), [(KAGGLE, kagglehub), (HUGGING_FACE, huggingface_hub)])
def test_a_full_disk_is_not_reported_as_a_failed_download(server, monkeypatch, source, client):
    name = "model_download" if client is kagglehub else "snapshot_download"
    monkeypatch.setattr(client, name, raise_error(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        preset_folder(source, WHERE)


def raise_error(error):
    def fail(*_, **__):
        raise error

    return fail
