"""The weights file of a probe: an HDF5 file that needs no deep-learning framework."""

import io
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np

from stages.core.files import reading


@dataclass(frozen=True)
class ProbeWeights:
    """A linear layer with softmax on standardized features, all float32.

    mean, variance: (c,) of every channel of the features (..., c). kernel: (d, classes) for the d flattened features.
    bias: (classes,).
    """

    mean: np.ndarray
    variance: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray

    @property
    def parameters(self) -> int:
        """The number of weights that were solved."""
        return self.kernel.size + self.bias.size

    @property
    def multiply_adds(self) -> int:
        """Of one image, from its features to the probabilities."""
        return self.kernel.size


@dataclass(frozen=True)
class NeighborWeights:
    """Training features that vote, all float32.

    mean, variance: (c,) of every channel of the features (..., c). unit: (n, d) standardized, flattened, of length 1.
    votes: (n, classes), see `Neighbors`. neighbors, scale: of the `NeighborsProbe`, (1,) each.
    """

    mean: np.ndarray
    variance: np.ndarray
    unit: np.ndarray
    votes: np.ndarray
    neighbors: np.ndarray
    scale: np.ndarray

    @property
    def parameters(self) -> int:
        """The number of values that are remembered."""
        return self.unit.size + self.votes.size

    @property
    def multiply_adds(self) -> int:
        """Of one image, from its features to the probabilities: similarities to all training rows, and votes."""
        return self.unit.size + int(self.neighbors[0]) * self.votes.shape[1]


def write_probe(path: Path, weights: ProbeWeights | NeighborWeights) -> None:
    """Write the weights of a probe; equal weights give equal bytes."""
    content = io.BytesIO()  # on a full disk HDF5 would end the process
    with h5py.File(content, "w") as file:
        for name, array in vars(weights).items():
            file.create_dataset(name, data=array, dtype=np.float32, track_times=False)
    path.write_bytes(content.getvalue())


def read_probe(path: Path) -> ProbeWeights | NeighborWeights:
    """Read the weights of a probe; `UserError` if the file is missing or damaged."""
    with reading(path), h5py.File(path, "r") as file:
        kind = NeighborWeights if "votes" in file else ProbeWeights
        return kind(**{field.name: file[field.name][:] for field in fields(kind)})
