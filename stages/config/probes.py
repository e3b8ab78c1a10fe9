"""Section `probes`."""

from typing import Annotated, Literal

from pydantic import Field

from stages.config.fields import LayerOrNull, PositiveOrNull, Reference
from stages.config.training import ModelConfig

Strength = Annotated[float, Field(gt=0)]


class ProbeConfig(ModelConfig):
    features: Reference
    cut: LayerOrNull = None
    kind: Literal["ridge"] = "ridge"
    views: PositiveOrNull = None
    l2: Strength | list[Strength] | None = None

    @property
    def strengths(self) -> list[float]:
        if self.l2 is None:
            return [10.0**power for power in range(-6, 3)]
        return self.l2 if isinstance(self.l2, list) else [self.l2]
