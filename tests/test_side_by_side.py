"""Stages that run in parallel: a pipeline of trivial stages through DVC, and the division of the cores."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from dvc.lock import Lock

from stages.core import stage_graph
from stages.core.stage_graph import StageGraph
from tests.pipeline import ROOT, copy_of_project, dvc, run, stages_run

DEPENDENCIES = {"low": [], "left": ["low"], "right": ["low"], "on-left": ["left"], "on-right": ["right"], "alone": []}
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
COMMAND = (sys.executable, "-m", "stages.side_by_side", "--jobs", "2")

# The arguments are the name of the stage and those of the stages that it waits for. Its seed file says what it does,
# and its output records when it ran and with which environment.
WORK = """
import json, os, pathlib, sys, time
name, *partners = sys.argv[1:]
seed = pathlib.Path(f"{name}.seed").read_text()
started = time.time()
pathlib.Path(f"{name}.started").write_text(str(os.getpid()))
if seed == "fail":
    sys.exit(f"{name}: this is why.")
while seed == "wait" or not all(pathlib.Path(f"{partner}.started").exists() for partner in partners):
    time.sleep(0.02)
    if time.time() - started > 60:
        sys.exit(f"{name} is alone")
settings = {key: value for key, value in os.environ.items() if "THREADS" in key}
pathlib.Path(f"{name}.json").write_text(json.dumps({"started": started, "ended": time.time(), "settings": settings}))
"""


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A project whose stages take no time, and the result of its first run; left and right wait for each other."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    (folder / "work.py").write_text(WORK)
    (folder / "dvc.lock").unlink()
    stages = {
        name: {
            "cmd": f"{sys.executable} work.py {name} {({'left': 'right', 'right': 'left'}).get(name, '')}".strip(),
            "deps": [f"{name}.seed", *(f"{dependency}.json" for dependency in dependencies)],
            "outs": [f"{name}.json"],
        }
        for name, dependencies in DEPENDENCIES.items()
    }
    models = [f"{name}.json" for name in DEPENDENCIES]
    stages["evaluate"] = {"cmd": "echo done > evaluated", "deps": models, "outs": ["evaluated"]}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    for name in DEPENDENCIES:
        (folder / f"{name}.seed").write_text("0")
    return folder, run(folder, *COMMAND)


def read_outputs(folder, names=DEPENDENCIES):
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names}


def started_stages(result):
    """The stages that ran in parallel, before the final `dvc repro`."""
    return re.findall(r"Starting stage '([^']+)'", result.stdout)


def test_every_stage_runs_once_after_its_dependencies(first_run):
    folder, result = first_run
    assert sorted(started_stages(result)) == sorted(DEPENDENCIES)
    assert stages_run(result) == {"evaluate"}
    outputs = read_outputs(folder)
    for name, dependencies in DEPENDENCIES.items():
        assert all(outputs[dependency]["ended"] <= outputs[name]["started"] for dependency in dependencies)


def test_stages_get_their_share_of_the_cores(first_run):
    share = str(max(1, stage_graph.CORES // 2))
    for output in read_outputs(first_run[0]).values():
        assert output["settings"].items() >= dict.fromkeys(THREADS, share).items()


def test_a_second_run_runs_nothing_even_if_dvc_is_locked_for_a_while(first_run):
    folder, _ = first_run
    assert stages_run(dvc(folder, "repro")) == set()
    lock = Lock(str(folder / ".dvc/tmp/lock"))
    lock.lock()
    threading.Timer(5, lock.unlock).start()  # longer than DVC waits by default
    result = run(folder, *COMMAND)
    assert started_stages(result) == []
    assert stages_run(result) == set()


def test_after_a_failure_only_stages_that_do_not_depend_on_it_run(first_run, monkeypatch):
    folder, _ = first_run
    before = read_outputs(folder, ["alone"])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (folder / "left.seed").write_text("fail")
    (folder / "alone.seed").write_text("1")
    result = run(folder, *COMMAND, fails=True)
    assert sorted(started_stages(result)) == ["alone", "left"]
    assert stages_run(result) == set()
    assert "left: this is why." in result.stderr
    assert result.stderr.strip().splitlines()[-1] == (
        "python -m stages.side_by_side: left failed and on-left did not run. If no message above says why, "
        "run `dvc repro left`."
    )
    assert "Traceback" not in result.stderr
    outputs = read_outputs(folder, ["alone"])
    assert outputs["alone"]["started"] > before["alone"]["started"]
    assert outputs["alone"]["settings"]["OMP_NUM_THREADS"] == "3"


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_all_stages(first_run, number):
    folder, _ = first_run
    started = folder / "alone.started"
    started.unlink()
    (folder / "alone.seed").write_text("wait")
    process = subprocess.Popen(COMMAND, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 60
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip().endswith("python -m stages.side_by_side: interrupted.")
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_the_graph_is_that_of_dvc():
    graph = StageGraph.from_dot('strict digraph {\n"a@x";\n"b";\n"c";\n"alone";\n"a@x" -> "b";\n"b" -> "c";\n}\n')
    assert graph.dependencies == {"a@x": set(), "b": {"a@x"}, "c": {"b"}, "alone": set()}
    assert graph.with_dependents(["b"]) == {"b", "c"}


def test_cores_are_divided_among_the_stages_that_can_run_in_parallel(monkeypatch):
    monkeypatch.setattr(stage_graph, "CORES", 8)
    heads = {f"head@{number}": {"features"} for number in range(3)}
    graph = StageGraph({"features": set(), **heads})
    assert graph.threads("features", jobs=4) == 8
    assert graph.threads("head@0", jobs=4) == 2
    assert graph.threads("head@0", jobs=2) == 4
    assert graph.threads("head@0", jobs=100) == 2


def test_a_wrong_number_of_jobs_is_refused_in_one_sentence():
    result = subprocess.run([*COMMAND[:-1], "0"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].endswith("error: --jobs: give a whole number from 1 up")


def test_outside_a_project_the_command_ends_with_the_message_of_dvc(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = run(tmp_path, *COMMAND, fails=True)
    assert "not inside of a DVC repository" in result.stderr
    assert result.stderr.strip().splitlines()[-1] == (
        "python -m stages.side_by_side: `dvc dag --dot` failed. See the message above."
    )
