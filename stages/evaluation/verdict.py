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
    without_base_networks,
)
from stages.evaluation.folds import Outcomes, images_needed
from stages.evaluation.formatting import interval, percent, points
from stages.evaluation.shortfall import Choice, MultiplyAdds, cheapest

MOST_NAMES = 5  # of models in a sentence; of more, their number
# Below these probabilities that the recommended model is within the margin of the best one, the evidence is not more.
WEAK, MODERATE, GOOD = 0.5, 0.8, 0.95


@dataclass(frozen=True)
class Evidence:
    """What a verdict is about: the models that are compared.

    metrics: model -> its part of metrics.json. outcomes: of each model on the validation images; pairs: of models,
    compared on them. margin: in points. folds: of the task, and on how many of them the models are compared. left_out:
    models of the task that are not compared. bases: model -> networks of the study that it is built on ->
    multiply-adds of the training of each.
    """

    metrics: dict[str, Any]
    outcomes: dict[str, Outcomes]
    pairs: list[Comparison]
    margin: float
    folds: tuple[int, int] = (1, 1)
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
        return [
            "No model can be recommended: the validation images do not show that any is better than always predicting "
            f"the largest class. The first choice would be {recommended}: {scores}.",
            "Look at the labels, the learning rates and the warnings before you compare costs.",
        ]
    unsure = "No model is clearly the best. For now, " if choice.probability < WEAK else ""
    return [
        f"{unsure}{recommended} is recommended: {scores}.",
        *_if_base_networks_are_free(choice, evidence),
        _certainty(choice, evidence),
        _reason(choice, evidence),
        *_alternatives(choice, evidence),
        *_perhaps_equal(choice, evidence),
        *base_network_sentences(evidence.costs, evidence.bases),
        *_unused_folds(choice, evidence),
    ]


def _if_base_networks_are_free(choice: Choice, evidence: Evidence) -> list[str]:
    """Which model would be recommended if the networks that the models are built on cost nothing, if it is another."""
    own = without_base_networks(evidence.costs, evidence.bases)
    model = cheapest(choice.candidates, own, choice.shortfalls)
    below = evidence.bases.get(choice.recommended, {})
    networks = listing(name for name in evidence.bases.get(model, {}) if name not in below)
    if model == choice.recommended or networks == "none":
        return []
    accuracy = percent(evidence.outcomes[model].by_image.mean())
    return [
        f"This depends on the cost of training {networks}, on which other models are built. If you train {networks} "
        f"anyway, take {model}: validation accuracy {accuracy}; apart from {networks}, it needs "
        f"{relative_cost(own[model], own[choice.recommended])} as {choice.recommended}."
    ]


def _certainty(choice: Choice, evidence: Evidence) -> str:
    """How sure it is that this model is good enough."""
    recommended, best, shortfalls = choice.recommended, choice.best, choice.shortfalls
    goal = f"within {_points(f'{evidence.margin:g}')} of the best" if evidence.margin else "the best"
    probability, strength = _probability(choice.probability), "strong"
    if choice.probability < WEAK:
        probability, strength = f"only {probability}", "weak"
    elif choice.probability < GOOD:
        strength = "moderate" if choice.probability < MODERATE else "good"
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
    return f"{recommended} is the cheapest of the {count} models {within} ({best}, {highest})."


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
        return f"{sentence}, because the repeats differ too much."
    difference = "this difference"
    if effect > abs(pair.difference):
        difference = f"a difference of {_points(f'{evidence.margin:g}')}"
    number = f"about {counted(float(f'{needed:.2g}'), 'validation image')}"
    return f"{sentence}; to detect {difference} (80 % power) you would need {number} or more."


def _perhaps_equal(choice: Choice, evidence: Evidence) -> list[str]:
    """Which models are outside the margin, perhaps by chance."""
    outside = [model for model in evidence.metrics if model not in choice.candidates]
    pairs = [evidence.against(model, choice.recommended) for model in outside]
    models = [pair.a for pair in pairs if pair.low <= 0 <= pair.high]
    if not models:
        return []
    names = f"{len(models)} of the {len(evidence.metrics)} models" if len(models) > MOST_NAMES else listing(models)
    scored = f"{names} scored lower than the margin allows"
    return [f"{scored}, but the validation images cannot distinguish {_it(models)} from {choice.recommended}."]


def _unused_folds(choice: Choice, evidence: Evidence) -> list[str]:
    """That more repeats would make the answer surer, if it is not sure and folds are left."""
    folds, used = evidence.folds
    if choice.probability >= GOOD or used >= folds:
        return []
    return [
        f"More repeats would make this surer: the models are compared on {used} of the {folds} folds of the task. With "
        f"{folds} repeats there would be about {evidence.images * folds // used:,} validation images instead of "
        f"{evidence.images:,}."
    ]


def sentences_on_test(choice: Choice, test: list[Comparison]) -> list[str]:
    """Which models differ from the recommended one on the test images; test: all pairs of the task."""
    pairs = [pair for pair in test if choice.recommended in (pair.a, pair.b)]
    others = [oriented(pair, pair.b if pair.a == choice.recommended else pair.a) for pair in pairs]
    others.sort(key=lambda pair: -pair.difference)
    corrected = f", with p values corrected for {len(test)} pairs" if len(test) > 1 else ""
    groups = {
        f"Significantly more accurate than {choice.recommended}": [
            pair for pair in others if pair.distinguishable and pair.difference > 0
        ],
        f"Significantly less accurate than {choice.recommended}": [
            pair for pair in others if pair.distinguishable and pair.difference < 0
        ],
        f"Not significantly different from {choice.recommended}{corrected}": [
            pair for pair in others if not pair.distinguishable
        ],
    }
    return [
        f"{words}: {'; '.join(_with_interval(pair) for pair in members)}."
        for words, members in groups.items()
        if members
    ]


def _with_interval(pair: Comparison) -> str:
    return f"{pair.a}, {100 * pair.difference:+.1f} points (95 % interval {interval(pair.low, pair.high)})"


def _it(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _points(number: str) -> str:
    """A number of points with its unit: `1 point`, `0.5 points`."""
    return f"{number} point" if number in ("1", "1.0") else f"{number} points"


def _probability(share: float) -> str:
    if share > 0.99:
        return "more than 99 %"
    return "less than 1 %" if share < 0.01 else f"about {100 * share:.0f} %"


def contradictions(choice: Choice, test: list[Comparison], folds: int, used_folds: int) -> list[str]:
    """A warning for every model that is distinguishably better than the recommended one on the test images.

    folds: of the task; used_folds: on how many of them the models are compared.
    """
    better = [
        pair.a if pair.difference > 0 else pair.b
        for pair in test
        if pair.distinguishable and choice.recommended == (pair.b if pair.difference > 0 else pair.a)
    ]
    reason = "The validation images were too few to show it, or differ from the test images."
    advice = "Give the task a larger share for validation."
    if folds > used_folds:
        advice = f"Give the models more repeats: they are compared on {used_folds} of the {folds} folds of the task."
    return [
        f"{model} is significantly better than the recommended {choice.recommended} on the test images. "
        + (f"{reason} {advice}" if model in choice.shortfalls else "It is not part of the choice.")
        for model in better
    ]
