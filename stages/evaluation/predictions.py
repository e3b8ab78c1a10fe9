"""The predictions of a model for one split, joined to the labels of its task."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from stages.artifacts.models import ModelRecord, Predictions
from stages.artifacts.tasks import Task, row_labels
from stages.core.errors import UserError
from stages.core.wording import counted
from stages.evaluation.formatting import rounded

NO_PREDICTION = -1  # the label that a diverged repeat predicts


@dataclass(frozen=True)
class RepeatPredictions:
    """What one repeat predicts: of the images that it predicts, fields as of `SplitPredictions` without the repeats."""

    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class SplitPredictions:
    """What every repeat of a model predicts for the images of one split, in ascending order of the images' rows.

    labels: (n,) int32, of the images that any repeat predicts. predicts: (repeats, n) bool, whether a repeat predicts
    an image: repeats with different folds have different validation images. probabilities: (repeats, n, classes)
    float32; NaN for images that a repeat does not predict, not finite for a repeat that diverged.
    groups: (n,) int64, 0..number of groups - 1; images of one group are not independent.
    """

    labels: np.ndarray
    predicts: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable label, (repeats, n) int64; NO_PREDICTION if the probabilities are not finite."""
        finite = np.isfinite(self.probabilities).all(axis=2)
        return np.where(finite, np.nan_to_num(self.probabilities).argmax(axis=2), NO_PREDICTION)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the predicted label is the true one, (repeats, n) bool; False for what a repeat does not predict."""
        return self.predicted == self.labels

    @property
    def share_correct(self) -> np.ndarray:
        """The share of the repeats that predict an image which predict it correctly, (n,) float64."""
        return self.correct.sum(axis=0) / self.predicts.sum(axis=0)

    def repeats(self) -> list[RepeatPredictions]:
        """The predictions of each repeat alone."""
        return [
            RepeatPredictions(self.labels[rows], predicted[rows], probabilities[rows], self.groups[rows])
            for rows, predicted, probabilities in zip(self.predicts, self.predicted, self.probabilities, strict=True)
        ]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.probabilities.shape[2]

    @property
    def group_count(self) -> int:
        """The number of groups."""
        return int(self.groups.max()) + 1

    @property
    def accuracies(self) -> list[float]:
        """The accuracy of every repeat, 0 to 1."""
        return [rounded(accuracy) for accuracy in self.correct.sum(axis=1) / self.predicts.sum(axis=1)]

    @property
    def diverged(self) -> list[int]:
        """The repeats, from 0, with probabilities that are not finite."""
        return np.flatnonzero((self.predicts & (self.predicted == NO_PREDICTION)).any(axis=1)).tolist()


def join_predictions(record: ModelRecord, split: str, task: Task, predictions: Predictions) -> SplitPredictions:
    """Join the predictions of a model to the labels and groups of its task.

    Raises `UserError` unless every repeat predicts exactly the images of the split with its fold (of train: a subset),
    and the classes are those of the task.
    """
    where = f"models/{record.name}: the {split} predictions"
    shape = (record.repeats, len(predictions.index), len(task.classes))
    if predictions.probabilities.shape != shape or predictions.predicts.shape != shape[:2]:
        raise UserError(
            f"{where} have shape {predictions.probabilities.shape}, but task {task.name!r} has "
            f"{counted(len(task.classes), 'class')}, {record.name} has {counted(record.repeats, 'repeat')}, and the "
            f"file lists {counted(len(predictions.index), 'image')}. Run `dvc repro`."
        )
    for fold, predicts in zip(record.folds, predictions.predicts, strict=True):
        rows = task.rows(split, fold=fold)["index"]
        index = pd.Index(predictions.index[predicts])
        known = index.isin(rows).all() and index.is_unique
        if not known or len(index) == 0 or (split != "train" and len(index) != len(rows)):
            raise UserError(
                f"{where} do not belong to the current {split} images of task {task.name!r}. Run `dvc repro` to train "
                f"{record.name!r} again."
            )
    order = np.argsort(predictions.index)
    rows = task.table.set_index("index").loc[predictions.index[order]]
    return SplitPredictions(
        row_labels(rows),
        predictions.predicts[:, order],
        predictions.probabilities[:, order],
        pd.factorize(rows["group_id"])[0],
    )
