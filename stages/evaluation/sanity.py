"""Warnings: sanity checks of a model that should make a reader doubt its metrics."""

from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep

from stages.artifacts.models import ModelResult, cross_entropy
from stages.evaluation.formatting import interval, p_value, percent
from stages.evaluation.predictions import SplitPredictions

LARGEST_STATISTICS_GAP = 0.03
SHUFFLES = 1_000
SHUFFLED_ABOVE = 0.01  # a flag, not a test of one hypothesis: every model of a study is checked


def model_warnings(
    result: ModelResult, predictions: dict[str, SplitPredictions], metrics: dict[str, Any], seed: int
) -> list[str]:
    """One sentence for every problem of a model; usually there are none.

    predictions, metrics: of every split. seed: of the shuffled labels.
    """
    history, test = result.history, predictions["test"]
    problems = [
        *_majority(metrics["test"]),
        *_learned_nothing(test, seed),
        *_diverged(predictions, history),
        *split_mismatch(metrics["validation"], metrics["test"]),
        *_untypical_statistics(result.record.batch_statistics_gap),
        *_validated_on_changed_images(predictions["validation"], history),
        *_never_predicted(test.predicted[result.record.best_repeat], result.record.classes),
    ]
    return [f"{result.record.name}: {problem}" for problem in problems]


def _majority(test: dict[str, Any]) -> list[str]:
    """The test accuracy is hardly better than that of the majority class; test: metrics."""
    if test["accuracy_low"] > test["majority_rate"]:
        return []
    return [
        f"the test accuracy {percent(test['accuracy'])} (95 % interval "
        f"{interval(test['accuracy_low'], test['accuracy_high'])}) is not significantly above "
        f"{percent(test['majority_rate'])}, the accuracy of always predicting the largest class."
    ]


def _learned_nothing(test: SplitPredictions, seed: int) -> list[str]:
    """The test predictions could be guesses."""
    p = shuffled_labels_p(test, test.predicted, seed)
    if p <= SHUFFLED_ABOVE:
        return []
    if shuffled_labels_p(test, test.labels[None], seed) > SHUFFLED_ABOVE:
        return ["the test set is too small to distinguish learning from guessing."]
    return [
        f"the test predictions fit the labels no better than shuffled labels (p {p_value(p)}). The model may have "
        "learned nothing about the classes."
    ]


def shuffled_labels_p(predictions: SplitPredictions, predicted: np.ndarray, seed: int) -> float:
    """p value of the balanced accuracy under labels that are shuffled over the images (Ojala & Garriga 2010).

    predicted: (repeats, n) int, labels that are predicted for the images of `predictions`.

    Balanced, so that always predicting the largest class is no better than chance. Labels are shuffled 1,000 times.
    Images of one group keep their labels together: the order of the groups is shuffled. If Cantelli's inequality bounds
    p below what 1,000 shuffles can show, nothing is shuffled, and the bound is returned.
    """
    by_group = np.argsort(predictions.groups, kind="stable")
    labels, predicted, classes = predictions.labels[by_group], predicted[:, by_group], predictions.classes
    group_labels = np.split(labels, np.cumsum(np.bincount(predictions.groups))[:-1])
    ungrouped = len(group_labels) == len(labels)
    random = np.random.default_rng(seed)
    share = 1 / np.maximum(np.bincount(labels, minlength=classes), 1)

    def balanced(candidate: np.ndarray) -> float:
        return float(((predicted == candidate) * share[candidate]).sum())

    def shuffled() -> np.ndarray:
        order = random.permutation(len(group_labels))
        return labels[order] if ungrouped else np.concatenate([group_labels[group] for group in order])

    observed = balanced(labels)
    if ungrouped and len(labels) > 1:
        mean, variance = permutation_moments(labels, predicted, share)
        above = observed - mean
        if above > 1e-9 and (bound := variance / (variance + above**2)) * (SHUFFLES + 1) < 1:
            return float(bound)
    reached = sum(balanced(shuffled()) >= observed - 1e-9 for _ in range(SHUFFLES))
    return (reached + 1) / (SHUFFLES + 1)


