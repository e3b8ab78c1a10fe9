"""A stage that is killed, or that runs out of disk space, leaves no file that a later run takes for a complete one."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from stages.core.files import sha256_of
from tests.conftest import png
from tests.pipeline import ROOT, copy_of_project, dvc, environment, read_yaml, run, stages_run, write_study
from tests.tiny_study import STUDY as TINY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows neither forks nor kills in this way")

KILLS = 6  # of each stage

BASE = {"dataset": "digits", "task": "low", "backbone": "new"}
STUDY = {
    **TINY,
    "folders": {"photos": {"source": "folder", "path": "photos", "image_size": 16}},
    "networks": {"base": BASE},
    "features": {"upper": {"dataset": "digits", "backbone": "base", "cut": "flatten"}},
    "heads": {"above": {"task": "high", "features": "upper", "start_from": "backbone"}},
    "probes": {"solved": {"task": "high", "features": "upper"}},
    "fine_tunes": {
        "tuned": {
            "dataset": "digits",
            "task": "high",
            "backbone": "base",
            "head": "above",
            "features": "upper",
            "unfreeze": "conv4",
            "augmentation": {"shift": 0.1},
        }
    },
    "training": {**TINY["training"], "epochs": 2, "repeats": 1, "max_train_per_class": 20},
}
NOTHING = {section: {} for section in ("folders", "features", "heads", "probes", "fine_tunes")}
ONE_NETWORK = {**STUDY, **NOTHING, "tasks": {"low": STUDY["tasks"]["low"]}}
# The stages of a study with all kinds of models, and of one with a single network, whose report takes less time.
ORDER = {
    "all": [
        *("check --clean", "download large", "download digits", "weights own", "weights new", "prepare digits"),
        *("prepare_folder photos", "split low", "split high", "gallery high", "train base", "features upper"),
        *("head above", "probe solved", "fine_tune tuned"),
    ],
    "network": [
        *(
            "check --clean",
            "download digits",
            "weights new",
            "prepare digits",
            "split low",
            "gallery low",
            "train base",
        ),
        *("evaluate", "compare", "mistakes low", "recommend low", "report"),
    ],
}
# One entry of each stage is killed. These run only because other stages need them.
NOT_KILLED = {"download digits", "weights new", "split high"}
KILLED = {
    "all": [command for command in ORDER["all"] if command not in NOT_KILLED],
    "network": ["evaluate", "compare", "mistakes low", "recommend low", "report"],
}
PIPELINE = read_yaml(ROOT / "dvc.yaml")["stages"]
each_stage = pytest.mark.parametrize(
    ("which", "stage", "entry"),
    [(which, *command.partition(" ")[::2]) for which, commands in KILLED.items() for command in commands],
    ids=[command.partition(" ")[0] for commands in KILLED.values() for command in commands],
)


def module(stage: str) -> str:
    """The module of a stage: two stages run `stages.prepare`."""
    return stage.removesuffix("_folder")


def outputs(stage: str, entry: str) -> list[Path]:
    """The outputs of a stage, which DVC removes before the stage; also those that persist, so that the stage runs."""
    definition = PIPELINE[stage].get("do", PIPELINE[stage])
    listed = [*definition["outs"], *definition.get("metrics", [])]
    return [Path((out if isinstance(out, str) else next(iter(out))).replace("${key}", entry)) for out in listed]


def remove(folder: Path, paths: list[Path]) -> None:
    for path in paths:
        if (folder / path).is_dir():
            shutil.rmtree(folder / path)
        else:
            (folder / path).unlink(missing_ok=True)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def server():
    from tests.forks import Server  # there is no `resource` on Windows

    server = Server({module(command.partition(" ")[0]) for commands in ORDER.values() for command in commands})
    yield server
    server.close()


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    """For each study a folder in which all stages ran undisturbed, and the seconds of each stage."""
    studies = {}
    for which, commands in ORDER.items():
        folder, seconds = tmp_path_factory.mktemp(which), {}
        write_study(folder, study_with_files(folder) if which == "all" else ONE_NETWORK)
        for stage, *entry in map(str.split, commands):
            done = server.run(folder, module(stage), *entry)
            assert done.code == 0, done.said
            seconds[stage] = done.seconds
        studies[which] = folder, seconds
    return studies


def study_with_files(folder: Path) -> dict:
    """Write files to download and to prepare into a folder; returns the study that names them."""
    source = np.random.default_rng(0)
    (folder / "large.zip").write_bytes(source.bytes(5_000_000))
    with h5py.File(folder / "own.weights.h5", "w") as file:
        file["numbers"] = source.random(500_000)
    for number in range(100):
        path = folder / f"photos/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(source.integers(0, 256, (40, 40, 3), np.uint8)))
    large = {"source": "archive", "url": "large.zip", "image_size": 16, "sha256": sha256_of(folder / "large.zip")}
    own = {"architecture": "four_conv", "weights": "own.weights.h5", "sha256": sha256_of(folder / "own.weights.h5")}
    return {
        **STUDY,
        "datasets": {**STUDY["datasets"], "large": large},
        "backbones": {**STUDY["backbones"], "own": own},
    }


@pytest.fixture
def here(undisturbed, which, tmp_path):
    """A copy of the folder of a study."""
    return Path(shutil.copytree(undisturbed[which][0], tmp_path / "study"))


def is_cost(name: str) -> bool:
    """Whether a file holds seconds, which differ between runs."""
    return name.startswith("data/costs/")


def assert_complete(folder: Path, expected: dict[str, bytes], what: str) -> None:
    """Every file under its final name is as an undisturbed run writes it; incomplete files have other names."""
    for name, content in files_of(folder).items():
        if is_cost(name) and ".partial-" not in name:
            assert json.loads(content).keys() == json.loads(expected[name]).keys(), (what, name)
        elif ".partial-" not in name and not name.startswith(("data/checkpoints/", "data/partial/")):
            assert content == expected.get(name), (what, name)


def assert_same(folder: Path, expected: dict[str, bytes], what: str) -> None:
    """The files are those of an undisturbed run, without any others."""
    files = files_of(folder)
    assert files.keys() == expected.keys(), what
    assert [name for name in files if files[name] != expected[name] and not is_cost(name)] == [], what


@each_stage
def test_a_stage_that_is_killed_at_any_moment_ends_with_the_same_files(which, stage, entry, server, undisturbed, here):
    folder, seconds = undisturbed[which]
    expected, moments = files_of(folder), random.Random(stage)
    # One moment in each part of the stage's duration.
    shares = [(part + moments.random()) / KILLS for part in range(KILLS)]
    moments.shuffle(shares)
    arguments, duration = (here, module(stage), *filter(None, [entry])), seconds[stage]
    while shares:
        remove(here, outputs(stage, entry))
        after = shares[-1] * duration
        done, what = server.run(*arguments, kill_after=after), f"{stage}, killed after {after:.3f} of {duration:.3f} s"
        if done.code == -signal.SIGKILL:
            shares.pop()
            assert_complete(here, expected, what)
        else:  # it ended, maybe because it resumed what a killed run had done
            duration *= 0.9
            assert (done.code, done.said) == (0, ""), what
            assert_same(here, expected, what)
    remove(here, outputs(stage, entry))
    done = server.run(*arguments)
    assert (done.code, done.said) == (0, ""), stage
    assert_same(here, expected, stage)


def file_limits(folder: Path, stage: str, entry: str) -> list[int]:
    """Limits of the size of a file, in bytes, at which writing the first, a middle or the largest file fails."""
    paths = [path for out in outputs(stage, entry) for path in [folder / out, *(folder / out).rglob("*")]]
    sizes = sorted({path.stat().st_size for path in paths if path.is_file()})
    return sorted({10, sizes[len(sizes) // 2] - 1, sizes[-1] - 1})


@each_stage
def test_a_full_disk_ends_a_stage_with_an_error_message_and_leaves_no_incomplete_file(
    which, stage, entry, server, undisturbed, here
):
    folder, _ = undisturbed[which]
    expected = files_of(folder)
    arguments = (here, module(stage), *filter(None, [entry]))
    for room in file_limits(folder, stage, entry):
        remove(here, outputs(stage, entry))
        done = server.run(*arguments, room=room)
        assert done.code == 1, room
        assert done.said.startswith(f"{module(stage)}: ") and done.said.endswith(", or correct the permissions.\n"), (
            done.said
        )
        assert "File too large" in done.said and len(done.said.splitlines()) == 1, done.said
        assert_complete(here, expected, f"{stage} with {room} bytes")
        assert [name for name in files_of(here) if ".partial-" in name] == []
    remove(here, outputs(stage, entry))
    assert server.run(*arguments).code == 0
    assert_same(here, expected, stage)


# Through DVC.

# Reports that show seconds.
SHOW_COSTS = ("metrics", "models", "summary", "comparisons", "report", "figures")


def results_of(folder: Path) -> dict[str, bytes]:
    """The files that stages wrote, without those that show costs."""
    written = {}
    for part in ("data", "models", "reports"):
        written |= {f"{part}/{name}": content for name, content in files_of(folder / part).items()}
    shows_costs = tuple(f"reports/{name}" for name in SHOW_COSTS)
    return {
        name: content
        for name, content in written.items()
        if not (is_cost(name) or name.startswith(shows_costs) or name.endswith("README.md"))
    }


def kill_in(project: Path, stage: str, seconds: float) -> None:
    """Start `dvc repro`; kill it and its processes this many seconds after it starts a stage."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=project,
        env=environment(),  # stages are forks, which end when the program in the killed group ends
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert any(f"Running stage '{stage}'" in line for line in process.stdout), f"{stage} did not run"
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


