"""Running the pipeline through DVC in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
read_yaml = YAML(typ="safe", pure=True).load


def copy_of_project(folder: Path) -> Path:
    """The project of the working tree, as a git repository of its own with one commit."""
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():  # not deleted in the working tree
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run(folder, "git", "init", "-q")
    for key in ("name", "email"):  # DVC's experiments need an author
        run(folder, "git", "config", f"user.{key}", "test")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "--allow-empty", "-m", "test")


def programs() -> Path:
    """The folder of this process's `python` and `dvc`. tests/conftest.py replaces them by those that start at once."""
    return Path(sys.executable).parent


def environment() -> dict[str, str]:
    """The environment of the tests, with their Python as `python` and their DVC as `dvc`."""
    return {**os.environ, "PATH": f"{programs()}{os.pathsep}{os.environ['PATH']}"}


def run(folder: Path, *command: str, fails: bool = False) -> subprocess.CompletedProcess:
    """Run a command in a folder, with the Python of the tests as `python`."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def dvc(folder: Path, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess:
    return run(folder, "dvc", *arguments, fails=fails)


IN_ONE_PROCESS = """
import importlib
from stages.core.params import Params

for stage, *entry in {entries}:
    result = importlib.import_module("stages." + stage).main(Params.read(), *entry)
    print(f"{{' '.join([stage, *entry])}}: {{result}}")
"""


def run_in_one_process(folder: Path, stages: list[str], are_all: bool = True) -> subprocess.CompletedProcess:
    """Check the study, run stages in the given order in one process, which saves seconds a stage, and commit to DVC.

    are_all: whether these are all stages of the study. DVC reads the pipeline again for each stage that is named.
    """
    checked = run(folder, "python", "-m", "stages.check", "--clean")
    entries = [stage.replace("prepare_folder", "prepare").split("@") for stage in stages]
    done = run(folder, "python", "-c", IN_ONE_PROCESS.format(entries=entries))
    dvc(folder, "commit", "-f", *([] if are_all else ["check", *stages]))
    done.stdout = checked.stdout + done.stdout
    return done


def stages_run(done: subprocess.CompletedProcess) -> set[str]:
    """The stages that a `dvc repro` or `dvc exp run` has run, but for `check`, which runs after any change."""
    return set(re.findall(r"Running stage '([^']+)'", done.stdout)) - {"check"}


def edit_study(folder: Path, change) -> None:
    """Change params.yaml by a function that is given its content."""
    study = read_yaml(folder / "params.yaml")
    change(study)
    write_study(folder, study)


def write_study(folder: Path, study: dict) -> None:
    """Write params.yaml."""
    (folder / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
