"""The verdict: which model to take, how sure that is, and what the others offer, in sentences.

Validation images decide. Test images are never used to make the choice; they only show how it turned out.
"""

from dataclasses import dataclass, field
from typing import Any

from stages.core.wording import counted, listing
from stages.evaluation.comparisons import Comparison
from stages.evaluation.cost_sentences import (
    base_network_sentences,
    is_cheaper,
    measured_cost,
    multiply_adds,
    none_is_cheaper,
    relative_cost,
)
from stages.evaluation.folds import Outcomes, images_needed
from stages.evaluation.formatting import interval, p_value, percent, points
from stages.evaluation.shortfall import Choice, MultiplyAdds, cheapest

MOST_NAMES = 5  # of models in a sentence; of more, their number
# The evidence by the probability that the recommended model is within the margin of the best one.
MODERATE, STRONG = 0.5, 0.8


@dataclass(frozen=True)
class Evidence:
    """What a verdict is about: the models that are compared.

    metrics: model -> its part of metrics.json. outcomes: of each model on the validation images; pairs: of models,
    compared on them. margin: in points. left_out: models of the task that are not compared. bases: model -> networks of
    the study that it is built on -> multiply-adds of the training of each.
    """

    metrics: dict[str, Any]
    outcomes: dict[str, Outcomes]
    pairs: list[Comparison]
    margin: float
    left_out: list[str] = field(default_factory=list)
    bases: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def costs(self) -> dict[str, MultiplyAdds]:
        """The cost of each model, as the rule compares it."""
        return multiply_adds(self.metrics)

    @property
    def images(self) -> int:
        """The number of validation images."""
        return len(next(iter(self.outcomes.values())).groups)

    def against(self, model: str, other: str) -> Comparison:
        """The comparison of two models, with `model` as a."""
        pair = next(pair for pair in self.pairs if {pair.a, pair.b} == {model, other})
        return oriented(pair, model)


def oriented(pair: Comparison, model: str) -> Comparison:
    """A comparison with `model`, one of the two, as a; the counts of images and p values stay with the pair."""
    if pair.a == model:
        return pair
    values = {**vars(pair), "a": pair.b, "b": pair.a, "difference": -pair.difference}
    return Comparison(**{**values, "low": -pair.high, "high": -pair.low})


def verdict(choice: Choice, evidence: Evidence) -> list[str]:
    """The sentence of the recommendation, then how sure that is, why, and what other models offer."""
    metrics, recommended = evidence.metrics, choice.recommended
    test = metrics[recommended]["test"]
    scores = (
        f"validation accuracy {percent(evidence.outcomes[recommended].by_image.mean())}, test accuracy "
        f"{percent(test['accuracy'])} (95 % interval {interval(test['accuracy_low'], test['accuracy_high'])}), "
        f"{measured_cost(metrics[recommended]['cost'])}"
    )
    at_chance = all(
        part["validation"]["accuracy_low"] <= part["validation"]["majority_rate"] for part in metrics.values()
    )
    chance = ["The validation images do not show that it is better than always predicting the largest class."]
    if len(metrics) == 1:
        headline = f"{recommended} is the only model of this task: {scores}."
        if evidence.left_out:
            headline = (
                "No model can be recommended: no two models of this task validated on the same images. The first "
                f"choice would be {recommended}: {scores}."
            )
        return [headline, *(chance if at_chance else [])]
    if at_chance:
        headline = (
            "No model can be recommended: the validation images do not show that any is better than always predicting "
            f"the largest class. The first choice would be {recommended}: {scores}."
        )
    else:
        headline = f"{recommended} is recommended: {scores}."
    return [
        headline,
        _certainty(choice, evidence),
        _reason(choice, evidence),
        *_alternatives(choice, evidence),
        *base_network_sentences(recommended, evidence.costs, evidence.bases),
        *_indistinguishable(choice, evidence),
    ]


