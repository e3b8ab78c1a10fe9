"""Untrusted studies and weights do no harm, and credentials are never written to a file."""

import ast
import base64
import csv
import http.server
import importlib
import json
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from stages import check, weights
from stages.artifacts.margin import write_margin
from stages.backbones.building import build_backbone
from stages.backbones.pretrained import load_backbone
from stages.core.errors import UserError
from stages.core.files import sha256_of
from stages.core.params import Params
from stages.sources import fetch
from stages.sources.layout import printable
from stages.validation.study import validate_study
from tests.conftest import png
from tests.pipeline import copy_of_project, dvc, edit_study, read_yaml
from tests.tiny_study import STUDY

ROOT = Path(__file__).parents[1]
SECRET = "hunter2-hunter2"

# Code that the stages must not contain.

MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "telnetlib", "ftplib"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
# On any object.
METHODS = {
    *("system", "popen", "getoutput", "getstatusoutput", "mktemp", "unsafe_load", "full_load", "extract", "extractall"),
    *("enable_unsafe_deserialization", "read_pickle", "to_pickle", "unpack_archive"),
}
ARGUMENTS = {"shell": True, "allow_pickle": True, "safe_mode": False, "verify": False, "typ": "unsafe"}


# The only module that starts other programs.
STARTS_PROGRAMS = "stages/cluster/programs.py"


def safe_yaml(call: ast.Call) -> bool:
    """Whether a call of yaml.load names the loader of stages/core/yaml.py, a safe one."""
    return len(call.args) == 2 and isinstance(call.args[1], ast.Name) and call.args[1].id == "Yaml12Loader"


