"""Measured costs of features and models, in data/costs: time and memory.

They are files of their own, because no two runs take the same time: a stage that depends on equal features or models
need not run again.
"""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import pydantic

from stages.core.files import reading, write_json
from stages.core.wording import counted

COSTS_FOLDER = Path("data/costs")


@dataclass(frozen=True)
class InferenceTime:
    """Milliseconds per image: single: of one image at a time; batched: of an image in a batch of 32."""

    single: float
    batched: float

    @classmethod
    def measured(cls, single: float, batched: float) -> "InferenceTime":
        """Milliseconds of this machine with four significant digits."""
        return cls(_significant(single), _significant(batched))


@dataclass(frozen=True)
class Cost:
    """What a model cost on one machine.

    seconds: wall time of one repeat. images_per_second: training images times epochs over that time. machine: its
    processor type and number of cores. peak_memory: MB that the process used at most up to the end of the training, or
    of the GPU's memory where one trained; None if unknown. inference: of the model as it is used, from pixels to
    probabilities; of a head or a probe only of its own layers, without the backbone below.
    """

    seconds: float
    images_per_second: float
    machine: str
    peak_memory: float | None
    inference: InferenceTime

    @classmethod
    def measured(
        cls, seconds: float, images_per_second: float, peak_memory: float | None, inference: InferenceTime
    ) -> "Cost":
        """A cost measured on this machine."""
        memory = None if peak_memory is None else round(peak_memory)
        return cls(round(seconds, 3), _significant(images_per_second), machine_name(), memory, inference)


@dataclass(frozen=True)
class FeaturesCost:
    """What features cost on one machine; see `Cost`.

    images_per_second: images computed over the seconds. inference: of each cut layer that of the backbone up to it.
    """

    seconds: float
    images_per_second: float
    machine: str
    inference: dict[str, InferenceTime]

    @classmethod
    def measured(cls, seconds: float, images_per_second: float, inference: dict[str, InferenceTime]) -> "FeaturesCost":
        """A cost measured on this machine."""
        return cls(round(seconds, 3), _significant(images_per_second), machine_name(), inference)


def machine_name() -> str:
    """This machine: its processor type and number of cores."""
    return f"{platform.machine()}, {counted(os.cpu_count() or 1, 'core')}"


def _significant(number: float) -> float:
    """A number with four significant digits, because a large network on a slow machine takes seconds per image."""
    return float(f"{number:.4g}")


def write_cost(kind: str, name: str, cost: Cost | FeaturesCost) -> None:
    """Write the cost of an entry; kind: `models` or `features`."""
    write_json(COSTS_FOLDER / kind / f"{name}.json", asdict(cost))


def read_model_cost(name: str) -> Cost:
    """Read the cost of a model; `UserError` if it is missing or damaged."""
    return _read("models", name, Cost)


def read_features_cost(name: str) -> FeaturesCost:
    """Read the cost of features; `UserError` if it is missing or damaged."""
    return _read("features", name, FeaturesCost)


def _read(kind: str, name: str, cost: type) -> Cost | FeaturesCost:
    path = COSTS_FOLDER / kind / f"{name}.json"
    with reading(path):
        return pydantic.TypeAdapter(cost).validate_json(path.read_bytes())
