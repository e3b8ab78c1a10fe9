"""What a training that is killed goes on from, in data/checkpoints/<model>.

DVC deletes the outputs of a stage before it runs; so this is no output. It is removed when the model is there.
"""

import hashlib
import json
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.core.files import atomic_file, write_text

CHECKPOINTS_FOLDER = Path("data/checkpoints")
CODE = Path(__file__).parents[1]
MOST_OF_THE_TIME = 0.1  # that saving may take


class Checkpoints:
    """The saved states of one model in training: named, each a dict of numbers and lists with arrays beside it.

    fingerprint: everything the training depends on, as JSON; states of another training, or of other code, are dropped.
    """

    def __init__(self, model: str, fingerprint: Any):
        self.folder = CHECKPOINTS_FOLDER / model
        self.last, self.took = time.perf_counter(), 0.0
        code = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(CODE.rglob("*.py"))]
        mark = hashlib.sha256(json.dumps([fingerprint, code, keras.__version__]).encode()).hexdigest()
        file = self.folder / "made-of"
        if not file.exists() or file.read_text(encoding="utf-8") != mark:
            remove_checkpoints(model)
            write_text(file, mark)

    def due(self) -> bool:
        """Whether so much time has passed since the last save that another adds at most a tenth to the training."""
        return time.perf_counter() - self.last >= self.took / MOST_OF_THE_TIME

    def save(self, name: str, state: dict[str, Any], arrays: dict[str, list[np.ndarray]]) -> None:
        """Save a state in place of the one of this name."""
        start = time.perf_counter()
        flat = {f"{key}-{place}": array for key, of_key in arrays.items() for place, array in enumerate(of_key)}
        text = json.dumps({"state": state, "counts": {key: len(of_key) for key, of_key in arrays.items()}})
        with atomic_file(self.folder / f"{name}.npz") as partial:
            np.savez(partial, state=np.array(text), **flat)
        self.last = time.perf_counter()
        self.took = self.last - start

    def load(self, name: str) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]] | None:
        """The state saved under a name, or None; a damaged one counts as none, because training can begin again."""
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
                content = json.loads(str(file["state"]))
                counts = content["counts"].items()
                arrays = {key: [file[f"{key}-{place}"] for place in range(count)] for key, count in counts}
                return content["state"], arrays
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def drop(self, name: str) -> None:
        """Remove the state saved under a name, where there is one."""
        (self.folder / f"{name}.npz").unlink(missing_ok=True)


def remove_checkpoints(model: str) -> None:
    """Remove everything that was saved of a model."""
    shutil.rmtree(CHECKPOINTS_FOLDER / model, ignore_errors=True)
