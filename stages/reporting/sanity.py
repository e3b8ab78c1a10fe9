"""Sanity checks of a model that make themselves heard: what should make a reader doubt its figures."""

from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep

from stages.reporting.metrics import Answers
from stages.reporting.words import percent, points


def warnings_of(
    model: str,
    classes: list[str],
    answers: dict[str, Answers],
    metrics: dict[str, Any],
    history: pd.DataFrame,
    kept_repeat: int,
) -> list[str]:
    """One sentence for each thing that is wrong with a model; none is the rule.

    answers, metrics: of every split. history: one row an epoch of each repeat.
    """
    test = metrics["test"]
    found = []
    if test["accuracy"] <= test["majority_rate"]:
        found.append(
            f"{model}: the test accuracy {percent(test['accuracy'])} is not above the {percent(test['majority_rate'])} "
            "of always naming the largest class; it has learned nothing."
        )
    found += [f"{model}: {problem}" for problem in _diverged(answers, history)]
    found += [f"{model}: {problem}" for problem in _far_apart(metrics["validation"], test)]
    predicted = answers["test"].predicted[kept_repeat]
    never = [repr(name) for label, name in enumerate(classes) if not (predicted == label).any()]
    if never:
        listed = ", ".join(never[:5]) + (f" and {len(never) - 5} more" if len(never) > 5 else "")
        found.append(f"{model}: no test image is ever taken for {listed}.")
    return found


def _diverged(answers: dict[str, Answers], history: pd.DataFrame) -> list[str]:
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


def _far_apart(validation: dict[str, Any], test: dict[str, Any]) -> list[str]:
    """Validation and test accuracy differ by more than the images drawn explain.

    The 99 % interval of the difference of two independent proportions (Newcombe 1998, Statistics in Medicine 17,
    method 10) leaves out 0; 99 % because every model of a study is checked.
    """
    counts = [part for split in (validation, test) for part in (split["accuracy"] * split["images"], split["images"])]
    low, high = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=0.01)
    if low <= 0 <= high:
        return []
    return [
        f"validation accuracy {percent(validation['accuracy'])} and test accuracy {percent(test['accuracy'])} differ "
        f"by more than the choice of images explains (99 % interval {points(low)} to {points(high)} points): the "
        "splits are not alike, or too much was chosen on validation."
    ]
