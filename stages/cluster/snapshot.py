"""What the nodes of a cluster get from the project: its commit, params.yaml, and the DVC remote."""

from pathlib import Path

from stages.cluster.node import Snapshot
from stages.cluster.programs import ask, dvc
from stages.core.command import git_problem
from stages.core.errors import UserError


def take_snapshot(files: list[str], clones: str) -> Snapshot:
    """Describe the project for clones of it.

    files: files and folders that the stages read, and that no stage writes. They must be as committed.
    """
    config = dict(line.split("=", 1) for line in ask_dvc("config", "--list").splitlines() if "=" in line)
    remote = config.get("core.remote", "")
    url = config.get(f"remote.{remote}.url")  # absolute, if it is a folder
    if not url:
        raise UserError(
            "the nodes of a cluster exchange files through a DVC remote, and this project has no default one. Add it: "
            "`dvc remote add -d team <URL>`, as docs/sharing.md says."
        )
    commit = _git("rev-parse", "HEAD").decode().strip()
    if changed := _changed_files(commit, files):
        raise UserError(
            f"{', '.join(changed)}: not as in the last commit, of which the nodes make clones. Commit or undo the "
            "changes."
        )
    params = Path("params.yaml").read_text(encoding="utf-8")
    return Snapshot(commit, _git("bundle", "create", "--quiet", "-", "HEAD"), params, (remote, url), clones)


def check_unchanged(snapshot: Snapshot, files: list[str]) -> None:
    """Raise `UserError` if the project is no longer as the clones are."""
    changed = _changed_files(snapshot.commit, files)
    if Path("params.yaml").read_text(encoding="utf-8") != snapshot.params:
        changed.append("params.yaml")
    if changed:
        raise UserError(
            f"{', '.join(changed)} changed while the study ran. Its results are in the DVC remote. To take them, undo "
            "the change and run this command again; to run what the change affects, commit the change first."
        )


def _changed_files(commit: str, files: list[str]) -> list[str]:
    differ = _git("diff", "--name-only", commit, "--", *files)
    untracked = _git("ls-files", "--others", "--exclude-standard", "--", *files)
    return (differ + untracked).decode().splitlines()


def ask_dvc(*arguments: str) -> str:
    """Return the output of a DVC command. DVC prints its own errors; `UserError` refers to them."""
    result = ask(*dvc(*arguments))
    if result.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed. See the message above. {git_problem()}".rstrip())
    return result.stdout.decode()


def _git(*arguments: str) -> bytes:
    result = ask("git", *arguments)
    if result.returncode:
        raise UserError(f"`git {' '.join(arguments)}` failed: {result.stderr.decode().strip()}")
    return result.stdout
