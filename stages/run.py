"""Runs the study on Ray, with independent stages in parallel: `python -m stages.run [--jobs N] [--address HOST:PORT]`.

Each stage that is out of date, and each that depends on one, runs as a `dvc repro --single-item` as soon as the stages
that it depends on have finished: on one machine in the project folder, on a cluster in a clone on one of the nodes. A
final `dvc repro` runs the rest: `evaluate`, which reads every model, and the stages after it.
"""

import argparse
import json
import re
import signal
from pathlib import Path
from types import ModuleType

from stages.cluster.node import Snapshot
from stages.cluster.plan import NEURAL_NETWORKS, Plan, read_plan
from stages.cluster.programs import dvc, run
from stages.cluster.scheduling import InClones, InProject, Request, check_address, connect, import_ray, run_stages
from stages.cluster.snapshot import ask_dvc, check_unchanged, take_snapshot
from stages.core.command import run_command
from stages.core.errors import UserError
from stages.core.stage_graph import CORES


def main(arguments: argparse.Namespace) -> int:
    catch_signals()
    ray, plan = import_ray(), read_plan()
    if not arguments.address:
        run_outdated(ray, plan, arguments, None)
        return run(dvc("repro"))[0]
    snapshot = take_snapshot(plan.files, arguments.clones)
    check_address(arguments.address)
    # Only the last of these stages: each name costs DVC time.
    needed = set().union(*(plan.graph.dependencies[stage] for stage in plan.first))
    if plan.first and (code := run(dvc("repro", *sorted(plan.first - needed)))[0]):
        return code
    run_outdated(ray, plan, arguments, snapshot)
    return run(dvc("repro", "--pull"))[0]


def catch_signals() -> None:
    """Let Ctrl-C and an end from outside interrupt this process.

    A shell that starts it in the background ignores SIGINT for it, and Ray handles SIGTERM in its own way.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def run_outdated(ray: ModuleType, plan: Plan, arguments: argparse.Namespace, snapshot: Snapshot | None) -> None:
    """Run the stages that are out of date and depend on no stage in `last`; raises `UserError` if one fails.

    snapshot: what the nodes of a cluster make their clones of; None to run in the project folder.
    """
    graph = plan.graph.without(plan.last | plan.first if snapshot else plan.last)
    outdated = graph.with_dependents(json.loads(ask_dvc("status", "--json")).keys() & graph.dependencies.keys())
    if not outdated:
        return
    inputs = set().union(*(graph.dependencies[stage] for stage in outdated)) - outdated
    if snapshot and inputs and run(dvc("push", "--quiet", "--run-cache", *sorted(inputs)))[0]:
        raise UserError("`dvc push` failed. See the message above.")
    try:
        nodes = connect(ray, arguments.address)
        catch_signals()
        cores = min(int(node["Resources"]["CPU"]) for node in nodes)
        gpus = arguments.gpus if any(node["Resources"].get("GPU") for node in nodes) else 0

        def request(stage: str) -> Request:
            uses_gpu = stage.partition("@")[0] in NEURAL_NETWORKS
            return Request(graph.threads(stage, arguments.jobs, cores), gpus if uses_gpu else 0)

        work = InClones(ray, snapshot, graph) if snapshot else InProject(ray)
        finished, failed = run_stages(ray, graph, outdated, work, request)
    finally:
        ray.shutdown()
    if snapshot:
        check_unchanged(snapshot, plan.files)
    if failed:
        if snapshot and finished:
            run(dvc("repro", "--quiet", "--pull", "--single-item", *finished))
        skipped = sorted(outdated - {*finished, *failed})
        consequence = f" and {', '.join(skipped)} did not run" if skipped else ""
        raise UserError(
            f"{', '.join(failed)} failed{consequence}. If no message above says why, run `dvc repro {failed[0]}`."
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.run", description=__doc__.splitlines()[0])
    jobs = "stages at a time, on each machine (%(default)s)"
    parser.add_argument("--jobs", type=int, default=max(2, CORES // 2), help=jobs)
    gpus = "GPUs of a stage that trains or computes features, if there are any; 0.5 lets two share one (%(default)g)"
    parser.add_argument("--gpus", type=float, default=1, help=gpus)
    parser.add_argument("--address", help="of a Ray cluster, such as 10.0.0.1:6379")
    clones = f"~/.cache/{Path.cwd().name}-clones"
    parser.add_argument("--clones", default=clones, help="folder of the clones on each node (%(default)s)")
    given = parser.parse_args()
    if given.address and not re.fullmatch(r".+:\d{1,5}", given.address):
        parser.error("--address: give the host and the port of the head of a Ray cluster, such as 10.0.0.1:6379")
    if given.jobs < 1:
        parser.error("--jobs: give a whole number from 1 up")
    if not (given.gpus > 0 and (given.gpus <= 1 or given.gpus.is_integer())):
        parser.error("--gpus: give a whole number, or a part of a GPU, such as 0.5")
    run_command(parser, main)
