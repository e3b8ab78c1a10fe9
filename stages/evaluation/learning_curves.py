"""Models that differ in one thing only: how many images they are trained on, or how much of the backbone is frozen."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from stages.artifacts.models import ModelRecord
from stages.backbones.layer_names import find_layer, lowest_trained_layer
from stages.backbones.layer_table import layers_of
from stages.evaluation.comparisons import Comparison
from stages.validation.study import Study

AMOUNT = {"train_fraction", "max_train_per_class"}


@dataclass(frozen=True)
class ModelSeries:
    """At least two models of a task. name: that of its last model. models: model -> its place, ascending."""

    name: str
    models: dict[str, float]


@dataclass(frozen=True)
class Crossover:
    """Where a series overtakes another, the more images there are.

    at: images of each class. beyond_chance: below it `before`, above it `after` is distinguishably better, in some pair
    of models that are trained on equally many images, up to where the two cross again.
    """

    before: str
    after: str
    at: float
    beyond_chance: bool


def learning_curves(
    study: Study, models: list[str], records: dict[str, ModelRecord], classes: int
) -> list[ModelSeries]:
    """Models whose settings are equal but for the number of training images; places: images of each class, a mean.

    Fine-tunes are on one line where they start from the same head, and where each starts from a head that has seen as
    many images as itself, if those heads are on one line.
    """
    places = {model: records[model].train_images / classes for model in models}
    settings = {model: _settings(study, model, records, AMOUNT) for model in models}
    with_head = {}
    for model in filter(study.fine_tunes.get, models):
        head = study.fine_tunes[model].head
        if _amount(study, head) == _amount(study, model):
            with_head[model] = {**settings[model], "head": _settings(study, head, records, AMOUNT)}
    return _series(settings, places) + _series(with_head, places)


def cut_curves(study: Study, models: list[str], records: dict[str, ModelRecord]) -> dict[str, list[ModelSeries]]:
    """Architecture -> models whose settings are equal but for the layer that parts frozen from trained.

    Heads differ in their cut, networks in `trainable`, fine-tunes in `unfreeze`. Places: number of frozen layers.
    """
    settings, places = defaultdict(dict), defaultdict(dict)
    for model in models:
        entry = study.models[model]
        if model in study.heads:
            features = study.features[entry.features]
            settings_of = _settings(study, model, records, {"features", "cut"})
            settings_of |= {"features": features.model_dump(exclude={"cut", "classes", "storage"})}
        else:
            settings_of = _settings(study, model, records, {"unfreeze", "trainable", "features"})
        architecture = study.architecture(records[model].backbone)
        settings[architecture][model] = settings_of
        places[architecture][model] = frozen_layers(architecture, entry, records[model].cut)
    found = {architecture: _series(settings[architecture], places[architecture]) for architecture in settings}
    return {architecture: series for architecture, series in found.items() if series}


def frozen_layers(architecture: str, entry: Any, cut: str | None) -> int:
    """How many layers of the backbone, from the image upward, training leaves as they are.

    entry: of a model. cut: on which its head stands; None for a network, whose entry says it.
    """
    names = list(layers_of(architecture))
    cut = cut or find_layer(architecture, entry.cut or "top", "highest")
    lowest = getattr(entry, "unfreeze", getattr(entry, "trainable", "head"))
    if lowest == "head":
        return names.index(cut) + 1
    return names.index(lowest_trained_layer(architecture, lowest, cut))


def find_crossovers(curves: list[ModelSeries], metrics: dict[str, Any], test: list[Comparison]) -> list[Crossover]:
    """Where learning curves cross, between their points straight over the logarithm of the images.

    metrics: model -> its part of metrics.json. test: all pairs of models, compared on the test images.
    """
    better = {}
    for pair in test:
        if pair.distinguishable:
            better[frozenset((pair.a, pair.b))] = pair.a if pair.difference > 0 else pair.b
    return [crossing for one, other in combinations(curves, 2) for crossing in _cross(one, other, metrics, better)]


def _cross(
    one: ModelSeries, other: ModelSeries, metrics: dict[str, Any], better: dict[frozenset, str]
) -> list[Crossover]:
    logs, accuracies = [], []
    for series in (one, other):
        logs.append(np.log([*series.models.values()]))
        accuracies.append([metrics[model]["test"]["accuracy"] for model in series.models])
    low, high = max(log[0] for log in logs), min(log[-1] for log in logs)
    places = np.unique([place for log in logs for place in log if low <= place <= high])
    ahead = np.subtract(*(np.interp(places, *each) for each in zip(logs, accuracies, strict=True)))
    apart = np.flatnonzero(ahead.round(5))  # accuracies have six decimals
    found = []
    for start, end in pairwise(apart):
        if ahead[start] * ahead[end] > 0:
            continue
        if end > start + 1:  # level in between
            at = (places[start + 1] + places[end - 1]) / 2
        else:
            at = places[start] + (places[end] - places[start]) * ahead[start] / (ahead[start] - ahead[end])
        found.append((at, *((one, other) if ahead[start] > 0 else (other, one))))
    edges = [-math.inf, *(at for at, *_ in found), math.inf]
    return [
        Crossover(
            before.name,
            after.name,
            math.exp(at),
            _seen(before, after, better, below, at) and _seen(after, before, better, at, above),
        )
        for (at, before, after), below, above in zip(found, edges, edges[2:], strict=False)
    ]


def _seen(ahead: ModelSeries, behind: ModelSeries, better: dict[frozenset, str], low: float, high: float) -> bool:
    """Whether models of `ahead` are distinguishably better than ones of `behind` with equally many images.

    low, high: logarithms of the images between which that counts.
    """
    return any(
        images == equally_many and low < math.log(images) < high and better.get(frozenset((model, rival))) == model
        for model, images in ahead.models.items()
        for rival, equally_many in behind.models.items()
    )


def _settings(study: Study, model: str, records: dict[str, ModelRecord], varied: set[str]) -> dict[str, Any]:
    """All settings of a model but `varied` and its repeats, also those that it takes from section `training`."""
    entry = study.models[model]
    settings = {**entry.model_dump(), **entry.training(study.training).model_dump()}
    if model in study.heads:
        settings["cut"] = records[model].cut  # whatever the study calls it
    return {key: value for key, value in settings.items() if key not in varied | {"repeats"}}


def _amount(study: Study, model: str) -> list[Any]:
    """What a model's settings say about how many training images it sees."""
    training = study.models[model].training(study.training)
    return [getattr(training, key) for key in sorted(AMOUNT)]


def _series(settings: dict[str, dict], places: dict[str, float]) -> list[ModelSeries]:
    """Models of equal settings in the order of their places; of several at one place the first of the study."""
    alike = defaultdict(dict)
    for model, of_model in settings.items():
        group = alike[json.dumps(of_model, sort_keys=True)]
        if places[model] not in group.values():
            group[model] = places[model]
    groups = [dict(sorted(group.items(), key=lambda item: item[1])) for group in alike.values()]
    return [ModelSeries([*group][-1], group) for group in groups if len(group) > 1]
