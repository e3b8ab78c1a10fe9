"""Trained models, in models/<model>: a folder that holds all that is needed to rebuild, use and evaluate a model.

`weights/repeat-<number>.weights.h5` of every repeat; `record.json`, which describes the model; `history.csv`;
`predictions.npz`; of a head or a probe also `pca.npz`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic

from stages.artifacts.costs import Cost, read_model_cost, write_cost
from stages.artifacts.features import FeaturesRecord
from stages.artifacts.tasks import SPLITS, Task
from stages.core.files import atomic_directory, reading, sha256_of, write_json
from stages.core.wording import counted

MODELS_FOLDER = Path("models")
CHECKPOINTS_FOLDER = Path("data/checkpoints")  # of trainings that have not finished
HISTORY_COLUMNS = ["repeat", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings of a model that were tried in its first repeat, and their result on the validation images.

    learning_rate: None for a probe. l2: None for nearest neighbors, which have `neighbors` instead. validation_loss: of
    the weights that training ended with, None if it is not finite. chosen: whether it was the best.
    """

    learning_rate: float | None
    l2: float | None
    epochs: int
    validation_loss: float | None
    validation_accuracy: float
    chosen: bool
    neighbors: int | None = None


@dataclass(frozen=True, kw_only=True)
class HeadProvenance:
    """The head, or the probe, that a fine-tune starts from.

    kind: head or probe. settings: its entry. features: what it was trained on. folds, best_repeat, weights_sha256: of
    its repeats, as in `ModelRecord`. A fine-tune's repeat starts from the repeat of the same number.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    features: FeaturesRecord
    folds: list[int]
    best_repeat: int
    weights_sha256: list[str]

    @classmethod
    def of(cls, record: "ModelRecord") -> "HeadProvenance":
        """That of a trained head or probe."""
        return cls(
            name=record.name,
            kind=record.kind,
            settings=record.settings,
            features=record.provenance.features,
            folds=record.folds,
            best_repeat=record.best_repeat,
            weights_sha256=record.weights_sha256,
        )


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a model was made from.

    images_sha256: of the prepared images. task_settings: what the split was made by. backbone, architecture,
    backbone_sha256: the backbone and its weights file, None if they were random. cut, pooling: where the head joins
    the backbone; of several cut layers the highest. lowest_trained_layer: of the backbone, None if the whole backbone
    is frozen. features: what a head or a probe was trained on; of a fine-tune, the features that training started from,
    None if it started from images. head: of a fine-tune. preset: of a backbone of KerasHub, see `WeightsRecord`.
    """

    images_sha256: str
    task_settings: dict[str, Any]
    backbone: str
    architecture: str
    backbone_sha256: str | None
    cut: str
    pooling: str
    lowest_trained_layer: str | None
    features: FeaturesRecord | None = None
    head: HeadProvenance | None = None
    preset: dict[str, Any] | None = None

    @property
    def cuts(self) -> list[str]:
        """The cut layers, lowest first: more than one of a probe that joins them."""
        return [*(self.features.joined if self.features else []), self.cut]

    @classmethod
    def on_features(cls, task: Task, features: FeaturesRecord) -> "Provenance":
        """That of a head or a probe, which trains no layer of the backbone."""
        return cls(
            images_sha256=task.images_sha256,
            task_settings=task.settings,
            backbone=features.backbone,
            architecture=features.architecture,
            backbone_sha256=features.weights_sha256,
            cut=features.cut,
            pooling=features.pooling,
            lowest_trained_layer=None,
            features=features,
            preset=features.preset,
        )


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """All that is needed to rebuild and use a model, and what it was made from; equal on every run.

    kind: network, head, probe or fine-tune. task, dataset: entries of the study. classes: names in the order of the
    probabilities. image_size: side of the images in pixels; resize: how they are made square.
    settings: the entry of the model with its defaults. training: the training settings, of several candidates the
    chosen one; for a probe, those that decide which images it is solved on and their weights. seed: of the study.
    repeats: trainings from different seeds. folds: the validation part that each held out. best_repeat: the one, from
    0, that is used and exported; see `best_repeat` in training/repeats.py. train_images: how many it was trained on.
    epochs: of each repeat. trained_parameters, total_parameters: weights that training changed, and all from the image
    to the probabilities. candidates: settings that were tried, if there was a choice. multiply_adds: of one image, from
    its pixels to the probabilities. training_multiply_adds: of one repeat of this model alone, without what it is built
    on; with several candidates the mean over the repeats, of which the first trains all of them. temperature: by which
    logits are divided when the model is used; the stored predictions are without it. batch_statistics_gap: accuracy on
    training images with the statistics of training batches minus that in inference, the largest of all repeats; None if
    no batch normalization was trained. weights_sha256: of the weights file of each repeat; `write_model` fills it in.
    bits: of 16-bit gray images, see `PreparedImages`.
    """

    name: str
    kind: str
    task: str
    dataset: str
    classes: list[str]
    image_size: int
    resize: str
    settings: dict[str, Any]
    training: dict[str, Any]
    seed: int
    provenance: Provenance
    repeats: int
    folds: list[int]
    best_repeat: int
    train_images: int
    epochs: list[int]
    trained_parameters: int
    total_parameters: int
    multiply_adds: int
    training_multiply_adds: int
    temperature: float
    candidates: list[Candidate] = field(default_factory=list)
    batch_statistics_gap: float | None = None
    weights_sha256: list[str] = field(default_factory=list)
    bits: int | None = None

    @property
    def precisions(self) -> tuple[str, str]:
        """Those in which it was trained: below its head, if that has cached features, and above."""
        above = self.training.get("precision", "float32")
        return (self.provenance.features.precision if self.kind in ("head", "probe") else above), above

    @property
    def l2(self) -> float:
        """The strength of the penalty that training used, of several candidates the chosen one; 0 for a probe."""
        if self.kind == "probe":
            return 0.0
        chosen = [candidate.l2 for candidate in self.candidates if candidate.chosen]
        return chosen[0] if chosen else np.ravel(self.settings.get("l2") or 0.0)[0]


