"""`python -m stages.run` on one machine and on a cluster of two nodes: pipelines of trivial stages."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import MagicMock

import psutil
import pytest
from dvc.lock import Lock

from stages.cluster.scheduling import Request, check_address, run_stages
from stages.core import stage_graph
from stages.core.errors import UserError
from stages.core.stage_graph import StageGraph
from stages.core.yaml import read_yaml
from tests.pipeline import ROOT, commit, copy_of_project, dvc, run, stages_run

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="`python -m stages.run` needs requirements-ray.txt")
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
COMMAND = (sys.executable, "-m", "stages.run", "--jobs", "2")

# The stages, with the stages that they depend on. `train` asks for a GPU.
DEPENDENCIES = {
    "first": [], "low": ["first"], "left": ["low"], "train": ["low"], "on-left": ["left"], "alone": ["first"],
}  # fmt: skip
OTHERS = list(DEPENDENCIES)[1:]
PARTNERS = {"left": "train", "train": "left"}  # on one machine, they wait for each other

# The arguments are the name of the stage and a stage that it waits for. Its seed says what it does. Its output depends
# on its seed and its inputs only; the folder of the log has the times and the environment of its last start.
WORK = """
import json, os, pathlib, sys, time
log, name, partner, *inputs = sys.argv[1:]
log = pathlib.Path(log)
seed = pathlib.Path(f"{name}.seed").read_text()
started = time.time()
(log / f"{name}.started").write_text(str(os.getpid()))
if seed == "fail":
    sys.exit(f"{name}: this is why.")
if seed.startswith("full") and (seed == "full everywhere" or "/home-b/" in os.getcwd()):
    raise OSError(28, os.strerror(28))
awaited = [log / "go"] * seed.startswith("wait") + [log / f"{partner}.started"] * bool(partner)
while not all(file.exists() for file in awaited):
    time.sleep(0.02)
    if time.time() - started > 60:
        sys.exit(f"{name} is alone")
pathlib.Path(f"{name}.json").write_text(seed + "".join(pathlib.Path(f"{dep}.json").read_text() for dep in inputs))
entry = {"started": started, "ended": time.time(), "settings": dict(os.environ), "folder": os.getcwd()}
(log / f"{name}.json").write_text(json.dumps(entry))
"""


def project(folder, partners):
    """A project whose stages take no time; returns it, and the folder of its log."""
    log = folder / "log"
    log.mkdir()
    project = copy_of_project(folder / "project")
    (project / "work.py").write_text(WORK)
    (project / "dvc.lock").unlink()
    stages = {
        name: {
            "cmd": " ".join([sys.executable, "work.py", str(log), name, partners.get(name, "''"), *dependencies]),
            "deps": [f"{name}.seed", *(f"{dependency}.json" for dependency in dependencies)],
            "outs": [{f"{name}.json": {"persist": name == "first"}}],
        }
        for name, dependencies in DEPENDENCIES.items()
    }
    outputs = [f"{name}.json" for name in DEPENDENCIES]
    stages["evaluate"] = {
        "cmd": f"cat {' '.join(outputs)} > evaluated", "deps": outputs, "outs": [{"evaluated": {"cache": False}}]
    }  # fmt: skip
    (project / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (project / "params.yaml").write_text("seed: 0\n")
    for name in DEPENDENCIES:
        (project / f"{name}.seed").write_text("0")
    (project / ".gitignore").write_text("/*.json\n")
    commit(project)
    return project, log


def seed(project, **texts):
    for name, text in texts.items():
        (project / f"{name.replace('_', '-')}.seed").write_text(text)
    commit(project)


def finished_stages(result):
    """The stages that ran in parallel, before the final `dvc repro`."""
    return sorted(re.findall(r"Finished stage '([^']+)'", result.stdout))


def wait_for(file):
    end = time.monotonic() + 60
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end, f"no {file.name}"
        time.sleep(0.05)


def has_ended(process_id):
    """Whether a process ends within the time that an interrupted program has."""
    end = time.monotonic() + 20
    while psutil.pid_exists(process_id) and time.monotonic() < end:
        time.sleep(0.05)
    return not psutil.pid_exists(process_id)


# On one machine.


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A project, the folder of its log, and the result of its first run."""
    folder, log = project(tmp_path_factory.mktemp("one-machine"), PARTNERS)
    return folder, log, run(folder, *COMMAND)


