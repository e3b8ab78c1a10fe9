"""The verdict: which model to take, how sure that is, and what the others offer, in sentences.

Validation images decide; test images have the last word.
"""

from dataclasses import dataclass
from typing import Any

from stages.core.wording import listing
from stages.evaluation.comparisons import Comparison
from stages.evaluation.folds import Outcomes, images_needed
from stages.evaluation.formatting import interval, p_value, percent, points
from stages.evaluation.shortfall import SAME_COST, Choice, MultiplyAdds, cheapest

MOST_NAMES = 5  # of models in a sentence; of more, their number


@dataclass(frozen=True)
class Evidence:
    """What a verdict is about. metrics: model -> its part of metrics.json. outcomes: of each model on the validation
    images; pairs: of models, compared on them. margin: in points.
    """

    metrics: dict[str, Any]
    outcomes: dict[str, Outcomes]
    pairs: list[Comparison]
    margin: float

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


def multiply_adds(metrics: dict[str, Any]) -> dict[str, MultiplyAdds]:
    """Model -> its cost; metrics: model -> its part of metrics.json."""
    return {
        model: MultiplyAdds(values["cost"]["multiply_adds"], values["cost"]["total_training_multiply_adds"])
        for model, values in metrics.items()
    }


def oriented(pair: Comparison, model: str) -> Comparison:
    """A comparison with `model`, one of the two, as a; the counts of images and p values stay with the pair."""
    if pair.a == model:
        return pair
    values = {**vars(pair), "a": pair.b, "b": pair.a, "difference": -pair.difference}
    return Comparison(**{**values, "low": -pair.high, "high": -pair.low})


def verdict(choice: Choice, evidence: Evidence) -> list[str]:
    """The sentence of the recommendation, then why, how sure, and what other models offer."""
    metrics, recommended = evidence.metrics, choice.recommended
    validation, test = (metrics[recommended][split] for split in ("validation", "test"))
    scores = (
        f"validation accuracy {percent(validation['accuracy'])}, test accuracy {percent(test['accuracy'])} "
        f"(95 % interval {interval(test['accuracy_low'], test['accuracy_high'])})"
    )
    at_chance = all(
        part["validation"]["accuracy_low"] <= part["validation"]["majority_rate"] for part in metrics.values()
    )
    chance = ["The validation images do not show that it is better than always predicting the largest class."]
    if len(metrics) == 1:
        return [f"{recommended} is the only model of this task: {scores}.", *(chance if at_chance else [])]
    if at_chance:
        headline = (
            "No model can be recommended: the validation images do not show that any is better than always predicting "
            f"the largest class. The first choice would be {recommended}: {scores}."
        )
    else:
        headline = f"{recommended} is recommended: {scores}."
    return [
        headline,
        _reason(choice, evidence),
        _certainty(choice, evidence),
        *_alternatives(choice, evidence),
        *_indistinguishable(choice, evidence),
    ]


def _reason(choice: Choice, evidence: Evidence) -> str:
    """Why this model."""
    count, best, recommended = len(choice.candidates), choice.best, choice.recommended
    within = f"within {_points(f'{evidence.margin:g}')} of the highest validation accuracy"
    if count == 1:
        others = f", and no other model is within {_points(f'{evidence.margin:g}')} of it" if evidence.margin else ""
        return f"It has the highest validation accuracy{others}."
    if not evidence.margin:
        return f"It is the cheapest of the {count} models with the highest validation accuracy."
    if best == recommended:
        return f"It has the highest validation accuracy, and it is the cheapest of the {count} models {within}."
    highest = percent(evidence.outcomes[best].by_image.mean())
    return f"It is the cheapest of the {count} models {within}, {highest} of {best}."


def _certainty(choice: Choice, evidence: Evidence) -> str:
    """How sure it is that this model is good enough."""
    goal = f"within {_points(f'{evidence.margin:g}')} of the best" if evidence.margin else "the best"
    sentence = (
        f"With a probability of {_probability(choice.probability)} it is {goal} of these models, as far as "
        f"{evidence.images:,} validation images can tell; its expected shortfall is "
        f"{_points(points(choice.shortfalls[choice.recommended]))}."
    )
    if all(len(part.predicts) == 1 for part in evidence.outcomes.values()):
        sentence += " Each model was trained once, so this does not include how another training would change it."
    return sentence


def _alternatives(choice: Choice, evidence: Evidence) -> list[str]:
    """What the runner-up and the cheapest alternative would gain or save."""
    shortfalls, costs, recommended = choice.shortfalls, evidence.costs, choice.recommended
    others = [model for model in shortfalls if model != recommended]
    runner_up = min(others, key=lambda model: round(shortfalls[model], 9))
    cheaper = [model for model in others if _is_cheaper(costs[model], costs[recommended])]
    alternative = cheapest(cheaper, costs, shortfalls) if cheaper else None
    name = "runner-up and cheapest alternative" if runner_up == alternative else "runner-up"
    sentences = [
        f"The {name}, {_offer(runner_up, choice, evidence)} {_resolution(runner_up, choice, evidence)}".strip()
    ]
    if alternative is None:
        sentences.append("No other model is cheaper.")
    elif alternative != runner_up:
        sentences.append(f"The cheapest alternative, {_offer(alternative, choice, evidence)}")
    return sentences


