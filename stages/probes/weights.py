"""The weights file of a linear probe: an HDF5 file that needs no deep-learning framework."""

import io
from dataclasses import dataclass
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


def write_probe(path: Path, weights: ProbeWeights) -> None:
    """Write the weights of a probe; equal weights give equal bytes."""
    content = io.BytesIO()  # on a full disk HDF5 would end the process
    with h5py.File(content, "w") as file:
        for name, array in vars(weights).items():
            file.create_dataset(name, data=array, dtype=np.float32, track_times=False)
    path.write_bytes(content.getvalue())


def read_probe(path: Path) -> ProbeWeights:
    """Read the weights of a probe; `UserError` if the file is missing or damaged."""
    with reading(path), h5py.File(path, "r") as file:
        return ProbeWeights(**{name: file[name][:] for name in ("mean", "variance", "kernel", "bias")})
