"""What a step took: `cost.json`, apart from the records of what it made, because no two runs take the same time."""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.base.files import read_json, write_json


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
        return cls(round(seconds, 3), round(images_per_second, 1), machine)


def write_cost(path: Path, cost: Cost) -> None:
    """Write the cost of a step."""
    write_json(path, asdict(cost))


def read_cost(path: Path) -> Cost:
    """Read a cost that a stage wrote."""
    return Cost(**read_json(path))
