"""Which stages run where, read from dvc.yaml and from the graph of DVC."""

from dataclasses import dataclass
from pathlib import Path

from stages.cluster.snapshot import ask_dvc
from stages.core.stage_graph import StageGraph
from stages.core.yaml import read_yaml

NEURAL_NETWORKS = {"train", "features", "head", "fine_tune"}  # the groups of stages that use a GPU


@dataclass(frozen=True)
class Plan:
    """The stages that run in the project folder, and what the others read.

    first: stages that keep earlier outputs, which DVC's run-cache does not restore, and those that they depend on. They
        run before the others, unless all stages run in the project folder.
    last: stages whose outputs are in git, and those that depend on them.
    files: what the others read and no stage writes: their code.
    """

    graph: StageGraph
    first: set[str]
    last: set[str]
    files: list[str]


def read_plan() -> Plan:
    """Read the plan of the project in the working folder."""
    graph = StageGraph.from_dot(ask_dvc("dag", "--dot"))
    groups = {name: group.get("do", group) for name, group in read_yaml(Path("dvc.yaml"))["stages"].items()}
    last = graph.with_dependents(_stages_with(graph, groups, "cache", False))
    first = graph.with_dependencies(_stages_with(graph, groups, "persist", True)) - last
    others = {stage.partition("@")[0] for stage in graph.dependencies.keys() - first - last}
    files = {dep for name in others & groups.keys() for dep in groups[name].get("deps", []) if "${" not in dep}
    return Plan(graph, first, last, sorted({"dvc.yaml", ".dvc/config", *files} - {"params.yaml"}))


def _stages_with(graph: StageGraph, groups: dict[str, dict], option: str, value: bool) -> list[str]:
    """The stages that have an output with this option."""

    def outputs(group: dict) -> list:
        return [output for kind in ("outs", "metrics", "plots") for output in group.get(kind, [])]

    having = {
        name
        for name, group in groups.items()
        for output in outputs(group)
        if isinstance(output, dict) and next(iter(output.values())).get(option) is value
    }
    return [stage for stage in graph.dependencies if stage.partition("@")[0] in having]
