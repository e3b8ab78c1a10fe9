"""Running images through a backbone and writing its activations, in constant memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.artifacts.features import FeaturesRecord
from stages.backbones.inference import Inference
from stages.core.errors import UserError
from stages.core.prefetch import prefetch
from stages.core.progress import Progress

BATCH = 64


@dataclass
class FeaturesWriter:
    """Writes an array of features row by row. written: rows so far."""

    file: Path
    written: int = 0

    @classmethod
    def create(cls, folder: Path, record: FeaturesRecord, rows: int) -> "FeaturesWriter":
        """Create `features.npy` (rows, *shape) in the folder of the cut layer."""
        (folder / record.cut).mkdir()
        file = folder / record.cut / "features.npy"
        np.lib.format.open_memmap(file, mode="w+", dtype=record.storage, shape=(rows, *record.shape))
        return cls(file)

    def write(self, activations: np.ndarray) -> np.ndarray:
        """Write the next rows, (m, ...) float32, and return them as they are stored."""
        # Opened for these rows alone: what a memory map has touched would count as memory of the process.
        array = np.load(self.file, mmap_mode="r+", allow_pickle=False)
        with np.errstate(over="ignore"):
            stored = activations.astype(array.dtype)
        array[self.written : self.written + len(stored)] = stored
        self.written += len(stored)
        return stored


def extract(
    run: Inference,
    view: Callable[[np.ndarray], np.ndarray] | None,
    read: Callable[[np.ndarray], np.ndarray],
    index: np.ndarray,
    writers: list[FeaturesWriter],
    description: str,
) -> None:
    """Run images, or a view of them, through a network and write each of its outputs.

    view: changes images (m, h, w, 3) uint8; None leaves them as they are. read: from rows of the dataset (m,) to their
    pixels (m, h, w, 3) uint8; the next batch is read while the network runs. index: (n,) the rows to take.
    description: `features.<name>`, and the view. `UserError` if an activation does not fit the stored dtype.
    """
    batches = (read(index[start : start + BATCH]) for start in range(0, len(index), BATCH))
    with Progress(description, "image", len(index)) as progress:
        for pixels in prefetch(batches):
            for writer, activations in zip(writers, run(view(pixels) if view else pixels), strict=True):
                _check_finite(writer.write(activations), activations, description)
            progress.update(len(pixels))


def _check_finite(stored: np.ndarray, activations: np.ndarray, description: str) -> None:
    """Refuse activations that are not finite numbers in the stored dtype."""
    if np.isfinite(stored).all():
        return
    entry, largest = description.split(",")[0], np.abs(activations).max()
    if not np.isfinite(largest):
        raise UserError(
            f"{entry}.backbone: an activation is {largest}, so the weights are damaged or their training diverged. "
            "Train the backbone again, or give other weights."
        )
    raise UserError(f"{entry}.storage: an activation of {largest:g} does not fit {stored.dtype}. Set storage: float32.")
