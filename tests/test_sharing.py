"""Sharing over SSH and S3, and what the run-cache carries."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from tests.conftest import plain, png, write_tree
from tests.pipeline import commit, copy_of_project, dvc, edit_study, run, stages_run, write_study
from tests.small_project import DATA_STAGES, STUDY, small_project

S3 = "a remote on S3 needs requirements-s3.txt"


class Remote(NamedTuple):
    url: str
    private: dict[str, str]  # settings that each person makes, kept out of git


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project in which the stages up to the split have run."""
    return small_project(tmp_path_factory.mktemp("finished"), DATA_STAGES)


@pytest.fixture(autouse=True)
def no_home(tmp_path_factory, monkeypatch):
    """An empty home, without the keys, known hosts and credentials of the person who runs the tests."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("AWS_")] + ["SSH_AUTH_SOCK"]:
        monkeypatch.delenv(name, raising=False)
    (home / ".gitconfig").write_text("[user]\nname = test\nemail = test@localhost\n")
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def first(finished, tmp_path):
    """The project of the first person, with all artifacts and their cache."""
    return shutil.copytree(finished, tmp_path / "first")


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    """A remote on an OpenSSH server of this machine, with its own keys."""
    pytest.importorskip("dvc_ssh", reason="a remote over SSH needs dvc[ssh]")
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not sshd:
        pytest.skip("sshd is not installed; on Debian, `apt-get install openssh-server`")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as the service does when it starts
    own = tmp_path_factory.mktemp("sshd")
    for key in ("host", "person"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own / key], check=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": own / "host",
        "AuthorizedKeysFile": own / "person.pub",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",  # everybody may write to temporary folders
        "PidFile": "none",
        "Subsystem": "sftp internal-sftp",
    }
    (own / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    with (own / "log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", own / "config"], stderr=log)
    try:
        wait_until(lambda: server.poll() is not None or "listening" in (own / "log").read_text())
        assert server.poll() is None, (own / "log").read_text()
        user = run(own, "id", "-un").stdout.strip()
        yield Remote(f"ssh://127.0.0.1:{port}{own / 'storage'}", {"user": user, "keyfile": str(own / "person")})
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(monkeypatch):
    """A remote on a local server with the interface of S3; the credentials are environment variables."""
    pytest.importorskip("dvc_s3", reason=S3)
    server = pytest.importorskip("moto.server", reason=S3).ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "somebody")
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="storage")
        yield Remote("s3://storage/study", {"endpointurl": endpoint})
    finally:
        server.stop()


def wait_until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)


def share(project, remote):
    """Add the remote, push to it and commit, as the first person does."""
    dvc(project, "remote", "add", "-d", "team", remote.url)
    set_private(project, remote)
    dvc(project, "push")
    commit(project)


def set_private(project, remote):
    for key, value in remote.private.items():
        dvc(project, "remote", "modify", "--local", "team", key, value)


def clone(project, to, remote):
    """Clone the project and set the credentials, as every other person does first."""
    run(project, "git", "clone", "-q", ".", str(to))
    set_private(to, remote)
    return to


def artifacts(project):
    """Every file that stages wrote: its path -> its bytes."""
    files = [path for path in (project / "data").rglob("*") if path.is_file()]
    return {str(path.relative_to(project)): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", ["ssh", "s3"])
def test_a_second_person_runs_no_stage(first, tmp_path, no_home, kind, request):
    remote = request.getfixturevalue(kind)
    share(first, remote)
    second = clone(first, tmp_path / "second", remote)
    assert not stages_run(dvc(second, "repro", "--pull", *DATA_STAGES))
    assert artifacts(second) == artifacts(first)
    assert "data/images/digits/images.npy" in artifacts(second)
    # docs/sharing.md warns that DVC does not check who the server is.
    assert not (no_home / ".ssh").exists()


def prepare(project, image_size, *options):
    """Prepare the images in another size; returns the stages that ran."""
    edit_study(project, lambda study: study["datasets"]["digits"].update(image_size=image_size))
    return stages_run(dvc(project, "repro", *options, "prepare@digits"))


def test_the_run_cache_carries_results_of_earlier_commits(first, tmp_path):
    remote = Remote(str(tmp_path / "storage"), {})
    share(first, remote)
    before = artifacts(first)
    prepare(first, 12)
    commit(first)
    dvc(first, "push", "--run-cache")
    second = clone(first, tmp_path / "second", remote)
    # `download`, `weights` and `split` reuse their last output, so DVC keeps them out of the run-cache.
    assert prepare(second, 16, "--pull") == {"download@digits"}
    assert artifacts(second)["data/images/digits/images.npy"] == before["data/images/digits/images.npy"]


@pytest.fixture
def own_images(tmp_path):
    """A project with a folder of images that DVC tracks, as the README says, in which the split has run."""
    project = copy_of_project(tmp_path / "first")
    write_tree(project / "my_images", {f"{label}/{n}.png": png(plain((n, 9, 9))) for label in "ab" for n in range(10)})
    task = {"dataset": "photos", "validation": 0.2, "test": 0.2}
    photos = {"source": "folder", "path": "my_images", "image_size": 16}
    network = {"dataset": "photos", "task": "own", "backbone": "four-conv"}
    study = {**STUDY, "datasets": {}, "folders": {"photos": photos}, "tasks": {"own": task}}
    study |= {section: {} for section in ("features", "heads", "probes")} | {"networks": {"net": network}}
    write_study(project, study)
    dvc(project, "add", "my_images")
    dvc(project, "repro", "split@own")
    return project


def test_images_that_dvc_tracks_travel_to_a_clone_where_one_is_added(own_images, tmp_path):
    remote = Remote(str(tmp_path / "storage"), {})
    share(own_images, remote)
    second = clone(own_images, tmp_path / "second", remote)
    edit_study(second, lambda study: study["folders"]["photos"].update(image_size=20))
    missing = run(second, "python", "-m", "stages.check", fails=True).stderr
    assert missing == (
        "check: folders.photos.path: folder 'my_images' does not exist. Run `dvc pull my_images.dvc` to fetch it.\n"
    )
    assert "Errno" not in dvc(second, "repro", "split@own", fails=True).stderr
    dvc(second, "pull", "my_images.dvc", "split@own")
    assert len(list((second / "my_images").rglob("*.png"))) == 20
    before = pd.read_csv(second / "data/tasks/own/split.csv").set_index("name")["split"]
    assert stages_run(dvc(second, "repro", "split@own")) == {"prepare_folder@photos", "split@own"}
    (second / "my_images/a/new.png").write_bytes(png(plain((99, 99, 99))))
    dvc(second, "add", "my_images")
    assert stages_run(dvc(second, "repro", "split@own")) == {"prepare_folder@photos", "split@own"}
    after = pd.read_csv(second / "data/tasks/own/split.csv").set_index("name")["split"]
    assert len(after) == 21 and after.drop("a/new.png").equals(before)


def test_one_image_in_place_of_a_folder_that_was_not_fetched_does_not_become_the_dataset(own_images, tmp_path):
    (own_images / "my_images.dvc").unlink()  # as if it had never been added
    remote = Remote(str(tmp_path / "storage"), {})
    share(own_images, remote)
    second = clone(own_images, tmp_path / "second", remote)
    dvc(second, "pull", "split@own")
    write_tree(second / "my_images", {"a/new.png": png(plain((99, 99, 99)))})
    stopped = dvc(second, "repro", "split@own", fails=True)
    assert "split: tasks.own: 20 of 20 images of the earlier split, such as 'a/0.png', are not in" in stopped.stderr