def forbidden(code: str) -> list[str]:
    """The forbidden imports, calls and arguments in Python code, with their lines."""
    findings = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            findings += [(node.lineno, name) for name in names if name.split(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
                findings.append((node.lineno, node.func.id))
            elif isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                if node.func.attr in METHODS or ((owner, node.func.attr) == ("yaml", "load") and not safe_yaml(node)):
                    findings.append((node.lineno, node.func.attr))
            for argument in node.keywords:
                value = argument.value.value if isinstance(argument.value, ast.Constant) else None
                if argument.arg in ARGUMENTS and value == ARGUMENTS[argument.arg]:
                    findings.append((node.lineno, f"{argument.arg}={value}"))
    return [f"line {line}: {finding}" for line, finding in findings]


@pytest.mark.parametrize("file", sorted(ROOT.glob("stages/**/*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_stages_do_not_unpickle_evaluate_code_or_use_a_shell(file):
    code = file.read_text(encoding="utf-8")
    assert forbidden(code) == []
    assert "subprocess" not in code or file == ROOT / STARTS_PROGRAMS


@pytest.mark.parametrize(
    "code",
    [
        *("import pickle", "from joblib import load", "eval('1')", "exec(text)", "os.system(text)"),
        *("subprocess.run(text, shell=True)", "np.load(file, allow_pickle=True)", "yaml.load(text)"),
        *("keras.saving.load_model(file, safe_mode=False)", "archive.extractall()", "YAML(typ='unsafe')"),
        "requests.get(address, verify=False)",
    ],
)
def test_forbidden_code_is_detected(code):
    assert len(forbidden(code)) == 1


def test_report_templates_escape_all_values():
    for template in ROOT.glob("stages/reporting/*.j2"):
        text = template.read_text(encoding="utf-8")
        assert "autoescape" not in text
        assert not re.search(r"\|\s*safe\b", text)


@pytest.mark.parametrize(
    ("output", "errors", "code", "message"),
    [
        ("", "ConnectionError: Max retries exceeded", 0, "requirements.txt IS NOT AUDITED"),
        ("", "pip-audit: error: unrecognized arguments: --no", 1, "pip-audit failed: pip-audit: error: unrecognized"),
        ('{"dependencies": [{"name": "a", "skip_reason": "x"}]}', "", 0, "requirements.txt IS NOT AUDITED"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "x"}]}',
            "",
            0,
            "NOT AUDITED, because the service does not know them: b\n",
        ),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": []}]}]}',
            "",
            1,
            "requirements.txt has known vulnerabilities",
        ),
    ],
)
def test_the_audit_fails_for_known_vulnerabilities_and_lists_unaudited_packages(
    output, errors, code, message, tmp_path
):
    files = [tmp_path / "output", tmp_path / "errors"]
    for file, text in zip(files, (output, errors), strict=True):
        file.write_text(text)
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci/audit.py"), *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert message in done.stderr


# Names of entries become parts of commands and paths.

HOSTILE_NAMES = [
    *("x; touch pwned", "$(touch pwned)", "`touch pwned`", "x & touch pwned", "x\ntouch pwned", "x' ; touch pwned ; '"),
    *("-x", "--help", "a b", "x > pwned", "x|touch pwned"),
]
# DVC reads a name with dots as a path of keys, so the study needs these keys below the entry `a/`.
OUTSIDE = "a/../../../../victim"


def add_hostile_names(study: dict) -> None:
    for name in HOSTILE_NAMES:
        study["backbones"][name] = {"architecture": "four_conv", "weights": "random"}
    keys = {"x": 1}
    first, *parts = OUTSIDE.split(".")
    for part in reversed(parts):
        keys = {part: keys}
    entry = study["features"]["b-fc1"]
    study |= {"features": {OUTSIDE: entry, first: {**entry, **keys}}, "heads": {}, "probes": {}, "fine_tunes": {}}


def test_names_are_checked_before_they_reach_a_shell_or_a_path(tmp_path):
    (tmp_path / "project").mkdir()
    project = copy_of_project(tmp_path / "project")
    edit_study(project, add_hostile_names)
    victim = tmp_path / "victim/file"
    victim.parent.mkdir()
    victim.write_text("kept")
    done = dvc(project, "repro", fails=True)
    assert done.stdout.count("Running stage '") == 1
    assert f"check: params.yaml has {len(HOSTILE_NAMES) + 2} problems" in done.stderr
    assert f"features: name '{OUTSIDE}' is not valid. Use a to z" in done.stderr
    assert victim.exists() and not (project / "pwned").exists()
    # Without the check, DVC would pass a name to the shell, and empty the folder that it leads to.
    text = (project / "dvc.yaml").read_text(encoding="utf-8").replace("      - data/check\n", "")
    (project / "dvc.yaml").write_text(text, encoding="utf-8")
    dvc(project, "repro", "--single-item", f"weights@{HOSTILE_NAMES[0]}", fails=True)
    dvc(project, "repro", "--single-item", f"features@{OUTSIDE}", fails=True)
    assert (project / "pwned").exists() and not victim.exists()


def test_stages_depend_on_the_check_and_their_commands_contain_only_names():
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert str(check.OUTPUT) in str(stages["check"]["outs"])
    for name, stage in stages.items():
        assert "foreach" not in stage or str(check.OUTPUT) in stage["do"]["deps"], name
        assert not re.search(r"\$\{(?!key\})", stage.get("do", stage)["cmd"]), name


# Credentials.

URLS = {
    "a login": f"https://user:{SECRET}@example.org/photos.zip",
    "a login without a name": f"https://:{SECRET}@example.org/photos.zip",
    "a login for another protocol": f"ftp://user:{SECRET}@example.org/photos.zip",
    "a token": f"https://example.org/photos.zip?download=1&token={SECRET}",
    "an encoded token": f"https://example.org/photos.zip?%74oken={SECRET}",
    "a token behind #": f"https://example.org/photos.zip#access_token={SECRET}",
    "a key with a name": f"https://example.org/photos.zip?subscription-key={SECRET}",
    "a short name": f"https://example.org/photos.zip?jwt={SECRET}",
    "a signed link of S3": f"https://example.org/photos.zip?X-Amz-Expires=300&X-Amz-Signature={SECRET}",
    "a signed link of Azure": f"https://example.org/photos.zip?sv=2024&sig={SECRET}",
    "a key": f"https://example.org/photos.zip?api_key={SECRET}",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_credential_in_a_study_is_rejected_and_not_printed(url):
    file = {"sha256": "0" * 64}
    study = {
        **STUDY,
        "datasets": {**STUDY["datasets"], "d": {"source": "archive", "url": url, "image_size": 16, **file}},
        "backbones": {**STUDY["backbones"], "b": {"architecture": "four_conv", "weights": url, **file}},
    }
    _, problems = validate_study(study)
    assert [problem.partition(":")[0] for problem in problems] == ["datasets.d.url", "backbones.b.weights"]
    for problem in problems:
        assert "the URL of 'example.org' holds " in problem
        assert problem.endswith(
            "Put a login into ~/.netrc, which downloads use, or download the file yourself and give its path."
        )
        assert SECRET not in problem


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
@pytest.mark.parametrize(
    "wrap",
    [list, lambda url: [url], lambda url: {"url": url}, lambda url: url],
    ids=["letters", "list", "mapping", "text"],
)
def test_a_credential_in_the_wrong_place_is_not_printed(url, wrap):
    datasets = {
        "entry": wrap(url),
        "key": {"source": "archive", "url": [url], "image_size": 16},
        "source": {"source": url, "image_size": 16},
    }
    tasks = {"t": {**STUDY["tasks"]["low"], "dataset": url}}
    backbones = {"a": {"architecture": url, "weights": "random"}, "b": {"architecture": "four_conv", "weights": url}}
    study = {**STUDY, "seed": url, "datasets": datasets, "tasks": tasks, "backbones": backbones}
    assert SECRET not in "\n".join(validate_study(study)[1])


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/photos.zip?download=1&rlkey=abc",
        "https://example.org/user@home/tokens.zip",
        "folder/token=1@home.zip",
    ],
)
def test_a_url_without_a_credential_is_accepted(url):
    study = {"d": {"source": "archive", "url": url, "image_size": 16, "sha256": "0" * 64}}
    assert validate_study({**STUDY, "datasets": {**STUDY["datasets"], **study}})[1] == []


