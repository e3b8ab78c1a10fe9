"""Crossovers: the number of training images from which one learning curve is above another."""

import math
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from stages.evaluation.comparisons import Comparison
from stages.evaluation.learning_curves import ModelCurve


@dataclass(frozen=True)
class Crossover:
    """A point at which learning curve `after` overtakes `before`.

    images: training images per class. significant: with fewer images a model of `before`, with more a model of `after`
    is distinguishably better than the model of the other curve with equally many images, up to the next crossover.
    """

    before: str
    after: str
    images: float
    significant: bool


def find_crossovers(curves: list[ModelCurve], metrics: dict[str, Any], test: list[Comparison]) -> list[Crossover]:
    """The crossovers of all pairs of curves, interpolated linearly over the logarithm of the number of images.

    metrics: model -> its part of metrics.json. test: all pairs of models, compared on the test images.
    """
    winners = {}
    for pair in test:
        if pair.distinguishable:
            winners[frozenset((pair.a, pair.b))] = pair.a if pair.difference > 0 else pair.b
    return [
        crossover
        for first, second in combinations(curves, 2)
        for crossover in _crossovers_of_pair(first, second, metrics, winners)
    ]


def _crossovers_of_pair(
    first: ModelCurve, second: ModelCurve, metrics: dict[str, Any], winners: dict[frozenset, str]
) -> list[Crossover]:
    logs, accuracies = [], []
    for curve in (first, second):
        logs.append(np.log([*curve.models.values()]))
        accuracies.append([metrics[model]["test"]["accuracy"] for model in curve.models])
    low, high = max(log[0] for log in logs), min(log[-1] for log in logs)
    knots = np.unique([knot for log in logs for knot in log if low <= knot <= high])
    lead = np.subtract(*(np.interp(knots, *curve) for curve in zip(logs, accuracies, strict=True)))
    unequal = np.flatnonzero(lead.round(5))  # accuracies have six decimals
    crossings = []
    for start, end in pairwise(unequal):
        if lead[start] * lead[end] > 0:
            continue
        if end > start + 1:  # equal at the knots in between
            log_images = (knots[start + 1] + knots[end - 1]) / 2
        else:
            log_images = knots[start] + (knots[end] - knots[start]) * lead[start] / (lead[start] - lead[end])
        crossings.append((log_images, *((first, second) if lead[start] > 0 else (second, first))))
    edges = [-math.inf, *(log_images for log_images, *_ in crossings), math.inf]
    return [
        Crossover(
            before.name,
            after.name,
            math.exp(log_images),
            _wins(before, after, winners, (below, log_images)) and _wins(after, before, winners, (log_images, above)),
        )
        for (log_images, before, after), below, above in zip(crossings, edges, edges[2:], strict=False)
    ]


def _wins(curve: ModelCurve, rival: ModelCurve, winners: dict[frozenset, str], log_range: tuple[float, float]) -> bool:
    """Whether a model of `curve` is distinguishably better than one of `rival` with equally many images.

    log_range: logarithms of the number of images between which models count.
    """
    low, high = log_range
    return any(
        images == rival_images and low < math.log(images) < high and winners.get(frozenset((model, opponent))) == model
        for model, images in curve.models.items()
        for opponent, rival_images in rival.models.items()
    )
