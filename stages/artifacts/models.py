"""What training a model left behind, in models/: read by evaluate and fine_tune, written by the training stages.

`models/<model>.weights.h5`, and in `models/<model>/`: `history.csv`, `predictions.npz`, `record.json`; of a head also
`map.npz`.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from stages.artifacts.costs import Cost, read_cost, write_cost
from stages.artifacts.tasks import SPLITS
from stages.core.files import atomic_directory, read_json, reading, write_json

MODELS_FOLDER = Path("models")
HISTORY_COLUMNS = ["repeat", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a model is made of.

    kind: network, head or fine-tune. weights_sha256: of the backbone's weights, None when they were random.
    cut, pooling: where a head joins the backbone, None in a network. parameters_below: weights of the backbone below a
    head that is stored by itself. features_precision: in which its features were computed, None without.
    """

    kind: str
    task: str
    backbone: str
    weights_sha256: str | None
    cut: str | None = None
    pooling: str | None = None
    parameters_below: int = 0
    features_precision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings of a head that were tried in its first repeat, and what became of them on the validation images.

    learning_rate: None for a head that is solved. validation_loss: of the weights it ended with, None where that is no
    finite number. chosen: whether it was the best of them.
    """

    learning_rate: float | None
    l2: float
    epochs: int
    validation_loss: float | None
    validation_accuracy: float
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class ModelRecord(Provenance):
    """What a model is: equal on every run.

    repeats: trainings from different seeds. best_repeat: the one, from 0, whose weights are stored: that of the lowest
    validation loss. epochs: passes of each repeat. trained_parameters, total_parameters: weights that training changed,
    and all from the image to the probabilities. candidates: settings that were tried, where there was a choice.
    """

    train_images: int
    repeats: int
    best_repeat: int
    epochs: list[int]
    trained_parameters: int
    total_parameters: int
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True)
class Predictions:
    """Predictions of one split.

    index: (n,) int64 rows of the dataset. probabilities: (repeats, n, classes) float32.
    """

    index: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class PcaProjection:
    """Where images lie in the plane of the two principal components of a head's features.

    index: (n,) int64 rows of the dataset. points: (n, 2) float32. shares: (2,) of the variance that each explains.
    """

    index: np.ndarray
    points: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True)
class ModelResult:
    """Everything evaluate reads of a model; history has one row an epoch of each repeat, only a head has a map."""

    record: ModelRecord
    cost: Cost
    history: pd.DataFrame
    predictions: dict[str, Predictions]
    feature_map: PcaProjection | None = None


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats, not finite where a probability is not.

    probabilities: (n, classes) float32, clipped at 1e-7 as Keras does; labels: (n,) int.
    """
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(chosen, 1e-7)).mean())


def write_result(model: str, result: ModelResult) -> None:
    """Write all of a result but the weights."""
    with atomic_directory(MODELS_FOLDER / model) as folder:
        arrays = {}
        for split, found in result.predictions.items():
            arrays |= {f"{split}_index": found.index, f"{split}_probabilities": found.probabilities}
        np.savez(folder / "predictions.npz", **arrays)
        if result.feature_map:
            np.savez(folder / "map.npz", **vars(result.feature_map))
        result.history.to_csv(folder / "history.csv", index=False, lineterminator="\n")
        write_json(folder / "record.json", asdict(result.record))
    write_cost("models", model, result.cost)


def read_model_record(model: str) -> ModelRecord:
    """The record of a model; `UserError` when it is missing or damaged."""
    path = MODELS_FOLDER / model / "record.json"
    with reading(path):
        record = read_json(path)
        candidates = [Candidate(**each) for each in record.pop("candidates")]
        return ModelRecord(**record, candidates=candidates)


def read_result(model: str) -> ModelResult:
    """Read all of a result but the weights; `UserError` when a part is missing or damaged."""
    folder = MODELS_FOLDER / model
    record, cost = read_model_record(model), read_cost("models", model)
    with reading(folder):
        history = pd.read_csv(folder / "history.csv", usecols=HISTORY_COLUMNS)
        if len(history) != sum(record.epochs):
            raise ValueError(f"history.csv has {len(history)} epochs, the record {sum(record.epochs)}")
        with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
            predictions = {
                split: Predictions(arrays[f"{split}_index"], arrays[f"{split}_probabilities"]) for split in SPLITS
            }
        feature_map = None
        if record.kind == "head":
            with np.load(folder / "map.npz", allow_pickle=False) as arrays:
                feature_map = PcaProjection(**arrays)
        return ModelResult(record, cost, history, predictions, feature_map)
