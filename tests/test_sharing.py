"""Sharing: remotes of three kinds, what a colleague fetches, what is thrown away, and two at work at once."""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from dvc.lock import Lock

from tests.pipeline import ROOT, commit, dvc, edit_study, environment, read_yaml, run, stages_run
from tests.small_project import small_project

AFTER_THE_HEAD = {"head@b-one-layer", "evaluate", "mistakes@digits-b", "report"}
SHARING = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
S3 = "a remote on S3 needs requirements-s3.txt"


class Remote(NamedTuple):
    url: str
    private: dict[str, str]  # what each person sets for himself


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return small_project(tmp_path_factory.mktemp("finished"))


@pytest.fixture(autouse=True)
def no_home(tmp_path_factory, monkeypatch):
    """Keys, known hosts and credentials of whoever runs the tests play no part."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("AWS_")] + ["SSH_AUTH_SOCK"]:
        monkeypatch.delenv(name, raising=False)
    (home / ".gitconfig").write_text("[user]\nname = test\nemail = test@localhost\n")
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def first(finished, tmp_path):
    """What the first person has: the project, all artifacts, and their cache."""
    return shutil.copytree(finished, tmp_path / "first")


@pytest.fixture
def folder(tmp_path):
    return Remote(str(tmp_path / "storage"), {})


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    """A remote on an OpenSSH server of this machine, with keys of its own."""
    pytest.importorskip("dvc_ssh", reason="a remote over SSH needs dvc[ssh]")
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not sshd:
        pytest.skip("there is no sshd; on Debian `apt-get install openssh-server`")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as its service does at each start
    own = tmp_path_factory.mktemp("sshd")
    for key in ("host", "person", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own / key], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": own / "host",
        "AuthorizedKeysFile": own / "person.pub",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",  # temporary folders belong to everybody
        "PidFile": "none",
        "Subsystem": "sftp internal-sftp",
    }
    (own / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    with (own / "log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", own / "config"], stderr=log)
    try:
        wait_until(lambda: server.poll() is not None or "listening" in (own / "log").read_text())
        assert server.poll() is None, (own / "log").read_text()
        who = run(own, "id", "-un").stdout.strip()
        yield Remote(f"ssh://127.0.0.1:{port}{own / 'storage'}", {"user": who, "keyfile": str(own / "person")})
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(monkeypatch):
    """A remote on a server that speaks as S3 does; who asks it stands in the environment."""
    pytest.importorskip("dvc_s3", reason=S3)
    server = pytest.importorskip("moto.server", reason=S3).ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "somebody")
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="storage")
        yield Remote("s3://storage/study", {"endpointurl": address})
    finally:
        server.stop()


def wait_until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.05)


def share(project, remote):
    """What the first person does: name the remote, push to it, commit."""
    dvc(project, "remote", "add", "-d", "team", remote.url)
    set_private(project, remote)
    dvc(project, "push")
    commit(project)


def set_private(project, remote):
    for key, value in remote.private.items():
        dvc(project, "remote", "modify", "--local", "team", key, value)


def clone(project, to, remote):
    """What every other person does before anything else."""
    run(project, "git", "clone", "-q", ".", str(to))
    set_private(to, remote)
    return to


def artifacts(project):
    """The bytes of all that stages have written."""
    files = [path for part in ("data", "models", "reports") for path in (project / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(project)): path.read_bytes() for path in files if "checkpoints" not in path.parts}


def stored(lock, path="data/tasks/digits-b"):
    """Where a cache holds what a stage has written, by the text of a dvc.lock."""
    (md5,) = {
        out["md5"] for stage in read_yaml(lock)["stages"].values() for out in stage["outs"] if out["path"] == path
    }
    return Path("files/md5", md5[:2], md5[2:])


@pytest.mark.parametrize("kind", ["folder", "ssh", "s3"])
def test_a_second_person_computes_nothing(first, tmp_path, no_home, kind, request):
    remote = request.getfixturevalue(kind)
    share(first, remote)
    second = clone(first, tmp_path / "second", remote)
    assert not stages_run(dvc(second, "repro", "--pull"))
    assert artifacts(second) == artifacts(first)
    assert len(artifacts(second)) > 40
    assert not run(second, "git", "status", "--porcelain").stdout
    # Nobody asked whether the server is known, which docs/sharing.md warns of.
    assert not (no_home / ".ssh").exists()


def test_a_changed_head_fetches_and_runs_only_what_it_needs(first, folder, tmp_path):
    share(first, folder)
    second = clone(first, tmp_path / "second", folder)
    edit_study(second, lambda study: study["heads"]["b-one-layer"].update(learning_rate=0.01))
    (pull,) = re.findall(r"^dvc pull \$.*", SHARING, re.MULTILINE)
    run(second, "bash", "-euo", "pipefail", "-c", pull)
    assert stages_run(dvc(second, "repro", "--pull", "--allow-missing")) == AFTER_THE_HEAD
    fetched = ("data/features/b-fc1", "data/images/digits", "data/weights/a-scratch")
    assert [path for path in fetched if not (second / path).exists()] == []
    needless = ("data/raw/digits", "exports/recommended/digits-b")
    assert [path for path in needless if (second / path).exists()] == []


def test_a_key_that_the_server_does_not_know_is_refused(first, ssh):
    stranger = Remote(ssh.url, {**ssh.private, "keyfile": ssh.private["keyfile"].replace("person", "stranger")})
    dvc(first, "remote", "add", "-d", "team", stranger.url)
    set_private(first, stranger)
    done = dvc(first, "push", fails=True)
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_credentials_stay_out_of_git(first, tmp_path):
    remote = Remote("s3://storage/study", {"access_key_id": "somebody", "secret_access_key": "not-for-git"})
    dvc(first, "remote", "add", "-d", "team", remote.url)
    set_private(first, remote)
    assert "not-for-git" in (first / ".dvc/config.local").read_text()
    commit(first)
    files = run(first, "git", "ls-files").stdout.split()
    assert ".dvc/config" in files and ".dvc/config.local" not in files
    run(first, "git", "grep", "-q", "s3://storage", "HEAD")
    run(first, "git", "grep", "-q", "not-for-git", "HEAD", "--", ".dvc", fails=True)


def split_by(project, seed):
    """Split by another seed, outside any experiment; where a cache holds that split."""
    edit_study(project, lambda study: study.update(seed=seed))
    assert "split@digits-b" in stages_run(dvc(project, "repro", "split@digits-b"))
    return stored((project / "dvc.lock").read_text())


def go_back(project):
    run(project, "git", "checkout", "-q", ".")
    dvc(project, "checkout", "-q")


def test_garbage_collection_keeps_what_experiments_need_and_drops_what_nothing_needs(first):
    dvc(first, "exp", "run", "--temp", "--name", "kept", "-S", "seed=1", "split@digits-b")
    (of_experiment,) = run(first, "git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/kept").stdout.split()
    kept = first / ".dvc/cache" / stored(run(first, "git", "show", f"{of_experiment}:dvc.lock").stdout)
    dropped = first / ".dvc/cache" / split_by(first, seed=2)
    go_back(first)
    assert kept.exists() and dropped.exists() and kept != dropped
    dvc(first, "gc", "--all-branches", "--all-tags", "--all-experiments", "--force")
    assert kept.exists() and not dropped.exists()
    assert not stages_run(dvc(first, "repro"))
    dvc(first, "exp", "apply", "kept")
    assert read_yaml(first / "params.yaml")["seed"] == 1
    go_back(first)
    dvc(first, "gc", "--workspace", "--force")
    assert not kept.exists()
    assert not stages_run(dvc(first, "repro"))


def test_an_experiment_reaches_a_colleague_with_its_artifacts(first, folder, tmp_path):
    share(first, folder)
    run(first, "git", "clone", "-q", "--bare", ".", str(tmp_path / "hub"))
    run(first, "git", "remote", "add", "origin", str(tmp_path / "hub"))
    dvc(first, "exp", "run", "--name", "tried", "-S", "seed=1", "split@digits-b")
    dvc(first, "exp", "push", "origin", "tried")
    second = clone(tmp_path / "hub", tmp_path / "second", folder)
    dvc(second, "exp", "pull", "origin", "tried")
    dvc(second, "exp", "apply", "tried")
    split = "data/tasks/digits-b/split.csv"
    assert (second / split).read_bytes() == (first / split).read_bytes()
    assert read_yaml(second / "params.yaml")["seed"] == 1


def prepare(project, image_size, *options):
    """Prepare the images in another size; the stages that this has run."""
    edit_study(project, lambda study: study["datasets"]["digits"].update(image_size=image_size))
    return stages_run(dvc(project, "repro", *options, "prepare@digits"))


def test_the_run_cache_carries_what_an_earlier_commit_had_and_not_what_was_only_tried(first, folder, tmp_path):
    share(first, folder)
    before = artifacts(first)
    prepare(first, 12)
    prepare(first, 8)
    commit(first)
    dvc(first, "push", "--run-cache")
    second = clone(first, tmp_path / "second", folder)
    # What `download`, `weights` and `split` wrote before stays there for their next run, and so has no part in it.
    assert prepare(second, 16, "--pull") == {"download@digits"}
    assert artifacts(second)["data/images/digits/images.npy"] == before["data/images/digits/images.npy"]
    assert prepare(second, 12, "--pull") == {"download@digits", "prepare@digits"}


def started(project, seed):
    """A `dvc repro` that splits by another seed, halted in the middle."""
    edit_study(project, lambda study: study.update(seed=seed))
    command = [sys.executable, "-m", "dvc", "repro", "split@digits-b"]
    running = subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    while "Running stage 'split@digits-b'" not in running.stdout.readline():
        assert running.poll() is None
    os.killpg(running.pid, signal.SIGSTOP)  # however slow the machine is, another one meets it
    return running


def ended(running, sent):
    os.killpg(running.pid, sent)
    running.communicate()
    return running.returncode


def in_the_docs(start):
    """What docs/sharing.md says that DVC says, as a pattern."""
    texts = re.findall(r"```text\n(.*?)\n```", SHARING, re.DOTALL)
    (text,) = [text for text in texts if text.startswith(start)]
    return re.escape(text).replace(r"\.\.\.", ".*").replace("4711", r"(\d+)")


def test_two_runs_in_one_folder_do_not_meet_and_the_second_says_which_is_first(first):
    running = started(first, seed=1)
    try:
        for options in [], ["--wait-for-lock"]:
            done = dvc(first, *options, "repro", "split@digits-b", fails=True)
            found = re.search(in_the_docs("ERROR: failed to reproduce"), done.stderr)
            assert found and int(found[1]) == running.pid, done.stderr
            assert "Traceback" not in done.stderr
    finally:
        assert ended(running, signal.SIGCONT) == 0
    assert not stages_run(dvc(first, "repro", "split@digits-b"))
    assert ended(started(first, seed=2), signal.SIGKILL) == -signal.SIGKILL
    assert stages_run(dvc(first, "repro", "split@digits-b")) == {"split@digits-b"}
    assert_sound(first / ".dvc/cache")


def test_a_command_waits_for_the_lock_of_another_if_it_is_told_to(first):
    lock = Lock(str(first / ".dvc/tmp/lock"))
    lock.lock()
    try:
        assert re.search(in_the_docs("ERROR: Unable to acquire lock"), dvc(first, "status", fails=True).stderr)
        threading.Timer(5, lock.unlock).start()  # longer than it waited the first time
        assert "up to date" in dvc(first, "--wait-for-lock", "status").stdout
    finally:
        if lock.is_locked:
            lock.unlock()


def assert_sound(cache):
    """Every object of a cache holds what its name says."""
    objects = [path for path in (cache / "files/md5").rglob("*") if path.is_file()]
    assert objects
    for path in objects:
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        assert path.parent.name + path.name in (md5, f"{md5}.dir")


def test_two_folders_fill_one_cache_at_once(finished, tmp_path):
    cache = tmp_path / "cache"
    folders = [clone(finished, tmp_path / name, Remote("", {})) for name in ("first", "second")]
    for each in folders:
        dvc(each, "cache", "dir", "--local", str(cache))
        dvc(each, "config", "--local", "cache.shared", "group")
    command = [sys.executable, "-m", "dvc", "repro", "split@digits-b"]
    options = {"env": environment(), "umask": 0o077, "stdout": subprocess.DEVNULL}
    begun = [subprocess.Popen(command, cwd=each, **options) for each in folders]
    for running in begun:
        assert running.wait() == 0
    assert_sound(cache)
    # A colleague of the group may add to it, and may not change what is there.
    assert {path.stat().st_mode & 0o7777 for path in (cache / "files/md5").glob("*")} == {0o2775}
    assert {path.stat().st_mode & 0o7777 for path in (cache / "files/md5").glob("*/*")} == {0o444}
    assert artifacts(folders[0]).keys() == artifacts(folders[1]).keys()
    for path in ("data/images/digits/images.npy", "data/tasks/digits-b/split.csv"):
        assert artifacts(folders[0])[path] == artifacts(folders[1])[path]
    needed = cache / split_by(folders[1], seed=1)
    dvc(folders[0], "gc", "--workspace", "--force", "--projects", str(folders[1]))
    assert needed.exists()
    dvc(folders[0], "gc", "--workspace", "--force")
    assert not needed.exists()
