"""The figures of one model on one split, from predicted probabilities and true labels, with their 95 % intervals."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from stages.artifacts.models import Predictions
from stages.artifacts.tasks import Task, row_labels
from stages.core.errors import UserError
from stages.evaluation.intervals import effective_images, percentiles, resampled_groups, unbiased, wilson
from stages.evaluation.roc_auc import class_roc_aucs, mean_roc_auc
from stages.evaluation.sufficient_statistics import NO_PREDICTION, group_statistics, in_top_5

DECIMALS = 6  # of the numbers in the JSON files: below what images can tell apart, above the noise of summation order
TOP_5_ABOVE = 5  # classes; with fewer the right one is always among five
OF_PROBABILITIES = ("roc_auc", "loss", "calibration_error")  # unknown where a repeat diverged


@dataclass(frozen=True)
class SplitPredictions:
    """What every repeat of a model says to the images of one split, in ascending order of the images' rows.

    labels: (n,) int32. probabilities: (repeats, n, classes) float32; those of a repeat that diverged are not finite.
    groups: (n,) int64, 0..number of groups - 1; images of one group are not independent of each other.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable label, (repeats, n) int64; NO_ANSWER where the probabilities are not finite."""
        finite = np.isfinite(self.probabilities).all(axis=2)
        return np.where(finite, np.nan_to_num(self.probabilities).argmax(axis=2), NO_PREDICTION)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the predicted label is the true one, (repeats, n) bool; no answer is a wrong answer."""
        return self.predicted == self.labels

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.probabilities.shape[2]

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
    rows = rows.loc[index]
    return SplitPredictions(row_labels(rows), predictions.probabilities[:, order], pd.factorize(rows["linked"])[0])


def compute_metrics(answers: SplitPredictions, seed: int | None = None, areas: bool = True) -> dict[str, np.ndarray]:
    """Every figure of a split with its spread and its 95 % interval.

    seed: of the bootstrap; without one only accuracy, recall and areas have intervals. areas: with those under the ROC
    curves, which take most of the time.

    Returns arrays (1,) of all classes together, and (classes,) of each class where the name begins `class_`: the mean
    over the repeats by the figure's name, by `<name>_std` the sample standard deviation over them (NaN with one), by
    `<name>_low` and `<name>_high` the interval. The figures:

    accuracy, top5_accuracy; balanced_accuracy: the mean recall of the classes (Brodersen et al. 2010).
    precision, recall, f1: with macro_ their mean over the classes, 0 for one that is never predicted; with weighted_
        weighted by the images of each class.
    roc_auc: of the second of two classes, else the mean over the classes, each against the rest.
    loss: cross-entropy in nats.
    calibration_error: expected distance of the highest probability and the accuracy, in 15 bins of that probability
        (Guo et al. 2017); of a class, over the images that are taken for it.

    Missing answers of a repeat that diverged are wrong answers; roc_auc, loss and calibration_error are then NaN.

    Figures of a class without images are NaN.

    Intervals are of which images were drawn, in whole groups where they hang together; not of the repeats. Those of
    accuracy, top-5 accuracy and recall are Wilson's (1927), of areas DeLong's (1988), all others of a bootstrap: its
    percentiles, or for the calibration error `intervals.unbiased`; NaN where nothing varies.
    """
    groups = answers.groups
    repeats = [
        group_statistics(answers.labels, *of_repeat, groups)
        for of_repeat in zip(answers.predicted, answers.probabilities, strict=True)
    ]
    whole = [parts.sums(np.ones((groups.max() + 1, 1))).figures() for parts in repeats]
    found = {}
    for name in whole[0]:
        found |= _over_repeats(name, np.stack([figures[name][:, 0] for figures in whole]))
    if seed is not None:
        drawn = [
            [parts.sums(times).figures() for parts in repeats] for times in resampled_groups(groups.max() + 1, seed)
        ]
        for name in whole[0]:
            resampled = np.concatenate([np.mean([each[name] for each in chunk], axis=0) for chunk in drawn], axis=-1)
            if name.endswith("calibration_error"):
                interval = unbiased(found[name], resampled)
            else:
                interval = percentiles(resampled, groups.max() + 1)
            # Where no resample differs, as where all answers are right, nothing is known of how the figure varies.
            varies = (np.abs(resampled - found[name][:, None]) > 1e-12).any(axis=-1)
            interval = [np.where(varies, end, np.nan) for end in interval]
            found |= dict(zip((f"{name}_low", f"{name}_high"), interval, strict=True))
    found |= _proportions(answers) | (_areas(answers) if areas else {})
    return _without_unknown(found, answers)