@pytest.mark.parametrize("path", ["ssh://jane:pw@example.org/x", "s3://bucket/x", "remote://team/x"])
def test_a_url_as_a_folder_is_rejected_because_dvc_would_connect_to_it(path):
    study = {**STUDY, "folders": {"mine": {"source": "folder", "path": path, "image_size": 16}}}
    assert validate_study(study)[1] == [
        "folders.mine.path: a URL is not valid. Give the path of a folder on this machine."
    ]


class Guarded(http.server.BaseHTTPRequestHandler):
    """Sends a file to a client with the login, and redirects all others to a signed URL that does not exist."""

    def do_GET(self):
        login = base64.b64encode(f"user:{SECRET}".encode()).decode()
        if self.headers.get("Authorization") == f"Basic {login}":
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"file")
        else:
            self.send_response(404 if "?" in self.path else 302)
            self.send_header("Location", f"{self.server.redirect}?signature={SECRET}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as running:
        running.address = f"http://127.0.0.1:{running.server_port}/photos.zip"
        running.redirect = "/storage"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_login_in_netrc_is_used_but_not_written_to_a_file(server, tmp_path, capfd):
    Path("netrc").write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    Path("netrc").chmod(0o600)
    fetch.fetch(server.address, tmp_path / "data/raw/photos.zip", None)
    assert Path("data/raw/photos.zip").read_bytes() == b"file"
    written = [path for path in Path("data").rglob("*") if path.is_file()]
    assert SECRET not in "".join(capfd.readouterr()) + "".join(path.read_text() for path in written)


@pytest.mark.parametrize("redirect", ["/storage", f"http://user:{SECRET}@[", f"ftp://user:{SECRET}@127.0.0.1/x"])
def test_an_error_does_not_quote_the_url_of_a_redirect(redirect, server, tmp_path):
    server.redirect = redirect
    with pytest.raises(UserError, match="cannot be downloaded") as error:
        fetch.fetch(f"{server.address}", tmp_path / "photos.zip", None)
    assert SECRET not in str(error.value)
    assert f"'{server.address}'" in str(error.value)


def test_an_error_quotes_a_url_without_its_parameters(server, tmp_path):
    with pytest.raises(UserError, match=r"^'http://127\.0\.0\.1:\d+/photos\.zip\?\.\.\.' cannot be downloaded"):
        fetch.fetch(f"{server.address}?name={SECRET}", tmp_path / "photos.zip", None)


# Weights.


def with_lambda(path: Path) -> None:
    """A Keras model, not only weights, with a Python function in it."""
    inputs = keras.Input((16, 16, 3))
    touch = keras.layers.Lambda(lambda x: [x, __import__("pathlib").Path("pwned").touch()][0], output_shape=(16, 16, 3))
    model = keras.Model(inputs, touch(inputs))
    model.save(path)
    Path("pwned").unlink(missing_ok=True)


def renamed_model(path: Path) -> None:
    with_lambda(Path("model.keras"))
    Path("model.keras").replace(path)


def intact_weights(path: Path) -> None:
    build_backbone("four_conv", 16).save_weights(path)


def changed_weights(change):
    """Weights that `change` damages: it gets the open file and the name of the first dataset in it."""

    def make(path: Path) -> None:
        intact_weights(path)
        with h5py.File(path, "r+") as file:
            names = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            change(file, names[0])

    return make


def other_shape(file, name):
    values = file[name][:]
    del file[name]
    file[name] = values[..., :1]


def missing_layer(file, name):
    del file[str(Path(name).parents[1])]


def external_data(file, name):
    """Values that HDF5 reads from another file on the disk."""
    shape, size = file[name].shape, file[name].nbytes
    Path("elsewhere").write_bytes(bytes(size))
    del file[name]
    file.create_dataset(name, shape, "f4", external=[("elsewhere", 0, size)])


def external_link(file, name):
    intact_weights(Path("other.weights.h5"))
    del file[name]
    file[name] = h5py.ExternalLink("other.weights.h5", name)


def bomb(file, name):
    """Values that fill a few bytes on the disk and more memory than any machine has."""
    del file[name]
    file.create_dataset(name, (2**45,), "f4", chunks=(2**20,), compression="gzip")


def text_instead_of_numbers(file, name):
    del file[name]
    file[name] = "numbers"


def truncated(path: Path) -> None:
    intact_weights(path)
    path.write_bytes(path.read_bytes()[:-5000])


def zeroed(path: Path) -> None:
    intact_weights(path)
    content = path.read_bytes()
    path.write_bytes(content[:1000] + bytes(3000) + content[4000:])


HOSTILE_WEIGHTS = {
    "a .keras file with a function": ("model.keras", with_lambda),
    "a .keras file with another extension": ("own.weights.h5", renamed_model),
    "a whole model with a function": ("model.h5", with_lambda),
    "another shape": ("own.weights.h5", changed_weights(other_shape)),
    "a missing layer": ("own.weights.h5", changed_weights(missing_layer)),
    "values in another file": ("own.weights.h5", changed_weights(external_data)),
    "a link to another file": ("own.weights.h5", changed_weights(external_link)),
    "a bomb": ("own.weights.h5", changed_weights(bomb)),
    "text": ("own.weights.h5", changed_weights(text_instead_of_numbers)),
    "a truncated file": ("own.weights.h5", truncated),
    "a file with zeros in it": ("own.weights.h5", zeroed),
}  # fmt: skip


@pytest.mark.parametrize(("name", "make"), HOSTILE_WEIGHTS.values(), ids=HOSTILE_WEIGHTS)
def test_hostile_weights_are_rejected_in_one_sentence(name, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(path := Path(name))
    own = {"architecture": "four_conv", "weights": name, "sha256": sha256_of(path)}
    study = {**STUDY, "backbones": {**STUDY["backbones"], "own": own}}
    assert validate_study(study)[1] == []
    with pytest.raises(
        UserError, match=r"^backbones\.own\.weights: .* Give (weights of this architecture|one that Keras saved)\b"
    ) as error:
        weights.main(Params(study), "own")
        load_backbone("own", 16)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert not Path("pwned").exists()


# Hostile names in all stages, from the images to the report.

CLASSES = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}{% raw %}",
    "../../../../etc/passwd",
    "C:\\windows\\system32",
    "two\nlines\rand \x1b[31mred",
    "W" * 300,
    "=cmd|' /C calc'!A0",
    "nan",
    "a, \"b\"; $x^2$ | `c` [d](e) ${seed}",
]  # fmt: skip
RENAMED = "<b>renamed</b>\n| ../x $(touch pwned)"
UNREADABLE = "<i>&amp; no picture's\nname.png"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder in which all stages ran on a study with hostile class names, file names and values."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        random = np.random.default_rng(0)
        images = Path("images <i>&'")
        images.mkdir()
        with (images / "labels.csv").open("w", encoding="utf-8", newline="") as table:
            rows = csv.writer(table)
            rows.writerow(["path", "label"])
            for number in range(12 * len(CLASSES)):
                name = f"{number}-<b>'\" | ${{x}}\n.png"
                (images / name).write_bytes(png(random.integers(0, 256, (16, 16, 3), np.uint8)))
                rows.writerow([name, CLASSES[number % len(CLASSES)]])
            (images / UNREADABLE).write_bytes(b"no picture")
            rows.writerow([UNREADABLE, CLASSES[0]])
        intact_weights(Path("w <b>'$(touch pwned).weights.h5"))
        study = {
            **STUDY,
            "datasets": {},
            "folders": {"d": {"source": "csv", "path": str(images), "image_size": 16, "max_unreadable": 0.1}},
            "tasks": {
                "t": {
                    "dataset": "d",
                    "rename": {CLASSES[7]: RENAMED},
                    "validation": 3,
                    "test": 3,
                    "group": r"^(\d+)-<b>",
                }
            },
            "backbones": {
                "own": {
                    "architecture": "four_conv",
                    "weights": "w <b>'$(touch pwned).weights.h5",
                    "sha256": sha256_of(Path("w <b>'$(touch pwned).weights.h5")),
                }
            },
            "networks": {
                "net": {"dataset": "d", "task": "t", "backbone": "own", "augmentation": {"flip": "horizontal"}}
            },
            "features": {
                "f": {
                    "dataset": "d",
                    "classes": [printable(name) for name in CLASSES],
                    "backbone": "own",
                    "cut": "top",
                }
            },
            "heads": {},
            "probes": {"ridge": {"task": "t", "features": "f"}},
            "fine_tunes": {},
            "training": {**STUDY["training"], "epochs": 1, "repeats": 1},
        }
        assert validate_study(study)[1] == []
        write_margin(1)
        for stage, *entry in [
            *(("prepare", "d"), ("weights", "own"), ("split", "t"), ("gallery", "t"), ("train", "net")),
            *(("features", "f"), ("probe", "ridge"), ("evaluate",), ("compare",), ("mistakes", "t"), ("report",)),
        ]:
            importlib.import_module(f"stages.{stage}").main(Params(study), *entry)
    return folder


