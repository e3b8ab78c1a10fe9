"""Costs: the time it took to make features and models, in data/costs.

They are files of their own, because no two runs take the same time: a stage that depends on equal features or models
need not run again.
"""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.files import read_json, reading, write_json

COSTS_FOLDER = Path("data/costs")


@dataclass(frozen=True)
class Cost:
    """seconds: wall time of the step; of one repeat for a model. images_per_second: images computed over that time;
    for a model, training images times epochs."""

    seconds: float
    images_per_second: float
    machine: str

    @classmethod
    def measured(cls, seconds: float, images_per_second: float) -> "Cost":
        """A cost measured on this machine; its processor type and number of cores are noted."""
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        # Significant digits, because a large network on a slow machine takes seconds per image.
        return cls(round(seconds, 3), float(f"{images_per_second:.4g}"), machine)


def write_cost(kind: str, name: str, cost: Cost) -> None:
    """Write the cost of an entry; kind: `models` or `features`."""
    write_json(COSTS_FOLDER / kind / f"{name}.json", asdict(cost))


def read_cost(kind: str, name: str) -> Cost:
    """Read the cost of an entry; `UserError` if it is missing or damaged."""
    path = COSTS_FOLDER / kind / f"{name}.json"
    with reading(path):
        return Cost(**read_json(path))
