"""Runs the study with independent stages in parallel: `python -m stages.side_by_side [--jobs N]`.

Every stage that is out of date, and every stage that depends on one, runs as a `dvc repro --single-item`. It starts as
soon as the stages it depends on have finished. A final `dvc repro` runs the rest: `evaluate`, which reads every model,
and the stages after it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from graphlib import TopologicalSorter

from stages.core.command import git_problem, run_command
from stages.core.errors import UserError
from stages.core.stage_graph import CORES, StageGraph

# All stages write dvc.lock, one after another. Without this option DVC gives up on the lock after three seconds.
DVC = [sys.executable, "-m", "dvc", "--wait-for-lock"]
FIRST_SEQUENTIAL_STAGE = "evaluate"
POLLING_SECONDS = 0.05

Processes = dict[str, subprocess.Popen]  # the running stages, by name


def main(arguments: argparse.Namespace) -> int:
    # A shell that starts this command in the background ignores SIGINT for it and for the processes that it starts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    running: Processes = {}
    try:
        graph = StageGraph.from_dot(query_dvc("dag", "--dot"))
        sequential = graph.with_dependents([FIRST_SEQUENTIAL_STAGE])
        graph = graph.without(sequential)
        outdated = graph.with_dependents(json.loads(query_dvc("status", "--json")).keys() - sequential)
        run_stages(graph, outdated, arguments.jobs, running)
        running["dvc repro"] = subprocess.Popen([*DVC, "repro"], start_new_session=True)
        return running["dvc repro"].wait()
    finally:
        for process in running.values():
            interrupt(process)
        for process in running.values():
            process.wait()


def query_dvc(*arguments: str) -> str:
    """Return the output of a DVC command. DVC prints its own errors; `UserError` refers to them."""
    result = subprocess.run([*DVC, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed. See the message above. {git_problem()}".rstrip())
    return result.stdout


def run_stages(graph: StageGraph, outdated: set[str], jobs: int, running: Processes) -> None:
    """Run the outdated stages, at most `jobs` at a time.

    running: filled with the processes while they run, so that the caller can end them.
    After a failure, the stages that do not depend on the failed one still run; then raises `UserError`.
    """
    order = TopologicalSorter(
        {stage: graph.dependencies[stage] & outdated for stage in graph.dependencies if stage in outdated}
    )
    order.prepare()
    ready, failed = list(order.get_ready()), []
    while ready or running:
        while ready and len(running) < jobs:
            stage = ready.pop(0)
            print(f"Starting stage '{stage}'", flush=True)
            running[stage] = start(stage, graph.threads(stage, jobs))
        time.sleep(POLLING_SECONDS)
        for stage in [stage for stage, process in running.items() if process.poll() is not None]:
            if running.pop(stage).returncode:
                failed.append(stage)
            else:
                order.done(stage)
                ready += order.get_ready()
    if failed:
        skipped = sorted(graph.with_dependents(failed) - set(failed))
        consequence = f" and {', '.join(skipped)} did not run" if skipped else ""
        raise UserError(
            f"{', '.join(failed)} failed{consequence}. If no message above says why, run `dvc repro {failed[0]}`."
        )


def start(stage: str, threads: int) -> subprocess.Popen:
    """Start a stage with this number of threads; variables that the environment already sets take precedence."""
    settings = {
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),  # NumPy and SciPy
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # otherwise the first process takes all memory of a GPU
    }
    command = [*DVC, "repro", "--quiet", "--single-item", stage]
    # DVC ignores SIGINT while a stage runs: a session of its own lets `interrupt` reach DVC and the stage together.
    return subprocess.Popen(command, env={**settings, **os.environ}, stdin=subprocess.DEVNULL, start_new_session=True)


def interrupt(process: subprocess.Popen) -> None:
    """Interrupt a process and all processes that it has started, as Ctrl-C does."""
    if process.poll() is None:
        with suppress(OSError):  # it has ended in the meantime
            os.killpg(process.pid, signal.SIGINT) if os.name == "posix" else process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.side_by_side", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=max(2, CORES // 2), help="stages at a time (%(default)s)")
    if parser.parse_args().jobs < 1:
        parser.error("--jobs: give a whole number from 1 up")
    run_command(parser, main)