class Page(HTMLParser):
    """The tags of a page, their attributes, and the texts between them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.texts.append(" ".join(data.split()))


def test_hostile_class_names_are_text_in_the_report(hostile):
    page = Page((hostile / "reports/report.html").read_text(encoding="utf-8"))
    names = [printable(name) for name in CLASSES if name != CLASSES[7]] + [RENAMED]
    for name in names:
        assert page.texts.count(" ".join(name.split())) >= 3, name  # task, both models, pictures
    assert any(printable(UNREADABLE) in text for text in page.texts)
    assert page.tags.count("script") == 1 and {"html", "body", "main"} <= set(page.tags)
    assert {"i", "b", "iframe", "object", "link"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith(("data:", "#")) for name, value in page.attributes if name in ("src", "href"))


def test_paths_of_written_files_do_not_contain_hostile_names(hostile):
    inside = [path.relative_to(hostile) for path in hostile.rglob("*")]
    written = [path for path in inside if path.parts[0] in ("data", "models", "reports")]
    assert {path.parts[0] for path in inside} - {"data", "models", "reports"} == {
        "images <i>&'", "w <b>'$(touch pwned).weights.h5",
    }  # fmt: skip
    assert len(written) > 50
    assert [str(path) for path in written if not re.fullmatch(r"[\w./-]+", str(path))] == []
    assert {path.name for path in hostile.parent.iterdir() if path.name in ("etc", "x", "pwned")} == set()
    text = (hostile / "reports/report.md").read_text(encoding="utf-8")
    assert "<script" not in text and "<b>" not in text


def test_tables_preserve_hostile_names(hostile):
    names = {printable(name) for name in CLASSES} - {CLASSES[7]} | {RENAMED}
    task = json.loads((hostile / "data/tasks/t/task.json").read_text(encoding="utf-8"))
    assert set(task["classes"]) == names
    for file in ("data/tasks/t/split.csv", "reports/classes/net.csv", "data/gallery/t/tiles.csv"):
        with (hostile / file).open(encoding="utf-8", newline="") as table:
            assert {row["class"] for row in csv.DictReader(table)} == names, file