@needs_ray
def test_every_stage_runs_once_after_its_dependencies_with_its_share_of_the_cores(first_run):
    folder, log, result = first_run
    assert finished_stages(result) == sorted(DEPENDENCIES)
    assert stages_run(result) == {"evaluate"}
    entries = {name: json.loads((log / f"{name}.json").read_text()) for name in DEPENDENCIES}
    share = dict.fromkeys(THREADS, str(max(1, stage_graph.CORES // 2)))
    for name, dependencies in DEPENDENCIES.items():
        assert entries[name]["folder"] == str(folder)
        assert all(entries[dependency]["ended"] <= entries[name]["started"] for dependency in dependencies)
        assert name == "first" or entries[name]["settings"].items() >= share.items()


@needs_ray
def test_a_second_run_runs_nothing_even_if_dvc_is_locked_for_a_while(first_run):
    folder, *_ = first_run
    assert stages_run(dvc(folder, "repro")) == set()
    lock = Lock(str(folder / ".dvc/tmp/lock"))
    lock.lock()
    threading.Timer(5, lock.unlock).start()  # longer than DVC waits by default
    result = run(folder, *COMMAND)
    assert finished_stages(result) == []
    assert stages_run(result) == set()


@needs_ray
def test_after_a_failure_only_stages_that_do_not_depend_on_it_run(first_run, monkeypatch):
    folder, log, _ = first_run
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    seed(folder, left="fail", alone="1")
    result = run(folder, *COMMAND, fails=True)
    assert finished_stages(result) == ["alone"]
    assert stages_run(result) == set()
    assert "left: this is why." in result.stderr
    assert result.stderr.strip().splitlines()[-1] == (
        "python -m stages.run: left failed and on-left did not run. If no message above says why, run `dvc repro left`."
    )
    assert "Traceback" not in result.stderr
    assert json.loads((log / "alone.json").read_text())["settings"]["OMP_NUM_THREADS"] == "3"


@needs_ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_all_stages(first_run, number):
    folder, log, _ = first_run
    started = log / "alone.started"
    started.unlink()
    seed(folder, left="0", alone="wait")
    process = subprocess.Popen(COMMAND, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_for(started)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip().endswith("python -m stages.run: interrupted.")
    assert not psutil.pid_exists(int(started.read_text()))


@needs_ray
def test_a_killed_command_leaves_no_stage(first_run):
    folder, log, _ = first_run
    started = log / "alone.started"
    started.unlink()
    seed(folder, left="0", alone="wait")
    process = subprocess.Popen(COMMAND, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(started)
    process.kill()
    process.wait()
    assert has_ended(int(started.read_text()))


def test_the_graph_is_that_of_dvc():
    graph = StageGraph.from_dot('strict digraph {\n"a@x";\n"b";\n"c";\n"alone";\n"a@x" -> "b";\n"b" -> "c";\n}\n')
    assert graph.dependencies == {"a@x": set(), "b": {"a@x"}, "c": {"b"}, "alone": set()}
    assert graph.with_dependents(["b"]) == {"b", "c"}
    assert graph.with_dependencies(["b"]) == {"a@x", "b"}


def test_cores_are_divided_among_the_stages_that_can_run_in_parallel():
    heads = {f"head@{number}": {"features"} for number in range(3)}
    graph = StageGraph({"features": set(), **heads})
    assert graph.threads("features", jobs=4, cores=8) == 8
    assert graph.threads("head@0", jobs=4, cores=8) == 2
    assert graph.threads("head@0", jobs=2, cores=8) == 4
    assert graph.threads("head@0", jobs=100, cores=8) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--jobs", "0"], "--jobs: give a whole number from 1 up"),
        (
            ["--address", "auto"],
            "--address: give the host and the port of the head of a Ray cluster, such as 10.0.0.1:6379",
        ),
        (["--gpus", "0"], "--gpus: give a whole number, or a part of a GPU, such as 0.5"),
        (["--gpus", "-1"], "--gpus: give a whole number, or a part of a GPU, such as 0.5"),
        (["--gpus", "1.5"], "--gpus: give a whole number, or a part of a GPU, such as 0.5"),
        (["--gpus", "nan"], "--gpus: give a whole number, or a part of a GPU, such as 0.5"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(options, sentence):
    result = run(ROOT, "python", "-m", "stages.run", *options, fails=True)
    assert result.stderr.strip().splitlines()[-1].endswith(f"error: {sentence}")


def test_without_ray_the_command_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "ray.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    result = run(tmp_path, "python", "-m", "stages.run", fails=True)
    assert result.stderr == (
        "python -m stages.run: this command needs Ray: run `pip install -r requirements.txt -r requirements-ray.txt`. "
        "`dvc repro` runs the study without it.\n"
    )


@needs_ray
def test_outside_a_project_the_command_ends_with_the_message_of_dvc(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = run(tmp_path, *COMMAND, fails=True)
    assert "not inside of a DVC repository" in result.stderr
    assert result.stderr.strip().splitlines()[-1] == (
        "python -m stages.run: `dvc dag --dot` failed. See the message above."
    )


# On a cluster: two nodes with one core each, which have separate homes and hence separate clones and caches.


class Nodes:
    """The cluster. `b` is the node that has a GPU and can be lost; the driver belongs to the other."""

    def __init__(self, folder):
        from ray.cluster_utils import Cluster

        self.homes = {name: folder / f"home-{name}" for name in "ab"}
        for home in self.homes.values():
            home.mkdir()
        head = {"num_cpus": 1, "include_dashboard": False, "env_vars": {"HOME": str(self.homes["a"])}}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.add()

    def add(self):
        self.b = self.cluster.add_node(num_cpus=1, num_gpus=1, env_vars={"HOME": str(self.homes["b"])})

    def lose(self):
        self.cluster.remove_node(self.b, allow_graceful=False)

    @property
    def command(self):
        return (*COMMAND, "--address", self.cluster.address)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    yield nodes
    nodes.cluster.shutdown()


@pytest.fixture(scope="module")
def on_cluster(nodes, tmp_path_factory):
    """A project with a remote, the folder of its log, and the result of its first run on the cluster."""
    folder, log = project(tmp_path_factory.mktemp("cluster"), {})
    dvc(folder, "remote", "add", "-d", "team", "../storage")
    seed(folder, left="full on b", alone="full on b")
    return folder, log, run(folder, *nodes.command)


def outputs(folder):
    return {name: (folder / f"{name}.json").read_text() for name in DEPENDENCIES}


def equals_that_of_dvc(folder, tmp_path):
    """Whether `dvc repro` has nothing to run, and in a clone without a cache gives the same outputs and dvc.lock."""
    assert stages_run(dvc(folder, "repro")) == set()
    commit(folder)
    run(folder, "git", "clone", "-q", ".", str(tmp_path / "clone"))
    (tmp_path / "clone/dvc.lock").unlink()
    dvc(tmp_path / "clone", "repro")
    assert outputs(tmp_path / "clone") == outputs(folder)
    assert read_yaml(tmp_path / "clone/dvc.lock") == read_yaml(folder / "dvc.lock")
    return True


@needs_ray
def test_a_cluster_gives_the_artifacts_and_the_lock_of_dvc(on_cluster, nodes, tmp_path):
    folder, log, result = on_cluster
    assert finished_stages(result) == sorted(OTHERS)
    entries = {name: json.loads((log / f"{name}.json").read_text()) for name in DEPENDENCIES}
    assert entries["first"]["folder"] == str(folder)
    homes = {name: Path(entries[name]["settings"]["HOME"]) for name in OTHERS}
    assert set(homes.values()) == set(nodes.homes.values())
    assert all(Path(entries[name]["folder"]).is_relative_to(homes[name] / ".cache") for name in OTHERS)
    assert homes["left"] == homes["alone"] == nodes.homes["a"]
    assert homes["train"] == nodes.homes["b"] and entries["train"]["settings"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert all(entries[name]["settings"].items() >= dict.fromkeys(THREADS, "1").items() for name in OTHERS)
    assert stages_run(result) == {"first", "evaluate"}  # in the project
    assert equals_that_of_dvc(folder, tmp_path)


@needs_ray
def test_what_depends_on_a_failed_stage_is_skipped_and_a_stage_moves_from_a_full_disk(on_cluster, nodes):
    folder, *_ = on_cluster
    seed(folder, left="full everywhere", train="fail", alone="1")
    result = run(folder, *nodes.command, fails=True)
    assert finished_stages(result) == ["alone"]
    assert "A disk is full: stage 'left' moves from node" in result.stdout
    for reason in ("train: this is why.", "OSError: [Errno 28] No space left on device"):
        assert reason in result.stderr
    assert re.search(r"\n.*: (left, train|train, left) failed and on-left did not run. If no .*\n$", result.stderr)
    assert (folder / "alone.json").read_text() == "1" + (folder / "first.json").read_text()
    assert "changed" not in dvc(folder, "status", "alone").stdout


@needs_ray
def test_stages_of_a_lost_node_and_of_killed_workers_run_again(on_cluster, nodes, tmp_path):
    folder, log, _ = on_cluster
    for name in ("left", "alone"):
        (log / f"{name}.started").unlink(missing_ok=True)
    seed(folder, left="wait 1", alone="wait 1", train="1")
    process = subprocess.Popen(nodes.command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for name in ("left", "alone"):
            wait_for(log / f"{name}.started")
        stages = [int((log / f"{name}.started").read_text()) for name in ("left", "alone")]
        for worker in workers():
            worker.kill()
        assert all(map(has_ended, stages))
        nodes.lose()
    finally:
        (log / "go").write_text("go")
    printed, _ = process.communicate(timeout=120)
    nodes.add()
    assert process.returncode == 0, printed
    assert json.loads((log / "left.json").read_text())["settings"]["HOME"] == str(nodes.homes["a"])
    assert equals_that_of_dvc(folder, tmp_path)
    (log / "go").unlink()


def workers():
    """The processes of Ray that run stages."""
    names = {f"ray::{name}" for name in OTHERS}
    return [child for child in psutil.Process().children(recursive=True) if child.name() in names]


@needs_ray
def test_a_file_that_changes_while_the_study_runs_does_not_mix_with_its_results(on_cluster, nodes):
    folder, log, _ = on_cluster
    seed(folder, left="1", on_left="1", alone="wait 2")
    (log / "alone.started").unlink(missing_ok=True)
    before = (folder / "dvc.lock").read_text()
    process = subprocess.Popen(nodes.command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(log / "alone.started")
    (folder / "on-left.seed").write_text("edited")
    (folder / "params.yaml").write_text("seed: 1\n")
    (log / "go").write_text("go")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stderr.splitlines()[-1] == (
        "python -m stages.run: on-left.seed, params.yaml changed while the study ran. Its results are in the DVC "
        "remote. To take them, undo the change and run this command again; to run what the change affects, commit the "
        "change first."
    )
    assert (folder / "dvc.lock").read_text() == before
    run(folder, "git", "checkout", "-q", "on-left.seed", "params.yaml")
    (log / "alone.json").unlink()
    result = run(folder, *nodes.command)
    (log / "go").unlink()
    assert "alone" in finished_stages(result)
    assert not (log / "alone.json").exists()  # it came from the run-cache


@pytest.mark.parametrize(
    ("node", "gpus", "asks"),
    [
        ({"Alive": False, "Resources": {"CPU": 8.0}}, 0, "2 processor cores"),
        ({"Alive": True, "Resources": {"CPU": 1.0}}, 0, "2 processor cores"),
        ({"Alive": True, "Resources": {"CPU": 8.0}}, 0.5, "2 processor cores and 0.5 GPUs"),
        ({"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}, 2, "2 processor cores and 2 GPUs"),
    ],
)
def test_a_stage_that_no_node_can_run_ends_the_study(node, gpus, asks):
    ray = MagicMock(nodes=lambda: [{"NodeID": "a", **node}], wait=lambda *_, **__: ([], []))
    with pytest.raises(
        UserError, match=f"no node of the cluster can run train, which asks for {asks}: nodes were lost"
    ):
        run_stages(ray, StageGraph({"train": set()}), {"train"}, MagicMock(), lambda _: Request(2, gpus))
    ray.cancel.assert_called_once()


REFUSED = {
    "no remote": (lambda folder: dvc(folder, "config", "--unset", "core.remote"), "this project has no default one."),
    "changed code": (lambda folder: (folder / "low.seed").write_text("1"), "low.seed: not as in the last commit"),
    "new code": (
        lambda folder: [
            run(folder, "git", "rm", "-q", "--cached", "low.seed"),
            run(folder, "git", "commit", "-qm", "-"),
        ],
        "low.seed: not as in the last commit",
    ),
}


@needs_ray
@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_cluster_needs_is_missing(tmp_path, kind):
    folder, _ = project(tmp_path, {})
    dvc(folder, "remote", "add", "-d", "team", "../storage")
    commit(folder)
    change, sentence = REFUSED[kind]
    change(folder)
    stderr = run(folder, *COMMAND, "--address", "127.0.0.1:1", fails=True).stderr
    assert sentence in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nobody.invalid:6379", "127.0.0.1:99999"])
def test_an_address_without_a_cluster_is_refused(address):
    with pytest.raises(UserError, match=f"--address: cannot join the Ray cluster at '{address}': "):
        check_address(address)
