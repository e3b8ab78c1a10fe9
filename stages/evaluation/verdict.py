"""The verdict: which model to take, and why, in sentences. Validation images decide; test images have the last word."""

from dataclasses import dataclass
from typing import Any

from stages.evaluation.comparisons import Comparison
from stages.evaluation.formatting import duration, interval, p_value, percent, points


@dataclass(frozen=True)
class Choice:
    """best: highest mean validation accuracy. candidates: models not distinguishable from it on the validation images,
    with itself. recommended: the cheapest candidate."""

    best: str
    candidates: list[str]
    recommended: str


def choose(metrics: dict[str, Any], validation: list[Comparison]) -> Choice:
    """Choose a model of a task.

    metrics: model -> its part of metrics.json. validation: all pairs, compared on the validation images. A tie goes to
    the cheaper model, then to the first of the study.
    """
    seconds = total_seconds(metrics)
    best = min(metrics, key=lambda model: (-metrics[model]["validation"]["accuracy"], seconds[model]))
    worse = {
        pair.a if pair.b == best else pair.b for pair in validation if best in (pair.a, pair.b) and pair.distinguishable
    }
    candidates = [model for model in metrics if model not in worse]
    return Choice(best, candidates, min(candidates, key=seconds.__getitem__))


def total_seconds(metrics: dict[str, Any]) -> dict[str, float]:
    """Model -> seconds of training with everything that it is built on; metrics: as of `choose`."""
    return {model: values["cost"]["total_seconds"] for model, values in metrics.items()}


def verdict(choice: Choice, metrics: dict[str, Any], test: list[Comparison], built_on: str) -> list[str]:
    """The sentence of the recommendation, then one for every other model, the smallest difference first.

    metrics: as of `choose`. test: all pairs, compared on the test images. built_on: what the recommended model is built
    on, such as `features and base network`; empty if nothing.
    """
    accuracy, seconds = metrics[choice.recommended]["test"], total_seconds(metrics)
    cost = f"in total (with its {built_on})" if built_on else "of training"
    scores = (
        f"test accuracy {percent(accuracy['accuracy'])} (95 % interval "
        f"{interval(accuracy['accuracy_low'], accuracy['accuracy_high'])}), "
        f"{duration(seconds[choice.recommended])} {cost}"
    )
    if len(metrics) == 1:
        return [f"{choice.recommended} is the only model of this task: {scores}."]
    pairs = [pair for pair in test if choice.recommended in (pair.a, pair.b)]
    return [
        f"{choice.recommended} is recommended: {scores}. {_reason(choice)}",
        *(comparison_sentence(pair, seconds) for pair in sorted(pairs, key=lambda pair: abs(pair.difference))),
    ]


def _reason(choice: Choice) -> str:
    count = len(choice.candidates)
    if count == 1:
        return "On the validation images it is significantly better than every other model."
    if choice.best == choice.recommended:
        return (
            f"It has the highest validation accuracy, and it is the cheapest of the {count} models whose validation "
            "accuracies do not differ significantly."
        )
    return (
        f"It is the cheapest of the {count} models whose validation accuracies do not differ significantly from the "
        f"best, {choice.best}."
    )


def comparison_sentence(pair: Comparison, seconds: dict[str, float]) -> str:
    """One comparison on the test images in words; seconds: model -> total seconds."""
    better, worse, low, high = pair.a, pair.b, pair.low, pair.high
    if pair.difference < 0:
        better, worse, low, high = pair.b, pair.a, -pair.high, -pair.low
    certainty = f"95 % interval {interval(low, high)}"
    cost = _relative_cost(seconds[better], seconds[worse])
    if not pair.difference:
        return f"{better} and {worse} scored the same ({certainty}). {better} {cost}."
    scores = f"{better} scored {points(abs(pair.difference))} points higher than {worse}"
    if pair.distinguishable:
        return f"{scores} ({certainty}). It {cost}."
    if low > 0:
        certainty += f", p {p_value(pair.p_holm)} after correction for the number of pairs"
    return f"{scores}, but the difference may be chance ({certainty}). It {cost}."


def _relative_cost(seconds: float, other_seconds: float) -> str:
    ratio = seconds / other_seconds if other_seconds > 0 else 1.0
    if 0.8 <= ratio <= 1.25:
        return "costs about the same"
    return f"costs {ratio:.0f} times as much" if ratio >= 10 else f"costs {ratio:.2g} times as much"


def contradictions(choice: Choice, test: list[Comparison]) -> list[str]:
    """A warning for every model that is distinguishably better than the recommended one on the test images."""
    better = [
        pair.a if pair.difference > 0 else pair.b
        for pair in test
        if pair.distinguishable and choice.recommended == (pair.b if pair.difference > 0 else pair.a)
    ]
    return [
        f"{model} is significantly better than the recommended {choice.recommended} on the test images. The validation "
        "images were too few to show it, or differ from the test images. Give the task a larger share for validation."
        for model in better
    ]
