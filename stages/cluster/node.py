"""What a worker of Ray does: it runs a stage in the project folder, or in a clone of the project on its machine."""

import itertools
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stages.cluster.programs import dvc, run

with suppress(ImportError):  # Windows has no such module; the command refuses to run there
    import fcntl


@dataclass(frozen=True)
class Snapshot:
    """What a node needs for its clones.

    bundle: the commit and its history, as `git bundle` writes them.
    params: the content of params.yaml, which may differ from the commit.
    remote: the name of the DVC remote, and its URL, which is absolute.
    clones: the folder of the clones on each node.
    """

    commit: str
    bundle: bytes
    params: str
    remote: tuple[str, str]
    clones: str


@dataclass(frozen=True)
class Outcome:
    """The end of a stage: its node, the last lines if it failed, and dvc.lock of the clone if not."""

    node: str
    problem: str = ""
    lock: str = ""


def run_in_project(folder: str, stage: str, settings: dict[str, str]) -> Outcome:
    """Run a stage in the project folder."""
    try:
        with Path(folder, f".dvc/tmp/{stage}.running").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # waits for the processes of an earlier attempt, whose worker was killed
            problem = _run_all([dvc("repro", "--quiet", "--single-item", stage)], Path(folder), settings, lock)
            return Outcome(_node(), problem)
    except OSError as error:
        return Outcome(_node(), f"{error}\n")


def run_in_clone(snapshot: Snapshot, stage: str, inputs: list[str], lock: str, settings: dict[str, str]) -> Outcome:
    """Run a stage in a clone that no other stage uses: its inputs come from the DVC remote, its outputs go there.

    inputs: the stages that write the inputs.
    lock: dvc.lock with the entries of these stages.
    """
    commands = [
        *([dvc("pull", "--quiet", "--force", *inputs)] if inputs else []),
        dvc("repro", "--quiet", "--pull", "--single-item", stage),  # takes the result from the run-cache if it is there
        dvc("push", "--quiet", "--run-cache", stage),
    ]
    try:
        clone, file = _free_clone(Path(snapshot.clones).expanduser())
        with file:
            _update(clone, snapshot, file)
            (clone / "dvc.lock").write_text(lock, encoding="utf-8")
            problem = _run_all(commands, clone, settings, file)
            return Outcome(_node(), problem, "" if problem else (clone / "dvc.lock").read_text(encoding="utf-8"))
    except OSError as error:
        return Outcome(_node(), f"{error}\n")


def _free_clone(clones: Path) -> tuple[Path, IO]:
    """The folder of the first clone that is not in use, and its locked file."""
    clones.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        file = (clones / f"{number}.running").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return clones / str(number), file
        except BlockingIOError:
            file.close()


def _update(clone: Path, snapshot: Snapshot, file: IO) -> None:
    """Make the clone one of this commit and these params. The clones of a node share a cache."""
    commit = clone.with_suffix(".commit")  # written last: an incomplete clone has none
    if not commit.exists() or commit.read_text() != snapshot.commit:
        commit.unlink(missing_ok=True)
        shutil.rmtree(clone, ignore_errors=True)
        bundle = clone.with_suffix(".bundle")
        bundle.write_bytes(snapshot.bundle)
        command = ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", str(bundle), str(clone)]
        if problem := _run_all([command], clone.parent, {}, file):
            raise OSError(problem)
        bundle.unlink()
        commit.write_text(snapshot.commit)
    name, url = snapshot.remote
    sections = ("core", "remote", name), ("cache", "dir", clone.parent / "cache"), (f"'remote \"{name}\"'", "url", url)
    config = "".join(f"[{section}]\n    {key} = {value}\n" for section, key, value in sections)
    (clone / ".dvc/config.local").write_text(config, encoding="utf-8")
    (clone / "params.yaml").write_text(snapshot.params, encoding="utf-8")


def _run_all(commands: list[list[str]], folder: Path, settings: dict[str, str], lock: IO) -> str:
    """Run commands until one fails; return its last lines, or nothing if none fails."""
    for command in commands:
        code, lines = run(command, folder, settings, lock, captured=True)
        if code:
            return lines or f"{' '.join(command)} ended with exit code {code}.\n"
    return ""


def _node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()
