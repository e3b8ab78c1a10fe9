"""How fast a probe predicts."""

from dataclasses import replace

import numpy as np

from stages.artifacts.costs import InferenceTime
from stages.core.measurement import BATCH, milliseconds_per_image
from stages.probes.linear import LinearProbe
from stages.probes.neighbors import NeighborsProbe
from stages.probes.standardization import StandardizedFeatures

# Of the seconds that a network is measured: NumPy compiles nothing, and hundreds of runs of a probe fit into this time.
SHARE = 0.1


def measure_inference(
    probe: LinearProbe | NeighborsProbe, features: StandardizedFeatures, rows: np.ndarray
) -> InferenceTime:
    """The time from features in memory to probabilities. rows: some rows of the features."""
    batch = features.array[np.resize(rows, BATCH)]

    def predict(values: np.ndarray) -> np.ndarray:
        return probe.probabilities(replace(features, array=values), np.arange(len(values)))

    return InferenceTime.measured(*milliseconds_per_image(predict, batch, SHARE))
