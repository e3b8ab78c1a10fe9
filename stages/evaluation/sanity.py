"""Sanity checks of a model that make themselves heard: what should make a reader doubt its figures."""

from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep

from stages.artifacts.models import cross_entropy
from stages.evaluation.formatting import percent, points, small
from stages.evaluation.metrics import SplitPredictions

SHUFFLES = 1_000
SHUFFLED_ABOVE = 0.01  # a flag, not a test of one hypothesis: every model of a study is checked


def warnings_of(
    model: str,
    classes: list[str],
    answers: dict[str, SplitPredictions],
    metrics: dict[str, Any],
    history: pd.DataFrame,
    best_repeat: int,
    seed: int,
) -> list[str]:
    """One sentence for each thing that is wrong with a model; none is the rule.

    answers, metrics: of every split. history: one row an epoch of each repeat. seed: of the shuffled labels.
    """
    test = metrics["test"]
    found = []
    if test["accuracy_low"] <= test["majority_rate"]:
        found.append(
            f"{model}: the test accuracy {percent(test['accuracy'])} is not above the {percent(test['majority_rate'])} "
            f"of always naming the largest class by more than chance (95 % interval {points(test['accuracy_low'])} to "
            f"{points(test['accuracy_high'])})."
        )
    if (p := better_than_shuffled(answers["test"], answers["test"].predicted, seed)) > SHUFFLED_ABOVE:
        if better_than_shuffled(answers["test"], answers["test"].labels[None], seed) > SHUFFLED_ABOVE:
            found.append(f"{model}: there are too few test images to tell what it has learned from guesses.")
        else:
            found.append(
                f"{model}: its test predictions fit the labels no better than they fit shuffled labels (p {small(p)}): "
                "there is no sign that it has learned anything of the classes."
            )
    found += [f"{model}: {problem}" for problem in _diverged(answers, history)]
    found += [f"{model}: {problem}" for problem in far_apart(metrics["validation"], test)]
    if repeats := _validated_on_others(answers["validation"], history):
        found.append(
            f"{model}: in no epoch of repeat {_numbers(repeats)} was the validation loss that of the finished model: "
            "the validation images were changed in training, as by augmentation, and the epoch was chosen on others."
        )
    predicted = answers["test"].predicted[best_repeat]
    never = [repr(name) for label, name in enumerate(classes) if not (predicted == label).any()]
    if never:
        listed = ", ".join(never[:5]) + (f" and {len(never) - 5} more" if len(never) > 5 else "")
        found.append(f"{model}: no test image is ever taken for {listed}.")
    return found


def better_than_shuffled(answers: SplitPredictions, predicted: np.ndarray, seed: int) -> float:
    """p value of the balanced accuracy under labels that are shuffled over the images (Ojala & Garriga 2010).

    predicted: (repeats, n) int, labels as predicted for the images of `answers`.

    Balanced, so that naming the largest class alone is no better than chance. Labels are shuffled 1,000 times; those of
    images that hang together stay together: the groups are put into another order, with the labels of their images.
    Where Cantelli's inequality bounds p below what so many shuffles can show, none are needed, and p is that bound.
    """
    by_group = np.argsort(answers.groups, kind="stable")
    labels, predicted, classes = answers.labels[by_group], predicted[:, by_group], answers.classes
    members = np.split(labels, np.cumsum(np.bincount(answers.groups))[:-1])
    alone = len(members) == len(labels)
    random = np.random.default_rng(seed)
    share = 1 / np.maximum(np.bincount(labels, minlength=classes), 1)

    def balanced(shuffled: np.ndarray) -> float:
        return float(((predicted == shuffled) * share[shuffled]).sum())

    def shuffled() -> np.ndarray:
        order = random.permutation(len(members))
        return labels[order] if alone else np.concatenate([members[group] for group in order])

    observed = balanced(labels)
    if alone and len(labels) > 1:
        mean, variance = of_all_orders(labels, predicted, share)
        above = observed - mean
        if above > 1e-9 and (bound := variance / (variance + above**2)) * (SHUFFLES + 1) < 1:
            return float(bound)
    reached = sum(balanced(shuffled()) >= observed - 1e-9 for _ in range(SHUFFLES))
    return (reached + 1) / (SHUFFLES + 1)


def of_all_orders(labels: np.ndarray, predicted: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """Mean and variance, over all orders of the labels, of the shares of those that are predicted, summed.

    labels: (n,) int, n at least 2. predicted: (repeats, n) int. share: (classes,) float, what a right answer of the
    class counts. Exact: Hoeffding 1951, A combinatorial central limit theorem, equations 5 and 10.
    """
    counts = np.bincount(labels, minlength=len(share))
    # What an image adds where it is given each label.
    adds = share * np.stack([(predicted == label).sum(axis=0) for label in range(len(share))], axis=1)
    of_image = adds @ counts / len(labels)
    spread = adds - adds.mean(axis=0) - of_image[:, None] + of_image.mean()
    return float(of_image.sum()), float((spread**2 @ counts).sum() / (len(labels) - 1))


def _validated_on_others(validation: SplitPredictions, history: pd.DataFrame) -> list[int]:
    """The repeats whose history nowhere has the validation loss of their finished model.

    A hundredth, and 0.001 nats, are left for sums in another order.
    """
    found = []
    for repeat, of_repeat in history.groupby("repeat"):
        loss = cross_entropy(validation.probabilities[repeat], validation.labels)
        losses = of_repeat["validation_loss"]
        if np.isfinite(loss) and not np.isclose(losses, loss, rtol=0.01, atol=0.001).any():
            found.append(int(repeat))
    return found


def _diverged(answers: dict[str, SplitPredictions], history: pd.DataFrame) -> list[str]:
    """Repeats whose training broke down; numbered from 1, as people count."""
    in_history = history.loc[~np.isfinite(history).all(axis=1), "repeat"].unique().tolist()
    in_answers = sorted({repeat for of_split in answers.values() for repeat in of_split.diverged})
    problems = []
    if in_answers:
        problems.append(
            f"training diverged in repeat {_numbers(in_answers)}: predictions are not finite; these answers count "
            "as wrong, and the loss is left empty."
        )
    if others := [repeat for repeat in in_history if repeat not in in_answers]:
        problems.append(f"the loss was not finite at some epoch of repeat {_numbers(others)}.")
    return problems


def _numbers(repeats: list[int]) -> str:
    return ", ".join(str(repeat + 1) for repeat in repeats)


def far_apart(validation: dict[str, Any], test: dict[str, Any]) -> list[str]:
    """Validation and test accuracy differ by more than the images drawn explain.

    The 99 % interval of the difference of two independent proportions (Newcombe 1998, Statistics in Medicine 17,
    method 10) leaves out 0; 99 % because every model of a study is checked.
    """
    images = "effective_images"
    counts = [part for split in (validation, test) for part in (split["accuracy"] * split[images], split[images])]
    low, high = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=0.01)
    if low <= 0 <= high:
        return []
    return [
        f"validation accuracy {percent(validation['accuracy'])} and test accuracy {percent(test['accuracy'])} differ "
        f"by more than the choice of images explains (99 % interval {points(low)} to {points(high)} points): the "
        "splits are not alike, or too much was chosen on validation."
    ]