def _certainty(choice: Choice, evidence: Evidence) -> str:
    """How sure it is that this model is good enough."""
    recommended, best, shortfalls = choice.recommended, choice.best, choice.shortfalls
    goal = f"within {_points(f'{evidence.margin:g}')} of the best" if evidence.margin else "the best"
    probability, strength = _probability(choice.probability), "strong"
    if choice.probability < MODERATE:
        probability, strength = f"only {probability}", "weak"
    elif choice.probability < STRONG:
        strength = "moderate"
    if best == recommended:
        shortfall = f"Its expected shortfall is {_points(points(shortfalls[best]))}, the smallest of all"
    else:
        shortfall = (
            f"Its expected shortfall is {_points(points(shortfalls[recommended]))}; the smallest is "
            f"{_points(points(shortfalls[best]))}, of {best}"
        )
    sentence = (
        f"The evidence is {strength}: the probability that {recommended} is {goal} of these models is {probability}, "
        f"as far as {counted(evidence.images, 'validation image')} can tell. {shortfall}."
    )
    if all(part["training"]["repeats"] == 1 for part in evidence.metrics.values()):
        sentence += " Each model was trained once, so this does not include how another training would change it."
    elif all(len(part.predicts) == 1 for part in evidence.outcomes.values()):
        sentence += (
            " Only one repeat of each model predicted these images, so this does not include how repeats differ."
        )
    return sentence


def _reason(choice: Choice, evidence: Evidence) -> str:
    """Why this model."""
    count, best, recommended = len(choice.candidates), choice.best, choice.recommended
    within = f"within {_points(f'{evidence.margin:g}')} of the highest validation accuracy"
    if count == 1:
        others = f", and no other model is within {_points(f'{evidence.margin:g}')} of it" if evidence.margin else ""
        return f"{recommended} has the highest validation accuracy{others}."
    if not evidence.margin:
        return f"{recommended} is the cheapest of the {count} models with the highest validation accuracy."
    if best == recommended:
        return f"{recommended} has the highest validation accuracy, and is the cheapest of the {count} models {within}."
    highest = percent(evidence.outcomes[best].by_image.mean())
    return f"{recommended} is the cheapest of the {count} models {within}, {highest} of {best}."


def _alternatives(choice: Choice, evidence: Evidence) -> list[str]:
    """What the most accurate and the cheapest alternative would gain or save."""
    shortfalls, costs, recommended = choice.shortfalls, evidence.costs, choice.recommended
    others = [model for model in shortfalls if model != recommended]
    accurate = min(others, key=lambda model: round(shortfalls[model], 9))
    cheaper = [model for model in others if is_cheaper(costs[model], costs[recommended])]
    alternative = cheapest(cheaper, costs, shortfalls) if cheaper else None
    if accurate == alternative:
        return [f"The most accurate and cheapest alternative, {_offer(accurate, choice, evidence)}"]
    sentences = [f"The most accurate alternative, {_offer(accurate, choice, evidence)}"]
    if alternative is None:
        return [*sentences, none_is_cheaper(recommended, costs)]
    return [*sentences, f"The cheapest alternative, {_offer(alternative, choice, evidence)}"]


def _offer(model: str, choice: Choice, evidence: Evidence) -> str:
    """The difference of a model to the recommended one in accuracy and in cost, and whether images tell them apart."""
    pair = evidence.against(model, choice.recommended)
    cost = relative_cost(evidence.costs[model], evidence.costs[choice.recommended])
    than = "than" if pair.difference else "as"
    sentence = (
        f"{model}, scored {_gap(pair)} {than} {pair.b} on the validation images (95 % interval "
        f"{interval(pair.low, pair.high)} points); it needs {cost}."
    )
    return f"{sentence} {_resolution(model, choice, evidence)}".strip()


def _gap(pair: Comparison) -> str:
    """The difference of model a to model b: `1.5 points higher`."""
    if not pair.difference:
        return "the same"
    return f"{_points(points(abs(pair.difference)))} {'higher' if pair.difference > 0 else 'lower'}"