def permutation_moments(labels: np.ndarray, predicted: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """Mean and variance, over all orders of the labels, of the summed shares of correct predictions.

    labels: (n,) int, n at least 2. predicted: (repeats, n) int. share: (classes,) float, the weight of a correct
    prediction of the class. Exact: Hoeffding 1951, A combinatorial central limit theorem, equations 5 and 10.
    """
    counts = np.bincount(labels, minlength=len(share))
    # What an image adds if it is given each of the labels.
    contributions = share * np.stack([(predicted == label).sum(axis=0) for label in range(len(share))], axis=1)
    image_means = contributions @ counts / len(labels)
    spread = contributions - contributions.mean(axis=0) - image_means[:, None] + image_means.mean()
    return float(image_means.sum()), float((spread**2 @ counts).sum() / (len(labels) - 1))


def _diverged(predictions: dict[str, SplitPredictions], history: pd.DataFrame) -> list[str]:
    """Repeats whose training broke down; numbered from 1, as people count."""
    not_finite = history.loc[~np.isfinite(history).all(axis=1), "repeat"].unique().tolist()
    diverged = sorted({repeat for part in predictions.values() for repeat in part.diverged})
    problems = []
    if diverged:
        problems.append(
            f"training diverged in repeat {_numbers(diverged)}: its predictions are not finite. They count as wrong, "
            "and the loss is empty."
        )
    if recovered := [repeat for repeat in not_finite if repeat not in diverged]:
        problems.append(f"the loss was not finite in some epoch of repeat {_numbers(recovered)}.")
    return problems


def split_mismatch(validation: dict[str, Any], test: dict[str, Any]) -> list[str]:
    """Validation and test accuracy differ by more than the choice of images explains; arguments: metrics.

    The 99 % interval of the difference of two independent proportions (Newcombe 1998, Statistics in Medicine 17, method
    10) excludes 0; 99 % because every model of a study is checked.
    """
    counts = [
        number
        for split in (validation, test)
        for number in (split["accuracy"] * split["effective_images"], split["effective_images"])
    ]
    low, high = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=0.01)
    if low <= 0 <= high:
        return []
    return [
        f"validation accuracy {percent(validation['accuracy'])} and test accuracy {percent(test['accuracy'])} differ "
        f"by more than chance explains (99 % interval of the difference {interval(low, high)} points). The splits may "
        "not be alike, or too many choices were made on the validation images."
    ]


def _untypical_statistics(gap: float | None) -> list[str]:
    """The accuracy on training images drops in inference; gap: see `ModelRecord.batch_statistics_gap`."""
    if gap is None or gap <= LARGEST_STATISTICS_GAP:
        return []
    return [
        f"on training images, the accuracy with the stored statistics of batch normalization is {100 * gap:.1f} points "
        "lower than with the statistics of each training batch, so the model predicts worse than it has learned. Use a "
        "larger batch_size, or do not train batch normalization."
    ]


def _validated_on_changed_images(validation: SplitPredictions, history: pd.DataFrame) -> list[str]:
    """The validation loss of the final model is in no epoch of its history.

    Within 1 % and 0.001 nats, because sums in another order differ.
    """
    repeats = []
    for part, (repeat, epochs) in zip(validation.repeats(), history.groupby("repeat"), strict=True):
        loss = cross_entropy(part.probabilities, part.labels)
        losses = epochs["validation_loss"]
        if np.isfinite(loss) and not np.isclose(losses, loss, rtol=0.01, atol=0.001).any():
            repeats.append(int(repeat))
    if not repeats:
        return []
    return [
        f"no epoch of repeat {_numbers(repeats)} has the validation loss of the final model. The validation images "
        "were changed during training, for example by augmentation, so the best epoch was chosen on changed images."
    ]


def _never_predicted(predicted: np.ndarray, classes: list[str]) -> list[str]:
    """Classes that the model predicts for no test image; predicted: (n,) labels."""
    never = [repr(name) for label, name in enumerate(classes) if not (predicted == label).any()]
    if not never:
        return []
    more = f" and {len(never) - 5} more" if len(never) > 5 else ""
    noun = "class" if len(never) == 1 else "classes"
    return [f"it never predicts {noun} {', '.join(never[:5])}{more} for a test image."]


def _numbers(repeats: list[int]) -> str:
    return ", ".join(str(repeat + 1) for repeat in repeats)
