"""The graph of the pipeline's stages, and how many threads a stage gets beside others."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class StageGraph:
    """The dependency graph of the pipeline.

    dependencies: stage -> the stages that it depends on directly.
    """

    dependencies: dict[str, set[str]]

    @classmethod
    def from_dot(cls, dot: str) -> "StageGraph":
        """Parse the graph that `dvc dag --dot` prints."""
        dependencies = {stage: set() for stage in re.findall(r'"([^"]+)"', dot)}
        for dependency, stage in re.findall(r'"([^"]+)" -> "([^"]+)"', dot):
            dependencies[stage].add(dependency)
        return cls(dependencies)

    def with_dependents(self, stages: Iterable[str]) -> set[str]:
        """Return the stages and every stage that depends on them, directly or not."""
        reached = set(stages)
        while new := {stage for stage, below in self.dependencies.items() if below & reached} - reached:
            reached |= new
        return reached

    def with_dependencies(self, stages: Iterable[str]) -> set[str]:
        """Return the stages and every stage that they depend on, directly or not."""
        reached = set(stages)
        while new := set().union(*(self.dependencies[stage] for stage in reached)) - reached:
            reached |= new
        return reached

    def without(self, stages: set[str]) -> "StageGraph":
        """Return the graph without these stages."""
        return StageGraph({stage: below for stage, below in self.dependencies.items() if stage not in stages})

    def threads(self, stage: str, jobs: int, cores: int) -> int:
        """Return the number of threads for a stage: the cores, divided among the stages that can run beside it.

        The number depends on the graph only, not on what happens to run: the last digits of weights depend on the
        number of threads, and must not depend on how long other stages take or on what has run before.
        """
        independent = [
            candidate
            for candidate in self.dependencies
            if candidate not in self.with_dependents([stage]) and stage not in self.with_dependents([candidate])
        ]
        return max(1, cores // min(jobs, len(independent) + 1))