def _offer(model: str, choice: Choice, evidence: Evidence) -> str:
    """The difference of a model to the recommended one in accuracy and in cost."""
    pair = evidence.against(model, choice.recommended)
    gap = f"{_points(points(abs(pair.difference)))} {'higher' if pair.difference > 0 else 'lower'}"
    if not pair.difference:
        gap = "the same"
    cost = relative_cost(evidence.costs[model], evidence.costs[choice.recommended])
    certainty = f"95 % interval {interval(pair.low, pair.high)} points"
    return f"{model}, scored {gap} on the validation images ({certainty}) and {cost}."


def _resolution(model: str, choice: Choice, evidence: Evidence) -> str:
    """If the validation images cannot tell a model from the recommended one: how many could; otherwise empty."""
    pair = evidence.against(model, choice.recommended)
    if pair.low > 0 or pair.high < 0:
        return ""
    sentence, margin = "These images cannot tell the two apart", evidence.margin / 100
    effect = max(abs(pair.difference), margin)
    if not effect:
        return f"{sentence}."
    if max(-pair.low, pair.high) <= margin:
        return f"{sentence}, and the difference is within the margin."
    needed = images_needed(evidence.outcomes[model], evidence.outcomes[choice.recommended], effect)
    if needed <= evidence.images:
        return f"{sentence}, because the repeats differ too much: more repeats would tell."
    number = f"about {float(f'{needed:.2g}'):,.0f} of them"
    if effect > abs(pair.difference):
        return f"{sentence}; to tell a difference of {_points(f'{evidence.margin:g}')} would take {number}."
    return f"{sentence}: that would take {number}."


def _indistinguishable(choice: Choice, evidence: Evidence) -> list[str]:
    """Which models the validation images cannot tell from the recommended one, if there are more than one."""
    pairs = [evidence.against(model, choice.recommended) for model in evidence.metrics if model != choice.recommended]
    models = [pair.a for pair in pairs if pair.low <= 0 <= pair.high]
    if len(models) < 2:
        return []
    if len(models) > MOST_NAMES:
        return [f"They cannot tell it apart from {len(models)} of the {len(pairs)} other models."]
    return [f"In all, they cannot tell it apart from {listing(models)}."]


def comparison_sentence(pair: Comparison, costs: dict[str, MultiplyAdds]) -> str:
    """One comparison on the test images in words; costs: of each model."""
    pair = oriented(pair, pair.b) if pair.difference < 0 else pair
    certainty = f"95 % interval {interval(pair.low, pair.high)}"
    cost = relative_cost(costs[pair.a], costs[pair.b])
    if not pair.difference:
        return f"{pair.a} and {pair.b} scored the same ({certainty}). {pair.a} {cost}."
    scores = f"{pair.a} scored {points(pair.difference)} points higher than {pair.b}"
    if pair.distinguishable:
        return f"{scores} ({certainty}). It {cost}."
    if pair.low > 0:
        certainty += f", p {p_value(pair.p_holm)} after correction for the number of pairs"
    return f"{scores}, but the difference may be chance ({certainty}). It {cost}."


def sentences_on_test(choice: Choice, metrics: dict[str, Any], test: list[Comparison]) -> list[str]:
    """One sentence for every other model, on the test images, the smallest difference first; test: all pairs."""
    pairs = [pair for pair in test if choice.recommended in (pair.a, pair.b)]
    costs = multiply_adds(metrics)
    return [comparison_sentence(pair, costs) for pair in sorted(pairs, key=lambda pair: abs(pair.difference))]


def relative_cost(cost: MultiplyAdds, other: MultiplyAdds) -> str:
    """What a model costs beside another one: `costs 3 times as much in use and about as much in training`."""
    in_use, training = _times(cost.in_use, other.in_use), _times(cost.training, other.training)
    if in_use == training:
        return f"costs {in_use} in use and in training"
    return f"costs {in_use} in use and {training} in training"


def _times(cost: float, other: float) -> str:
    ratio = cost / other if other > 0 else 1.0
    if 1 / SAME_COST <= ratio <= SAME_COST:
        return "about as much"
    return f"{ratio:,.0f} times as much" if ratio >= 10 else f"{ratio:.2g} times as much"


def _is_cheaper(cost: MultiplyAdds, other: MultiplyAdds) -> bool:
    """Whether a model costs less in use; where that is about the same, in training."""
    if cost.in_use * SAME_COST < other.in_use:
        return True
    return cost.in_use <= SAME_COST * other.in_use and cost.training * SAME_COST < other.training


def _points(number: str) -> str:
    """A number of points with its unit: `1 point`, `0.5 points`."""
    return f"{number} point" if number in ("1", "1.0") else f"{number} points"


def _probability(share: float) -> str:
    if share > 0.99:
        return "more than 99 %"
    return "less than 1 %" if share < 0.01 else f"about {100 * share:.0f} %"


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
