"""The figures of one model on one split, from predicted probabilities and true labels."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score
from statsmodels.stats.proportion import proportion_confint

from stages.base.errors import UserError
from stages.data.results import Predictions, cross_entropy
from stages.data.tasks import Task, labels_of

NO_ANSWER = -1
DECIMALS = 6  # of the numbers in the JSON files: below what images can tell apart, above the noise of summation order
TOP_5_ABOVE = 5  # classes; with fewer the right one is always among five


@dataclass(frozen=True)
class Answers:
    """What every repeat of a model says to the images of one split, in ascending order of the images' rows.

    labels: (n,) int32. probabilities: (repeats, n, classes) float32; those of a repeat that diverged are not finite.
    """

    labels: np.ndarray
    probabilities: np.ndarray

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable label, (repeats, n) int64; NO_ANSWER where the probabilities are not finite."""
        finite = np.isfinite(self.probabilities).all(axis=2)
        return np.where(finite, np.nan_to_num(self.probabilities).argmax(axis=2), NO_ANSWER)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the predicted label is the true one, (repeats, n) bool; no answer is a wrong answer."""
        return self.predicted == self.labels

    @property
    def accuracies(self) -> list[float]:
        """The accuracy of every repeat, 0 to 1."""
        return [rounded(accuracy) for accuracy in self.correct.mean(axis=1)]

    @property
    def diverged(self) -> list[int]:
        """The repeats, from 0, with probabilities that are not finite."""
        return np.flatnonzero((self.predicted == NO_ANSWER).any(axis=1)).tolist()


def answers_of(model: str, split: str, task: Task, predictions: Predictions) -> Answers:
    """Join the predictions of a model to the labels of its task.

    Raises `UserError` unless the images are exactly those of the split (for train: a part of them), each once, and
    the classes are those of the task.
    """
    rows = task.rows(split).set_index("index").sort_index()
    index = np.sort(predictions.index)
    known = pd.Index(index).isin(rows.index).all() and pd.Index(index).is_unique
    if not known or len(index) == 0 or (split != "train" and len(index) != len(rows)):
        raise UserError(
            f"models/{model}: the {split} predictions are not of the {split} images of task {task.name!r} as it is "
            f"now; run `dvc repro` to train {model!r} again."
        )
    if predictions.probabilities.shape[1:] != (len(index), len(task.classes)):
        raise UserError(
            f"models/{model}: the {split} predictions have shape {predictions.probabilities.shape}, but task "
            f"{task.name!r} has {len(task.classes)} classes and {len(index)} such images; run `dvc repro`."
        )
    order = np.argsort(predictions.index)
    return Answers(labels_of(rows.loc[index]), predictions.probabilities[:, order])


def split_metrics(answers: Answers) -> dict[str, float | None]:
    """All figures of one split; means over the repeats unless said otherwise.

    accuracy_std: sample standard deviation over repeats, None with one. accuracy_low, accuracy_high: 95 % interval of
    Wilson (1927) at the mean accuracy; it speaks of which images were drawn, not of the repeats.
    macro_*: means over classes, 0 for a class that is never predicted. loss: cross-entropy in nats, probabilities
    clipped at float32 precision as Keras does (1e-7), None when a repeat diverged; all else counts its missing
    answers as wrong. majority_rate: the accuracy of always naming the largest class.
    """
    correct, labels = answers.correct, answers.labels
    images, classes = len(labels), answers.probabilities.shape[2]
    accuracies = correct.mean(axis=1)
    low, high = proportion_confint(correct.sum() / len(correct), images, alpha=0.05, method="wilson")
    macro = [
        precision_recall_fscore_support(labels, predicted, labels=range(classes), average="macro", zero_division=0)[:3]
        for predicted in answers.predicted
    ]
    precision, recall, f1 = np.mean(macro, axis=0)
    top_5 = {"top5_accuracy": rounded(top_5_accuracy(answers))} if classes > TOP_5_ABOVE else {}
    return {
        "images": images,
        "accuracy": rounded(accuracies.mean()),
        "accuracy_std": rounded(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        "accuracy_low": rounded(low),
        "accuracy_high": rounded(high),
        **top_5,
        "macro_precision": rounded(precision),
        "macro_recall": rounded(recall),
        "macro_f1": rounded(f1),
        "loss": None if answers.diverged else rounded(mean_loss(answers)),
        "majority_rate": rounded(np.bincount(labels).max() / images),
    }


def mean_loss(answers: Answers) -> float:
    """Mean cross-entropy over images and repeats, in nats; every probability must be finite."""
    return float(np.mean([cross_entropy(each, answers.labels) for each in answers.probabilities]))


def top_5_accuracy(answers: Answers) -> float:
    """Share of the images whose class is among the five most probable, mean over repeats."""
    labels, classes = answers.labels, range(answers.probabilities.shape[2])
    right = 0.0
    for probabilities, predicted in zip(answers.probabilities, answers.predicted, strict=True):
        told = predicted != NO_ANSWER
        if told.any():
            right += top_k_accuracy_score(labels[told], probabilities[told], k=5, labels=classes, normalize=False)
    return right / answers.predicted.size


def rounded(number: float) -> float:
    """A plain float with `DECIMALS` decimals."""
    return round(float(number), DECIMALS)
