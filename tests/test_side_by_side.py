"""Stages side by side: a made-up pipeline through DVC, and the shares of the cores."""

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

from stages import side_by_side
from stages.side_by_side import above, graph_of, threads_of
from tests.pipeline import ROOT, copy_of_project, dvc, run, stages_run

BELOW = {"low": [], "left": ["low"], "right": ["low"], "on-left": ["left"], "on-right": ["right"], "alone": []}
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
COMMAND = (sys.executable, "-m", "stages.side_by_side", "--jobs", "2")

# Its first argument names the stage, its seed says what happens, and its output tells what it saw.
WORK = """
import json, os, pathlib, sys, time
name, *meets = sys.argv[1:]
seed = pathlib.Path(f"{name}.seed").read_text()
begun = time.time()
pathlib.Path(f"{name}.begun").write_text(str(os.getpid()))
if seed == "fail":
    sys.exit(f"{name}: this is why.")
while seed == "wait" or not all(pathlib.Path(f"{other}.begun").exists() for other in meets):
    time.sleep(0.02)
    if time.time() - begun > 60:
        sys.exit(f"{name} is alone")
settings = {key: value for key, value in os.environ.items() if "THREADS" in key}
pathlib.Path(f"{name}.json").write_text(json.dumps({"begun": begun, "ended": time.time(), "settings": settings}))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project whose stages take no time, after its first run; left and right wait for each other."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    (folder / "work.py").write_text(WORK)
    (folder / "dvc.lock").unlink()
    stages = {
        name: {
            "cmd": f"{sys.executable} work.py {name} {({'left': 'right', 'right': 'left'}).get(name, '')}".strip(),
            "deps": [f"{name}.seed", *(f"{lower}.json" for lower in below)],
            "outs": [f"{name}.json"],
        }
        for name, below in BELOW.items()
    }
    models = [f"{name}.json" for name in BELOW]
    stages["evaluate"] = {"cmd": "echo done > evaluated", "deps": models, "outs": ["evaluated"]}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    for name in BELOW:
        (folder / f"{name}.seed").write_text("0")
    return folder, run(folder, *COMMAND)


def seen(folder, names=BELOW):
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names}


def started(done):
    """The stages that were started by themselves, before the `dvc repro` at the end."""
    return re.findall(r"Starting stage '([^']+)'", done.stdout)


def test_every_stage_runs_once_after_what_it_builds_on(made):
    folder, done = made
    assert sorted(started(done)) == sorted(BELOW)
    assert stages_run(done) == {"evaluate"}
    found = seen(folder)
    for name, below in BELOW.items():
        assert all(found[lower]["ended"] <= found[name]["begun"] for lower in below)


def test_stages_get_their_share_of_the_cores(made):
    share = str(max(1, side_by_side.CORES // 2))
    for of_stage in seen(made[0]).values():
        assert of_stage["settings"].items() >= dict.fromkeys(THREADS, share).items()


def test_nothing_runs_again(made):
    folder, _ = made
    assert stages_run(dvc(folder, "repro")) == set()
    lock = Lock(str(folder / ".dvc/tmp/lock"))
    lock.lock()
    threading.Timer(5, lock.unlock).start()  # longer than DVC waits if it is not told to
    again = run(folder, *COMMAND)
    assert started(again) == []
    assert stages_run(again) == set()


def test_after_a_failure_the_others_run_and_what_builds_on_it_does_not(made, monkeypatch):
    folder, _ = made
    before = seen(folder, ["alone"])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (folder / "left.seed").write_text("fail")
    (folder / "alone.seed").write_text("1")
    done = run(folder, *COMMAND, fails=True)
    assert sorted(started(done)) == ["alone", "left"]
    assert stages_run(done) == set()
    assert "left: this is why." in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("python -m stages.side_by_side: left failed, so that on-left did not run;")
    assert "Traceback" not in done.stderr
    found = seen(folder, ["alone"])
    assert found["alone"]["begun"] > before["alone"]["begun"]
    assert found["alone"]["settings"]["OMP_NUM_THREADS"] == "3"


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_all_stages(made, sent):
    folder, _ = made
    begun = folder / "alone.begun"
    begun.unlink()
    (folder / "alone.seed").write_text("wait")
    process = subprocess.Popen(COMMAND, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    end = time.monotonic() + 60
    while not (begun.exists() and begun.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().endswith("python -m stages.side_by_side: interrupted.")
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


def test_the_graph_is_that_of_dvc():
    below = graph_of('strict digraph {\n"a@x";\n"b";\n"c";\n"alone";\n"a@x" -> "b";\n"b" -> "c";\n}\n')
    assert below == {"a@x": set(), "b": {"a@x"}, "c": {"b"}, "alone": set()}
    assert above(below, ["b"]) == {"b", "c"}


def test_cores_are_shared_with_what_could_run_beside_a_stage(monkeypatch):
    monkeypatch.setattr(side_by_side, "CORES", 8)
    heads = {f"head@{number}": {"features"} for number in range(3)}
    below = {"features": set(), **heads}
    assert threads_of("features", below, 4) == 8
    assert threads_of("head@0", below, 4) == 2
    assert threads_of("head@0", below, 2) == 4
    assert threads_of("head@0", below, 100) == 2


def test_a_wrong_number_of_jobs_is_refused_in_one_sentence():
    done = subprocess.run([*COMMAND[:-1], "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("error: --jobs: give a whole number from 1 up")


def test_an_unsound_study_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = run(tmp_path, *COMMAND, fails=True)
    assert done.stderr.startswith("python -m stages.side_by_side: params.yaml is missing;")
