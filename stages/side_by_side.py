"""Runs the study with stages side by side that do not build on each other: `python -m stages.side_by_side [--jobs N]`.

Each stage that `dvc status` calls changed, and each that builds on one, is a `dvc repro --single-item`, started when
all it builds on is done. A `dvc repro` then does the rest: `evaluate`, which reads every model, and what follows it.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from graphlib import TopologicalSorter

from stages.core.command import run_command
from stages.core.errors import UserError
from stages.validation.study import Study

# They write dvc.lock one after another; without the option, one that waits for three seconds gives up.
DVC = [sys.executable, "-m", "dvc", "--wait-for-lock"]
LAST = "evaluate"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Graph = dict[str, set[str]]  # of each stage, those it builds on


def main(_: Study, given: argparse.Namespace) -> int:
    # SIGINT too: where a shell has started this in the background, it is ignored, also by all that is started here.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)
    running = {}
    try:
        below = graph_of(ask("dag", "--dot"))
        after = above(below, [LAST])
        below = {stage: lower for stage, lower in below.items() if stage not in after}
        run(below, above(below, json.loads(ask("status", "--json")).keys() - after), given.jobs, running)
        running["all"] = subprocess.Popen([*DVC, "repro"], start_new_session=True)
        return running["all"].wait()
    finally:
        for process in running.values():
            interrupt(process)
        for process in running.values():
            process.wait()


def ask(*question: str) -> str:
    """What DVC answers; it says itself what keeps it from answering."""
    done = subprocess.run([*DVC, *question], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(question)}` failed, see above.")
    return done.stdout


def graph_of(dot: str) -> Graph:
    """The graph of the stages as `dvc dag --dot` prints it."""
    below = {stage: set() for stage in re.findall(r'"([^"]+)"', dot)}
    for lower, upper in re.findall(r'"([^"]+)" -> "([^"]+)"', dot):
        below[upper].add(lower)
    return below


def above(below: Graph, stages: Iterable[str]) -> set[str]:
    """Stages, and all that builds on them."""
    found = set(stages)
    while more := {stage for stage, lower in below.items() if lower & found} - found:
        found |= more
    return found


def threads_of(stage: str, below: Graph, jobs: int) -> int:
    """The cores, shared with the stages that could run at the same time.

    Not with those that happen to: the last digits of weights depend on the number of threads, and should not depend on
    how long other stages take, or on what was done before.
    """
    beside = [other for other in below if other not in above(below, [stage]) and stage not in above(below, [other])]
    return max(1, CORES // min(jobs, len(beside) + 1))


def run(below: Graph, changed: set[str], jobs: int, running: dict[str, subprocess.Popen]) -> None:
    """Run the changed stages of a graph; where some fail, those that do not build on them, and then `UserError`."""
    order = TopologicalSorter({stage: below[stage] & changed for stage in below if stage in changed})
    order.prepare()
    ready, failed = list(order.get_ready()), []
    while ready or running:
        while ready and len(running) < jobs:
            stage = ready.pop(0)
            print(f"Starting stage '{stage}'", flush=True)
            running[stage] = start(stage, threads_of(stage, below, jobs))
        time.sleep(0.05)
        for stage in [stage for stage, process in running.items() if process.poll() is not None]:
            if running.pop(stage).returncode:
                failed.append(stage)
            else:
                order.done(stage)
                ready += order.get_ready()
    if failed:
        skipped = ", ".join(sorted(above(below, failed) - set(failed)))
        raise UserError(
            f"{', '.join(failed)} failed{f', so that {skipped} did not run' if skipped else ''}; where nothing above "
            f"says why, `dvc repro {failed[0]}` does."
        )


def start(stage: str, threads: int) -> subprocess.Popen:
    """Start one stage with so many threads; settings that are in the environment already stay."""
    settings = {
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),  # of NumPy and SciPy
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # else the first takes the whole memory of a GPU
    }
    command = [*DVC, "repro", "--quiet", "--single-item", stage]
    # In a session of its own it is interrupted together with what it has started: while a stage runs, DVC ignores it.
    return subprocess.Popen(command, env={**settings, **os.environ}, stdin=subprocess.DEVNULL, start_new_session=True)


def interrupt(process: subprocess.Popen) -> None:
    """What Ctrl-C does, to a process and all it has started."""
    if process.poll() is None:
        with suppress(OSError):  # it has just ended
            os.killpg(process.pid, signal.SIGINT) if os.name == "posix" else process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.side_by_side", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=max(2, CORES // 2), help="stages at a time (%(default)s)")
    if parser.parse_args().jobs < 1:
        parser.error("--jobs: give a whole number from 1 up")
    run_command(parser, main)
