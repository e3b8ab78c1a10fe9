"""Runs the commands in docs/experiments.md, after the default study, and writes their output below them.

    python -m benchmarks.experiments

It takes five minutes on two processor cores and uses a temporary copy of the project.
"""

import subprocess
import tempfile
from pathlib import Path

from benchmarks.pages import fill_outputs
from stages.core.files import write_text
from tests.pipeline import commit, copy_of_project, dvc, environment

PAGE = Path(__file__).parents[1] / "docs/experiments.md"


def run_command(command: str, project: Path) -> str:
    """Return the output of a command in a project as a fenced block, with <project> instead of its path.

    The output goes to a file: a worker of DVC's experiment queue would keep a pipe open until it ends.
    """
    with tempfile.TemporaryFile("w+") as file:
        shell = ["bash", "-eu", "-c", command]
        result = subprocess.run(
            shell, cwd=project, env=environment(), stdout=file, stderr=subprocess.STDOUT, check=False
        )
        file.seek(0)
        lines = [line.rstrip() for line in file.read().replace(str(project), "<project>").strip().splitlines()]
    if result.returncode:
        raise SystemExit("\n".join([f"{command}: failed", *lines]))
    return "\n".join(["```text", *lines, "```"])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = copy_of_project(Path(folder).resolve())
        dvc(project, "repro")
        commit(project)
        write_text(PAGE, fill_outputs(PAGE.read_text(encoding="utf-8"), lambda command: run_command(command, project)))


if __name__ == "__main__":
    main()
