"""A local server in the place of Kaggle, for tests with its real client."""

import http.server
import threading
from contextlib import contextmanager

import kagglehub  # noqa: F401 - its log goes to the output of the moment it is imported, which must not be the captured output of one test
from kagglesdk import KaggleEnv, kaggle_env


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers with a body; prints nothing."""

    def answer(self, status, body, kind="application/json", **headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.sent(body))

    def sent(self, body):
        """The part of a body that arrives."""
        return body

    def log_message(self, *_):
        pass


@contextmanager
def imitated_kaggle(handler, tmp_path, monkeypatch):
    """A server that Kaggle's client takes for Kaggle; `tmp_path` is the working and the home folder of nobody."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / ".kaggle"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("API_TOKEN", "USERNAME", "KEY", "API_ENVIRONMENT", "KERNEL_RUN_TYPE"):
        monkeypatch.delenv(f"KAGGLE_{name}", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.address = f"http://127.0.0.1:{server.server_port}"
        # No setting of the client names another server once it is imported.
        monkeypatch.setitem(kaggle_env._env_to_endpoint, KaggleEnv.PROD, server.address)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
