"""Gives stages to Ray, each as soon as the stages that it depends on have finished."""

import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import stages.cluster
from stages.cluster.node import Outcome, Snapshot, run_in_clone, run_in_project
from stages.core.errors import UserError
from stages.core.stage_graph import CORES, StageGraph
from stages.core.wording import counted
from stages.core.yaml import parse_yaml, read_yaml

ATTEMPTS_AFTER_LOSS = 10  # of a stage whose worker was killed or whose node was lost; Ray starts them
DISK_FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]
POLLING_SECONDS = 1
ENDING_SECONDS = 30  # that stages have to end after an interruption
CONNECTION_SECONDS = 10
SMALLEST_STORE = 80 * 2**20  # bytes of shared memory for Ray's objects; stages exchange files instead


@dataclass(frozen=True)
class Request:
    """What a stage asks Ray for: whole processor cores, which are also its threads, and GPUs or a part of one."""

    cores: int
    gpus: float

    def fits(self, node: dict) -> bool:
        """Whether a node of `ray.nodes()` can ever run the stage."""
        has = node["Resources"]
        return node["Alive"] and has.get("CPU", 0) >= self.cores and has.get("GPU", 0) >= self.gpus

    def settings(self) -> dict[str, str]:
        """Environment variables of the stage. The number of threads can be set in the environment instead."""
        threads = {
            name: os.environ.get(name, str(self.cores))
            for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
        }
        return {**threads, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # stages may share a GPU


def import_ray() -> ModuleType:
    """Import Ray, or say how to install it."""
    if os.name != "posix":
        raise UserError("this command needs Linux or macOS; on Windows, run it inside WSL2, or run `dvc repro`.")
    # Read by Ray when it is imported or started: report no usage, and print every line of the stages.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            "this command needs Ray: run `pip install -r requirements.txt -r requirements-ray.txt`. `dvc repro` runs "
            "the study without it."
        ) from None
    ray.cloudpickle.register_pickle_by_value(stages.cluster)  # nodes may have no copy of this code
    return ray


