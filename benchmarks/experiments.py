"""Writes docs/experiments.md anew: runs its commands, in their order, where the default study has run.

    python -m benchmarks.experiments

Takes five minutes on two processor cores, in a copy of the project that is deleted.
"""

import subprocess
import tempfile
from pathlib import Path

from benchmarks.pages import filled
from stages.core.files import write_text
from tests.pipeline import commit, copy_of_project, dvc, environment

PAGE = Path(__file__).parents[1] / "docs/experiments.md"


def output_of(command: str, project: Path) -> str:
    """What a command of the page says in a project, as a fence; where the project lies is nobody's business.

    It is asked to write to a file: a worker of the queue would keep a pipe open until it ends.
    """
    with tempfile.TemporaryFile("w+") as said:
        shell = ["bash", "-eu", "-c", command]
        done = subprocess.run(shell, cwd=project, env=environment(), stdout=said, stderr=subprocess.STDOUT, check=False)
        said.seek(0)
        lines = [line.rstrip() for line in said.read().replace(str(project), "<project>").strip().splitlines()]
    if done.returncode:
        raise SystemExit("\n".join([f"{command}: failed", *lines]))
    return "\n".join(["```text", *lines, "```"])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = copy_of_project(Path(folder).resolve())
        dvc(project, "repro")
        commit(project)
        write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), lambda command: output_of(command, project)))


if __name__ == "__main__":
    main()
