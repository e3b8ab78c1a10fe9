"""Which model to take, and why, in sentences. Choices are made on validation images; test images have the last word."""

from dataclasses import dataclass
from typing import Any

from stages.evaluation.comparisons import Comparison
from stages.evaluation.formatting import duration, percent, points, small


@dataclass(frozen=True)
class Choice:
    """best: highest mean validation accuracy. candidates: what is not distinguishable from it there, with itself.
    recommended: the cheapest candidate."""

    best: str
    candidates: list[str]
    recommended: str


def choose(metrics: dict[str, Any], validation: list[Comparison]) -> Choice:
    """Choose a model of a task.

    metrics: model -> its part of metrics.json. validation: all pairs, compared on validation images. Of equally good
    models the cheaper one, of equally cheap ones the first of the study is taken.
    """
    cost = {model: of_model["cost"]["total_seconds"] for model, of_model in metrics.items()}
    best = min(metrics, key=lambda model: (-metrics[model]["validation"]["accuracy"], cost[model]))
    worse = {
        pair.a if pair.b == best else pair.b for pair in validation if best in (pair.a, pair.b) and pair.distinguishable
    }
    candidates = [model for model in metrics if model not in worse]
    return Choice(best, candidates, min(candidates, key=cost.__getitem__))


def verdict(choice: Choice, metrics: dict[str, Any], test: list[Comparison]) -> list[str]:
    """The recommendation, then the recommended model against every other on the test images; large differences last."""
    own = metrics[choice.recommended]
    cost = {model: of_model["cost"]["total_seconds"] for model, of_model in metrics.items()}
    figures = (
        f"{percent(own['test']['accuracy'])} of the test images right "
        f"[{points(own['test']['accuracy_low'])}, {points(own['test']['accuracy_high'])}], "
        f"{duration(cost[choice.recommended])} with all that it is built on"
    )
    if len(metrics) == 1:
        return [f"{choice.recommended} is the only model of this task: {figures}."]
    pairs = sorted(
        (pair for pair in test if choice.recommended in (pair.a, pair.b)), key=lambda pair: abs(pair.difference)
    )
    return [
        f"{choice.recommended} is recommended: {figures}. {_reason(choice)}",
        *(sentence(pair, cost) for pair in pairs),
    ]


def _reason(choice: Choice) -> str:
    if choice.candidates == [choice.best]:
        return "It is the best on the validation images, distinguishable from every other model."
    count = len(choice.candidates)
    if choice.best == choice.recommended:
        return (
            f"It is the best on the validation images and the cheapest of the {count} that cannot be told apart there."
        )
    return (
        f"It is the cheapest of the {count} models that the validation images do not distinguish from the best there, "
        f"{choice.best}."
    )


def contradiction(choice: Choice, test: list[Comparison]) -> list[str]:
    """A warning for each model that is distinguishably better than the recommended one on the test images."""
    better = [
        pair.a if pair.difference > 0 else pair.b
        for pair in test
        if pair.distinguishable and choice.recommended == (pair.b if pair.difference > 0 else pair.a)
    ]
    return [
        f"{model} is distinguishably better than the recommended {choice.recommended} on the test images: the "
        "validation images were too few to show it, or not alike; give the task a larger share for validation."
        for model in better
    ]


def sentence(pair: Comparison, cost: dict[str, float]) -> str:
    """One comparison on the test images in words; cost: model -> total seconds."""
    better, worse, low, high = pair.a, pair.b, pair.low, pair.high
    if pair.difference < 0:
        better, worse, low, high = pair.b, pair.a, -pair.high, -pair.low
    size = f" by {points(abs(pair.difference))} points [{points(low)}, {points(high)}] on the test images"
    if not pair.difference:
        size = f" [{points(low)}, {points(high)}] on the test images"
    verb = "is better than" if pair.distinguishable else "is ahead of" if pair.difference else "is level with"
    distinguishable = "distinguishable" if pair.distinguishable else "not distinguishable"
    price = _price(cost[better], cost[worse])
    return f"{better} {verb} {worse}{size}: {distinguishable} (Holm-corrected p {small(pair.p_holm)}), {price}."


def _price(better: float, worse: float) -> str:
    ratio = better / worse if worse > 0 else 1.0
    if 0.8 <= ratio <= 1.25:
        return "at about the same cost"
    return f"at {ratio:.0f} times the cost" if ratio >= 10 else f"at {ratio:.2g} times the cost"