def _over_repeats(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and standard deviation of a figure over its repeats, the first axis."""
    std = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    return {name: values.mean(axis=0), f"{name}_std": std}


def _proportions(answers: SplitPredictions) -> dict[str, np.ndarray]:
    """Wilson's intervals of the accuracy, of the recall of every class, and of the top-5 accuracy of both kinds."""
    told = zip(answers.predicted, answers.probabilities, strict=True)
    top_5 = np.mean([in_top_5(answers.labels, *of_repeat) for of_repeat in told], axis=0)
    own = [answers.labels == label for label in range(answers.classes)]
    found = {}
    for whole, of_class, right in (
        ("accuracy", "class_recall", answers.correct.mean(axis=0)),
        ("top5_accuracy", "class_top5_accuracy", top_5),
    ):
        for name, images in ((whole, [np.ones(len(right), bool)]), (of_class, own)):
            intervals = [
                wilson(right[which], answers.groups[which]) if which.any() else (np.nan, np.nan) for which in images
            ]
            found |= dict(zip((f"{name}_low", f"{name}_high"), np.transpose(intervals), strict=True))
    return found


def _areas(answers: SplitPredictions) -> dict[str, np.ndarray]:
    """The areas under the ROC curves; NaN where a class or the probabilities are missing."""
    classes = answers.classes
    missing = answers.diverged or len(np.unique(answers.labels)) < classes
    if missing:
        names = [f"{name}{end}" for name in ("roc_auc", "class_roc_auc") for end in ("", "_std", "_low", "_high")]
        return {name: np.full(classes if name.startswith("class_") else 1, np.nan) for name in names}
    of_repeats = [class_roc_aucs(answers.labels, each, answers.groups) for each in answers.probabilities]
    of_classes = [mean_roc_auc(of_class) for of_class in zip(*of_repeats, strict=True)]
    values = np.array([[area.value for area in areas] for areas in of_repeats])
    shown = slice(1, None) if classes == 2 else slice(None)
    together = mean_roc_auc(of_classes[shown])
    found = _over_repeats("class_roc_auc", values)
    found |= _over_repeats("roc_auc", values[:, shown].mean(axis=1, keepdims=True))
    for name, areas in (("class_roc_auc", of_classes), ("roc_auc", [together])):
        intervals = np.transpose([area.interval(answers.groups) for area in areas])
        found |= dict(zip((f"{name}_low", f"{name}_high"), intervals, strict=True))
    return found


def _without_unknown(figures: dict[str, np.ndarray], answers: SplitPredictions) -> dict[str, np.ndarray]:
    """Without top-5 accuracy where it is always 1; what needs the probabilities is NaN where a repeat has none."""
    shown = {}
    for name, values in figures.items():
        base = name.removeprefix("class_")
        if base.startswith("top5_accuracy") and answers.classes <= TOP_5_ABOVE:
            continue
        shown[name] = np.full_like(values, np.nan) if answers.diverged and base.startswith(OF_PROBABILITIES) else values
    return shown


def split_metrics(answers: SplitPredictions, figures: dict[str, np.ndarray]) -> dict[str, float | None]:
    """A split in metrics.json: the figures of all classes together; None for what is not known.

    images: how many. effective_images: independent images that would tell as much; fewer, where images hang together.
    majority_rate: the accuracy of always naming the largest class.
    """
    together = {name: values[0] for name, values in figures.items() if not name.startswith("class_")}
    return {
        "images": len(answers.labels),
        "effective_images": rounded(effective_images(answers.correct.mean(axis=0), answers.groups)),
        **{name: rounded(value) if np.isfinite(value) else None for name, value in together.items()},
        "majority_rate": rounded(np.bincount(answers.labels).max() / len(answers.labels)),
    }


def class_metrics(answers: SplitPredictions, figures: dict[str, np.ndarray], classes: list[str]) -> pd.DataFrame:
    """One row a class: its name, its images and its figures; NaN for what is not known."""
    counts = np.bincount(answers.labels, minlength=len(classes))
    of_classes = {name.removeprefix("class_"): values for name, values in figures.items() if name.startswith("class_")}
    return pd.DataFrame({"class": classes, "images": counts, **of_classes})


def rounded(number: float) -> float:
    """A plain float with `DECIMALS` decimals."""
    return round(float(number), DECIMALS)
