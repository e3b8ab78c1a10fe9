"""Presets from Kaggle and Hugging Face: the real clients against a local server that imitates both."""

import errno
import json
import logging
import math
import sys
import time

import huggingface_hub
import kagglehub
import pytest
from huggingface_hub import constants
from kagglehub import clients, exceptions

from stages import weights
from stages.core.errors import UserError
from stages.core.params import Params
from stages.sources.preset_files import preset_folder
from tests.imitated_kaggle import Answering, imitated_kaggle
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


class Handler(Answering):
    """The interfaces of Kaggle (POST) and of Hugging Face (GET and HEAD)."""

    def fails(self):
        """Whether this request fails, as the next `failing` ones do if there is a status."""
        self.server.requests += 1
        self.server.failing -= 1
        return self.server.status and self.server.failing >= 0

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.fails():
            error = json.dumps({"code": self.server.status, "message": "No."}).encode()
            return self.answer(self.server.status, error, **self.server.headers)
        if self.path.endswith("/ListModelInstanceVersionFiles"):
            listed = json.dumps({"files": [{"name": name} for name in FILES]}).encode()
            return self.answer(200, listed, **self.server.headers)
        return self.answer(200, FILES[request["path"]], "application/octet-stream")

    def do_GET(self):
        if self.fails():
            return self.answer(self.server.status, b'{"error": "No."}', **self.server.headers)
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

    def sent(self, body):
        if body not in FILES.values():
            return body
        self.server.breaks -= 1
        return body[: len(body) // 2] if self.server.breaks >= 0 else body


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)  # of the clients too
    with imitated_kaggle(Handler, tmp_path, monkeypatch) as local:
        local.status, local.failing, local.breaks, local.requests = 0, math.inf, 0, 0
        local.headers, local.pauses = {}, pauses
        # As for Kaggle's client.
        monkeypatch.setattr(constants, "ENDPOINT", local.address)
        template = local.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield local


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
    assert weights.main(params, "x").startswith(f"x-preset, {source}, sha256 ")
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
    server.breaks = math.inf
    with pytest.raises(UserError, match=r"cannot be downloaded \(.*\)\. Run again, or download its files by hand"):
        preset_folder(source, WHERE)
    server.breaks = 0
    assert (preset_folder(source, WHERE) / "model.weights.h5").read_bytes() == FILES["model.weights.h5"]


@pytest.mark.parametrize("source", [KAGGLE, HUGGING_FACE, f"{HUGGING_FACE}@{COMMIT}"])
@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_temporary_failure_is_tried_again(server, source, status):
    server.status, server.failing = status, 2
    assert (preset_folder(source, WHERE) / "model.weights.h5").read_bytes() == FILES["model.weights.h5"]
    assert server.pauses


@pytest.mark.parametrize("source", [KAGGLE, HUGGING_FACE])
@pytest.mark.parametrize("broken", [1, 3])
def test_a_dropped_connection_is_tried_again(server, source, broken):
    server.breaks = broken
    folder = preset_folder(source, WHERE)
    for name in ("config.json", "model.weights.h5"):
        assert (folder / name).read_bytes() == FILES[name]


@pytest.mark.parametrize("source", [KAGGLE, HUGGING_FACE])
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_final_answer_is_not_asked_for_again(server, source, status):
    server.status = status
    with pytest.raises(UserError):
        preset_folder(source, WHERE)
    assert (server.requests, server.pauses) == (1, [])


@pytest.mark.parametrize(
    ("headers", "pauses"), [({}, [1, 2]), ({"Retry-After": "7"}, [7, 7]), ({"Retry-After": "3600"}, [60, 60])]
)
def test_the_pause_is_as_long_as_the_server_asks(server, headers, pauses):
    server.status, server.failing, server.headers = 503, 2, headers
    preset_folder(KAGGLE, WHERE)
    assert server.pauses == pauses


@pytest.mark.parametrize("source", [KAGGLE, HUGGING_FACE])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_only_a_terminal_has_bars_and_notes_of_the_clients(server, source, is_terminal, monkeypatch, capfd):
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    monkeypatch.setattr(clients, "already_printed_version_warning", False)
    server.headers = {"X-Kaggle-HubVersion": "99.0"}
    logger = logging.getLogger("kagglehub")
    logger.setLevel(logging.INFO)  # as the client does when it is imported, with this handler
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(sys.stdout)])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    preset_folder(source, WHERE)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("outdated `kagglehub`" in err) == (is_terminal and source == KAGGLE)
    assert bool(err) == is_terminal


@pytest.mark.parametrize("source", [HUGGING_FACE, f"{HUGGING_FACE}@{COMMIT}"])
def test_a_client_that_is_told_to_stay_offline_is_reported_as_such(server, source, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as error:
        preset_folder(source, WHERE)
    assert str(error.value) == (
        f"{WHERE}: {source!r} cannot be downloaded (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set). Unset it and run "
        f"again, or download its files by hand from {PAGES[HUGGING_FACE]} into a folder, and give the folder."
    )
    assert (server.requests, server.pauses) == (0, [])


def test_a_client_that_is_told_to_stay_offline_uses_what_it_has(server, monkeypatch):
    folder = preset_folder(HUGGING_FACE, WHERE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert preset_folder(HUGGING_FACE, WHERE) == folder


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