@dataclass(frozen=True)
class Predictions:
    """Predictions of one split. Repeats that hold out different folds predict different validation and train images.

    index: (n,) int64 rows of the dataset, ascending: all images that a repeat predicts. predicts: (repeats, n) bool,
    whether a repeat predicts an image. probabilities: (repeats, n, classes) float32, NaN where it does not.
    """

    index: np.ndarray
    predicts: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of_repeats(cls, indices: list[np.ndarray], probabilities: list[np.ndarray]) -> "Predictions":
        """Join the predictions of repeats: of each its rows of the dataset (m,), and probabilities (m, classes)."""
        union = np.unique(np.concatenate(indices))
        predicts = np.stack([np.isin(union, index) for index in indices])
        joined = np.full((*predicts.shape, probabilities[0].shape[1]), np.nan, np.float32)
        for repeat, (index, values) in enumerate(zip(indices, probabilities, strict=True)):
            joined[repeat, np.searchsorted(union, index)] = values
        return cls(union, predicts, joined)

    def of_repeat(self, repeat: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the dataset (m,) that a repeat predicts, and its probabilities (m, classes)."""
        rows = self.predicts[repeat]
        return self.index[rows], self.probabilities[repeat, rows]


@dataclass(frozen=True)
class PcaProjection:
    """Validation images in the plane of the first two principal components of the features of a head or a probe.

    index: (n,) int64 rows of the dataset. points: (n, 2) float32. shares: (2,) of the variance that each explains.
    """

    index: np.ndarray
    points: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True)
class ModelResult:
    """Everything that evaluate reads of a model.

    history: one row per epoch of each repeat. pca: of a head or a probe only. soup: split -> the probabilities
    (n, classes) float32 of the averaged weights of all repeats, for the images of `predictions`; empty if they do not
    share a start, without validation if they hold out different images.
    """

    record: ModelRecord
    cost: Cost
    history: pd.DataFrame
    predictions: dict[str, Predictions]
    pca: PcaProjection | None = None
    soup: dict[str, np.ndarray] = field(default_factory=dict)


def cross_entropies(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy of each image in nats, (n,) float64, not finite where a probability is not.

    probabilities: (n, classes) float32, clipped at 1e-7 as Keras does; labels: (n,) int.
    """
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels].astype(np.float64), 1e-7))


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of `cross_entropies`."""
    return float(cross_entropies(probabilities, labels).mean())


def weights_file(model: str, repeat: int) -> Path:
    """The path of the weights of a repeat, from 0, of a model."""
    return MODELS_FOLDER / model / "weights" / f"repeat-{repeat}.weights.h5"


def stored_megabytes(record: ModelRecord) -> float:
    """The size in MB of the weights file of the repeat that is used; `UserError` if it is missing."""
    with reading(MODELS_FOLDER / record.name):
        return weights_file(record.name, record.best_repeat).stat().st_size / 1e6


def write_model(result: ModelResult, save_weights: Callable[[int, Path], None]) -> None:
    """Write models/<model>, whole or not at all, and its cost.

    save_weights: writes the weights of a repeat to a path; their checksums go into the record.
    """
    name = result.record.name
    with atomic_directory(MODELS_FOLDER / name) as folder:
        files = [folder / "weights" / weights_file(name, repeat).name for repeat in range(result.record.repeats)]
        files[0].parent.mkdir()
        for repeat, file in enumerate(files):
            save_weights(repeat, file)
        arrays = {}
        for split, predictions in result.predictions.items():
            arrays |= {f"{split}_{key}": array for key, array in vars(predictions).items()}
        arrays |= {f"{split}_soup": probabilities for split, probabilities in result.soup.items()}
        np.savez(folder / "predictions.npz", **arrays)
        if result.pca:
            np.savez(folder / "pca.npz", **vars(result.pca))
        result.history.to_csv(folder / "history.csv", index=False, lineterminator="\n")
        checksums = [sha256_of(file) for file in files]
        write_json(folder / "record.json", asdict(replace(result.record, weights_sha256=checksums)))
    write_cost("models", name, result.cost)


def read_model_record(model: str) -> ModelRecord:
    """The record of a model; `UserError` if it is missing or damaged."""
    path = MODELS_FOLDER / model / "record.json"
    with reading(path):
        return pydantic.TypeAdapter(ModelRecord).validate_json(path.read_bytes(), strict=True)


def read_predictions(model: str) -> dict[str, Predictions]:
    """The predictions of a model for every split; `UserError` if they are missing or damaged."""
    path = MODELS_FOLDER / model / "predictions.npz"
    with reading(path), np.load(path, allow_pickle=False) as arrays:
        keys = Predictions.__annotations__
        return {split: Predictions(**{key: arrays[f"{split}_{key}"] for key in keys}) for split in SPLITS}


def read_soup(model: str) -> dict[str, np.ndarray]:
    """Those of `ModelResult`; `UserError` if the predictions are missing or damaged."""
    path = MODELS_FOLDER / model / "predictions.npz"
    with reading(path), np.load(path, allow_pickle=False) as arrays:
        return {split: arrays[f"{split}_soup"] for split in SPLITS if f"{split}_soup" in arrays}


def read_result(model: str) -> ModelResult:
    """All of a model but its weights; `UserError` if a part is missing or damaged."""
    folder = MODELS_FOLDER / model
    record, cost = read_model_record(model), read_model_cost(model)
    with reading(folder):
        history = pd.read_csv(folder / "history.csv", usecols=HISTORY_COLUMNS)
        if len(history) != sum(record.epochs):
            raise ValueError(f"history.csv has {counted(len(history), 'epoch')}, the record {sum(record.epochs)}")
        pca = None
        if record.kind in ("head", "probe"):
            with np.load(folder / "pca.npz", allow_pickle=False) as arrays:
                pca = PcaProjection(**arrays)
        return ModelResult(record, cost, history, read_predictions(model), pca, read_soup(model))