def check_address(address: str) -> None:
    """Raise `UserError` if nothing answers at this address: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECTION_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise _cannot_join(address, error) from None


def connect(ray: ModuleType, address: str | None) -> list[dict]:
    """Join the cluster at this address, or start Ray on this machine; return the nodes that can run stages."""
    # "local": not a cluster that runs on this machine, or whose files are left from an earlier one.
    own = {"num_cpus": CORES, "include_dashboard": False, "object_store_memory": SMALLEST_STORE}
    try:
        ray.init(address or "local", logging_level="ERROR", **({} if address else own))
    except (OSError, RuntimeError, ValueError) as error:
        raise _cannot_join(address, error) from None
    nodes = [node for node in ray.nodes() if Request(1, 0).fits(node)]
    if not nodes:
        raise UserError(f"--address: no node of the Ray cluster at {address!r} has a processor core for stages.")
    return nodes


def _cannot_join(address: str | None, error: Exception) -> UserError:
    what = f"--address: cannot join the Ray cluster at {address!r}" if address else "Ray did not start"
    return UserError(f"{what}: {(str(error).strip() or type(error).__name__).splitlines()[0]}")


class InProject:
    """Stages run in the project folder."""

    def __init__(self, ray: ModuleType):
        self.task, self.folder = ray.remote(run_in_project), str(Path.cwd())

    def arguments(self, stage: str) -> list:
        """The arguments of the task, but for the settings."""
        return [self.folder, stage]

    def accept(self, stage: str, outcome: Outcome) -> None:
        """Take the result: DVC has written it to the project."""


class InClones:
    """Stages run in clones on the nodes of the cluster; only this process knows all their results."""

    def __init__(self, ray: ModuleType, snapshot: Snapshot, graph: StageGraph):
        self.task, self.snapshot, self.graph = ray.remote(run_in_clone), ray.put(snapshot), graph
        self.lock = read_yaml(Path("dvc.lock")) if Path("dvc.lock").exists() else {"schema": "2.0", "stages": {}}

    def arguments(self, stage: str) -> list:
        """The arguments of the task, but for the settings."""
        inputs = sorted(self.graph.dependencies[stage])
        known = {name: self.lock["stages"][name] for name in (stage, *inputs) if name in self.lock["stages"]}
        return [self.snapshot, stage, inputs, json.dumps({**self.lock, "stages": known}, default=str)]

    def accept(self, stage: str, outcome: Outcome) -> None:
        """Take the result: the entry of dvc.lock, which later stages need."""
        self.lock["stages"][stage] = parse_yaml(outcome.lock)["stages"][stage]


def run_stages(
    ray: ModuleType,
    graph: StageGraph,
    outdated: set[str],
    work: InProject | InClones,
    request: Callable[[str], Request],
) -> tuple[list[str], list[str]]:
    """Run the outdated stages; return those that finished and those that failed. Others depend on failed ones.

    A stage whose worker or node is lost starts again, by Ray. One that finds the disk of its node full starts again on
    another node.
    """
    order = TopologicalSorter(
        {stage: graph.dependencies[stage] & outdated for stage in graph.dependencies if stage in outdated}
    )
    order.prepare()
    running, finished, failed, full = {}, [], [], set()
    ready = list(order.get_ready())
    try:
        while ready or running:
            for stage in ready:
                avoided = frozenset(full if _nodes(ray, request(stage), full) else ())
                running[_submit(work, stage, request(stage), avoided)] = stage, avoided
            ready = []
            for task in ray.wait(list(running), timeout=POLLING_SECONDS)[0]:
                stage, _ = running.pop(task)
                outcome = _outcome(ray, task)
                if not outcome.problem:
                    work.accept(stage, outcome)
                    finished.append(stage)
                    order.done(stage)
                    ready += order.get_ready()
                    print(f"Finished stage '{stage}', {len(finished)} of {len(outdated)}", flush=True)
                elif _disk_is_full(outcome) and _nodes(ray, request(stage), full | {outcome.node}):
                    full.add(outcome.node)
                    ready.append(stage)
                    print(f"A disk is full: stage '{stage}' moves from node {outcome.node} to another.", flush=True)
                else:
                    failed.append(stage)
                    print(outcome.problem, end="", file=sys.stderr, flush=True)
            for stage, avoided in running.values():
                _check_that_a_node_is_left(ray, stage, request(stage), avoided)
        return finished, failed
    finally:
        for task in running:
            ray.cancel(task)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=ENDING_SECONDS)


def _submit(work: InProject | InClones, stage: str, needs: Request, avoided: frozenset[str]) -> object:
    options = {"name": stage, "num_cpus": needs.cores, "num_gpus": needs.gpus, "max_retries": ATTEMPTS_AFTER_LOSS}
    if avoided:
        options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(avoided))})"}
    return work.task.options(**options).remote(*work.arguments(stage), needs.settings())


def _check_that_a_node_is_left(ray: ModuleType, stage: str, needs: Request, avoided: frozenset[str]) -> None:
    """Raise `UserError` if no node can run the stage: Ray would wait for one."""
    if not _nodes(ray, needs, avoided):
        gpus = f" and {needs.gpus:g} GPUs" if needs.gpus else ""
        raise UserError(
            f"no node of the cluster can run {stage}, which asks for {counted(needs.cores, 'processor core')}{gpus}: "
            "nodes were lost, or their disks are full. Start nodes, then run this command again."
        )


def _outcome(ray: ModuleType, task: object) -> Outcome:
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        return Outcome("", f"Ray could not finish a stage: {str(error).splitlines()[0]}\n")


def _disk_is_full(outcome: Outcome) -> bool:
    return bool(outcome.node) and any(sentence in outcome.problem for sentence in DISK_FULL)


def _nodes(ray: ModuleType, needs: Request, avoided: set[str] | frozenset[str]) -> list[dict]:
    return [node for node in ray.nodes() if needs.fits(node) and node["NodeID"] not in avoided]