def _resolution(model: str, choice: Choice, evidence: Evidence) -> str:
    """If the validation images cannot tell a model from the recommended one: how many could; otherwise empty."""
    pair = evidence.against(model, choice.recommended)
    if pair.low > 0 or pair.high < 0:
        return ""
    sentence, margin = "The validation images cannot distinguish the two", evidence.margin / 100
    effect = max(abs(pair.difference), margin)
    if not effect:
        return f"{sentence}."
    if max(-pair.low, pair.high) <= margin:
        return f"{sentence}, and the difference is within the margin."
    needed = images_needed(evidence.outcomes[model], evidence.outcomes[choice.recommended], effect)
    if needed <= evidence.images:
        return f"{sentence}, because the repeats differ too much; more repeats could."
    difference = "this difference"
    if effect > abs(pair.difference):
        difference = f"a difference of {_points(f'{evidence.margin:g}')}"
    number = f"about {counted(float(f'{needed:.2g}'), 'validation image')}"
    return f"{sentence}; to detect {difference} (80 % power) you would need {number}."


def _indistinguishable(choice: Choice, evidence: Evidence) -> list[str]:
    """Which models the validation images cannot tell from the recommended one, if there are more than one."""
    pairs = [evidence.against(model, choice.recommended) for model in evidence.metrics if model != choice.recommended]
    models = [pair.a for pair in pairs if pair.low <= 0 <= pair.high]
    if len(models) < 2:
        return []
    if len(models) == len(pairs):
        others = "any other model"
    elif len(models) > MOST_NAMES:
        others = f"{len(models)} of the {len(pairs)} other models"
    else:
        others = f"{len(models)} other models: {listing(models)}"
    return [f"The validation images cannot distinguish {choice.recommended} from {others}."]


def comparison_sentence(pair: Comparison, costs: dict[str, MultiplyAdds], pairs: int) -> str:
    """Model a against model b on the test images in words; costs: of each model; pairs: their number in the task."""
    certainty = f"95 % interval {interval(pair.low, pair.high)} points"
    chance = ", but the difference may be chance" if pair.difference and not pair.distinguishable else ""
    if chance and (pair.low > 0 or pair.high < 0):
        certainty += (
            f", p {p_value(pair.p_holm)}; the interval is for one pair, the p value is corrected for all {pairs} pairs"
        )
    return (
        f"Compared with {pair.b}, {pair.a} scored {_gap(pair)} on the test images{chance} "
        f"({certainty}); it needs {relative_cost(costs[pair.a], costs[pair.b])}."
    )


def sentences_on_test(choice: Choice, metrics: dict[str, Any], test: list[Comparison]) -> list[str]:
    """One sentence for every other model, on the test images, the smallest difference first; test: all pairs."""
    pairs = [pair for pair in test if choice.recommended in (pair.a, pair.b)]
    others = [oriented(pair, pair.b if pair.a == choice.recommended else pair.a) for pair in pairs]
    costs = multiply_adds(metrics)
    return [
        comparison_sentence(pair, costs, len(test)) for pair in sorted(others, key=lambda pair: abs(pair.difference))
    ]


def _points(number: str) -> str:
    """A number of points with its unit: `1 point`, `0.5 points`."""
    return f"{number} point" if number in ("1", "1.0") else f"{number} points"


def _probability(share: float) -> str:
    if share > 0.99:
        return "more than 99 %"
    return "less than 1 %" if share < 0.01 else f"about {100 * share:.0f} %"


def contradictions(choice: Choice, test: list[Comparison], unused_folds: int) -> list[str]:
    """A warning for every model that is distinguishably better than the recommended one on the test images.

    unused_folds: folds of the task on which the models are not compared.
    """
    better = [
        pair.a if pair.difference > 0 else pair.b
        for pair in test
        if pair.distinguishable and choice.recommended == (pair.b if pair.difference > 0 else pair.a)
    ]
    reason = "The validation images were too few to show it, or differ from the test images."
    advice = "Give the task a larger share for validation."
    if unused_folds:
        folds = "1 fold of the task is" if unused_folds == 1 else f"{unused_folds} folds of the task are"
        advice = f"Give the models more repeats: {folds} unused."
    return [
        f"{model} is significantly better than the recommended {choice.recommended} on the test images. "
        + (f"{reason} {advice}" if model in choice.shortfalls else "It is not part of the choice.")
        for model in better
    ]