REFUSED = {
    "dvc.lock": "'./dvc.lock' validation failed",
    ".dvc/tmp/rwlock": "Unable to read RWLock-file '.dvc/tmp/rwlock'",
}


def test_a_pipeline_that_is_killed_resumes_and_ends_with_the_same_results(undisturbed, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    copy_of_project(project)
    shutil.rmtree(project / "reports")
    (project / "dvc.lock").unlink()
    write_study(project, ONE_NETWORK)
    moments = random.Random(0)
    for stage, seconds in (("prepare@digits", 0.4), ("train@base", 3)):
        kill_in(project, stage, moments.uniform(0, seconds))
        # DVC may have been about to write one of these files, and refuses it then: docs/troubleshooting.md says to
        # delete it.
        for name, message in REFUSED.items():
            (project / name).write_bytes(b"")
            assert message in dvc(project, "repro", fails=True).stderr
            (project / name).unlink()
    dvc(project, "repro")
    assert "up to date" in dvc(project, "repro").stdout
    assert results_of(project) == results_of(undisturbed["network"][0])


@contextlib.contextmanager
def mounted(folder: Path, size: str):
    """A separate disk at a folder; yields a function that changes its options."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield lambda options: run(folder.parent, "mount", "-o", f"remount,{options}", str(folder))
    finally:
        run(folder.parent, "umount", str(folder))


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_a_full_or_read_only_cache_gives_an_error_message_and_loses_no_file(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    copy_of_project(project)
    cache, images = project / ".dvc/cache", project / "data/images/digits"
    with mounted(cache, "400k") as remount:
        dvc(project, "repro", "download@digits")
        before = files_of(cache)
        assert before
        # DVC reports each file and continues; the next run adds the missing files to the cache.
        full = dvc(project, "repro", "prepare@digits")
        assert "No space left on device" in full.stderr and "Traceback" not in full.stderr
        made = files_of(images)
        assert files_of(cache).items() >= before.items() and len(made) == 4
        remount("size=50m")
        assert stages_run(dvc(project, "repro", "prepare@digits")) == {"prepare@digits"}
        shutil.rmtree(images)
        dvc(project, "checkout", "data/images/digits")
        assert files_of(images) == made
        before = files_of(cache)
        remount("ro")
        locked = dvc(project, "repro", "split@digits-a", fails=True)
        assert "failed to reproduce 'split@digits-a': [Errno 30] Read-only file system" in locked.stderr
        assert files_of(cache) == before
        remount("rw")
        assert stages_run(dvc(project, "repro", "split@digits-a")) == {"split@digits-a"}
        assert files_of(cache).items() > before.items()
