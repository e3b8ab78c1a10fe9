"""The predictions of a model for one split, joined to the labels of its task."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from stages.artifacts.models import Predictions
from stages.artifacts.tasks import Task, row_labels
from stages.core.errors import UserError
from stages.evaluation.formatting import rounded

NO_PREDICTION = -1  # the label that a diverged repeat predicts


@dataclass(frozen=True)
class SplitPredictions:
    """What every repeat of a model predicts for the images of one split, in ascending order of the images' rows.

    labels: (n,) int32. probabilities: (repeats, n, classes) float32; not finite for a repeat that diverged.
    groups: (n,) int64, 0..number of groups - 1; images of one group are not independent.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable label, (repeats, n) int64; NO_PREDICTION if the probabilities are not finite."""
        finite = np.isfinite(self.probabilities).all(axis=2)
        return np.where(finite, np.nan_to_num(self.probabilities).argmax(axis=2), NO_PREDICTION)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the predicted label is the true one, (repeats, n) bool; a missing prediction is wrong."""
        return self.predicted == self.labels

    @property
    def predicts(self) -> np.ndarray:
        """Whether a repeat predicted an image, (repeats, n) bool."""
        return np.ones(self.correct.shape, bool)

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
        return [rounded(accuracy) for accuracy in self.correct.mean(axis=1)]

    @property
    def diverged(self) -> list[int]:
        """The repeats, from 0, with probabilities that are not finite."""
        return np.flatnonzero((self.predicted == NO_PREDICTION).any(axis=1)).tolist()


def join_predictions(model: str, split: str, task: Task, predictions: Predictions) -> SplitPredictions:
    """Join the predictions of a model to the labels and groups of its task.

    Raises `UserError` unless the images are exactly those of the split (of train: a subset), each once, and the
    classes are those of the task.
    """
    rows = task.rows(split).set_index("index").sort_index()
    index = np.sort(predictions.index)
    known = pd.Index(index).isin(rows.index).all() and pd.Index(index).is_unique
    if not known or len(index) == 0 or (split != "train" and len(index) != len(rows)):
        raise UserError(
            f"models/{model}: the {split} predictions do not belong to the current {split} images of task "
            f"{task.name!r}. Run `dvc repro` to train {model!r} again."
        )
    if predictions.probabilities.shape[1:] != (len(index), len(task.classes)):
        raise UserError(
            f"models/{model}: the {split} predictions have shape {predictions.probabilities.shape}, but task "
            f"{task.name!r} has {len(task.classes)} classes and {len(index)} such images. Run `dvc repro`."
        )
    order = np.argsort(predictions.index)
    rows = rows.loc[index]
    return SplitPredictions(row_labels(rows), predictions.probabilities[:, order], pd.factorize(rows["group_id"])[0])
