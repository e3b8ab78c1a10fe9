"""What models cost beside each other, in words and in multiply-adds, which are the same on every machine."""

from dataclasses import replace
from typing import Any

from stages.core.wording import listing
from stages.evaluation.formatting import duration
from stages.evaluation.shortfall import SAME_COST, MultiplyAdds

MOST_OF_TRAINING = 0.5  # share of base networks in the cost of a training that is worth a sentence


def multiply_adds(metrics: dict[str, Any]) -> dict[str, MultiplyAdds]:
    """Model -> its cost; metrics: model -> its part of metrics.json."""
    return {
        model: MultiplyAdds(values["cost"]["multiply_adds"], values["cost"]["total_training_multiply_adds"])
        for model, values in metrics.items()
    }


def measured_cost(cost: dict[str, Any]) -> str:
    """The measured times of a model: `10.3 s of training, 4.5 ms per image`; cost: its part of metrics.json."""
    built_on = ", with what it is built on" if duration(cost["total_seconds"]) != duration(cost["seconds"]) else ""
    milliseconds = cost["milliseconds_per_image"]
    in_use = f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.2g}"
    return f"{duration(cost['total_seconds'])} of training{built_on}, {in_use} ms per image"


def relative_cost(cost: MultiplyAdds, other: MultiplyAdds) -> str:
    """What a model needs beside another one: `3 times as many multiply-adds in use and 20 % as many in training`."""
    in_use, training = _times(cost.in_use, other.in_use), _times(cost.training, other.training)
    if in_use == training:
        return f"{in_use} multiply-adds in use and in training"
    return f"{in_use} multiply-adds in use and {training} in training"


def _times(cost: float, other: float) -> str:
    ratio = cost / other if other > 0 else 1.0
    if 1 / SAME_COST <= ratio <= SAME_COST:
        return "about as many"
    if ratio < 1:
        return f"{100 * ratio:.2g} % as many"
    return f"{ratio:,.0f} times as many" if ratio >= 10 else f"{ratio:.2g} times as many"


def is_cheaper(cost: MultiplyAdds, other: MultiplyAdds) -> bool:
    """Whether a model costs less in use; where that is about the same, in training."""
    if cost.in_use * SAME_COST < other.in_use:
        return True
    return cost.in_use <= SAME_COST * other.in_use and cost.training * SAME_COST < other.training


def none_is_cheaper(model: str, costs: dict[str, MultiplyAdds]) -> str:
    """That no other model `is_cheaper` than this one, and which ones cost less in a way that does not count."""
    own, others = costs[model], [other for other in costs if other != model]
    in_use = min(others, key=lambda other: costs[other].in_use)
    training = min(others, key=lambda other: costs[other].training)
    close = f"within a factor of {SAME_COST:g} of {model}, which counts as the same"
    parts = ["No other model is cheaper in use", "no other model is cheaper to train, with what it is built on"]
    if costs[in_use].in_use < own.in_use:
        parts[0] = f"In use, the cheapest model is {in_use}, {close}"
    if costs[training].training * SAME_COST < own.training:
        more = _times(costs[training].in_use, own.in_use)
        parts[1] = f"to train, {training} is cheaper, but it needs {more} multiply-adds in use"
    elif costs[training].training < own.training:
        parts[1] = f"to train, the cheapest model is {training}, {close}"
    return f"{'; '.join(parts)}."


def without_base_networks(costs: dict[str, MultiplyAdds], bases: dict[str, dict[str, int]]) -> dict[str, MultiplyAdds]:
    """The costs as if the networks that the models are built on were there already; arguments as below."""
    own = {model: cost.training - sum(bases.get(model, {}).values()) for model, cost in costs.items()}
    return {model: replace(cost, training=own[model]) for model, cost in costs.items()}


def base_network_sentences(costs: dict[str, MultiplyAdds], bases: dict[str, dict[str, int]]) -> list[str]:
    """How much of the training costs is that of base networks, which the study trains anyway.

    costs: of each model. bases: model -> the networks of the study that it is built on -> multiply-adds of training
    each; of models without any, an empty mapping.
    """
    mostly: dict[tuple[str, ...], list[str]] = {}
    for model, networks in bases.items():
        if sum(networks.values()) >= MOST_OF_TRAINING * costs[model].training > 0:
            mostly.setdefault(tuple(networks), []).append(model)
    sentences = []
    for networks, models in mostly.items():
        share = min(sum(bases[model].values()) / costs[model].training for model in models)
        noun = "base network" if len(networks) == 1 else "base networks"
        least = "at least " if len(models) > 1 else ""
        sentences.append(
            f"Of the training cost of {listing(models)}, {least}{int(100 * share)} % is the {noun} "
            f"{listing(networks)}, which this study trains anyway."
        )
    return sentences
