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


def write_cost(path: Path, seconds: float, images_per_second: float) -> None:
    """Write the cost of a step on this machine."""
    write_json(path, asdict(Cost(round(seconds, 3), round(images_per_second, 1), this_machine())))


def this_machine() -> str:
    """Processor type and number of cores."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


def read_cost(path: Path) -> Cost:
    """Read a cost that a stage wrote."""
    return Cost(**read_json(path))
