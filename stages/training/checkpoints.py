"""The states from which a killed training resumes, in data/checkpoints/<model>.

DVC deletes the outputs of a stage before the stage runs, so this folder is not an output. A stage removes it after it
has written the model.
"""

import hashlib
import json
import shutil
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.artifacts.models import CHECKPOINTS_FOLDER
from stages.core.files import atomic_file, write_text

SHARE_OF_TIME = 0.1  # of the training, that saving may take

State = dict[str, Any]
Arrays = dict[str, list[np.ndarray]]


class Checkpoints:
    """The saved states of one model in training: named dicts of numbers and lists, with arrays.

    fingerprint: everything that the training depends on, as JSON. States of another training, or of other code, are
    dropped.
    """

    def __init__(self, model: str, fingerprint: Any):
        self.folder = CHECKPOINTS_FOLDER / model
        self.saved_at, self.save_seconds = time.perf_counter(), 0.0
        checksum = hashlib.sha256(json.dumps([fingerprint, code_checksums(), keras.__version__]).encode()).hexdigest()
        file = self.folder / "fingerprint"
        if not file.exists() or file.read_text(encoding="utf-8") != checksum:
            remove_checkpoints(model)
            write_text(file, checksum)

    def due(self) -> bool:
        """Whether another save would keep the time of saving below a tenth of the training."""
        return time.perf_counter() - self.saved_at >= self.save_seconds / SHARE_OF_TIME

    def save(self, name: str, state: State, arrays: Arrays) -> None:
        """Save a state; it replaces the state of the same name."""
        start = time.perf_counter()
        flat = {f"{key}-{number}": array for key, values in arrays.items() for number, array in enumerate(values)}
        text = json.dumps({"state": state, "counts": {key: len(values) for key, values in arrays.items()}})
        with atomic_file(self.folder / f"{name}.npz") as partial:
            np.savez(partial, state=np.array(text), **flat)
        self.saved_at = time.perf_counter()
        self.save_seconds = self.saved_at - start

    def load(self, name: str) -> tuple[State, Arrays] | None:
        """The state with this name. None if it does not exist or is damaged: training can start again."""
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
                content = json.loads(str(file["state"]))
                counts = content["counts"].items()
                arrays = {key: [file[f"{key}-{number}"] for number in range(count)] for key, count in counts}
                return content["state"], arrays
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def drop(self, pattern: str) -> None:
        """Remove the states whose names match a glob pattern."""
        for file in self.folder.glob(f"{pattern}.npz"):
            file.unlink()


@dataclass(frozen=True)
class CheckpointSlot:
    """One named state among the checkpoints of a model: that of one training in progress."""

    checkpoints: Checkpoints
    name: str

    def part(self, number: int) -> "CheckpointSlot":
        """The slot of one of several models that are trained one after another."""
        return CheckpointSlot(self.checkpoints, f"{self.name}-{number}")

    def due(self) -> bool:
        """See `Checkpoints.due`."""
        return self.checkpoints.due()

    def save(self, state: State, arrays: Arrays) -> None:
        """See `Checkpoints.save`."""
        self.checkpoints.save(self.name, state, arrays)

    def load(self) -> tuple[State, Arrays] | None:
        """See `Checkpoints.load`."""
        return self.checkpoints.load(self.name)


def code_checksums() -> list[str]:
    """Checksums of the files of the project that this process has imported; other files cannot change a training."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("stages.")]
    files = sorted({module.__file__ for module in modules if getattr(module, "__file__", None)})
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]


def remove_checkpoints(model: str) -> None:
    """Remove all saved states of a model."""
    shutil.rmtree(CHECKPOINTS_FOLDER / model, ignore_errors=True)
