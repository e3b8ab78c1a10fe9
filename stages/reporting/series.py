"""Models that differ in one thing only: how many images they are trained on, or how much of the backbone is frozen."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from stages.data.results import ModelRecord
from stages.reporting.comparisons import Comparison
from stages.study import Study
from stages.study.architectures import layers_of
from stages.study.references import lowest_trained

AMOUNT = {"train_fraction", "max_train_per_class"}


@dataclass(frozen=True)
class Series:
    """At least two models of a task. name: that of its last model. models: model -> its place, ascending."""

    name: str
    models: dict[str, float]


@dataclass(frozen=True)
class Crossing:
    """Where a series overtakes another, the more images there are.

    at: images of each class. beyond_chance: below it `before`, above it `after` is distinguishably better, in some pair
    of models that are trained on equally many images.
    """

    before: str
    after: str
    at: float
    beyond_chance: bool


def learning_curves(study: Study, models: list[str], records: dict[str, ModelRecord], classes: int) -> list[Series]:
    """Models whose settings are equal but for the number of training images; places: images of each class, a mean."""
    places = {model: records[model].train_images / classes for model in models}
    return _series({model: _settings(study, model, AMOUNT) for model in models}, places)


def depths(study: Study, models: list[str], records: dict[str, ModelRecord]) -> dict[str, list[Series]]:
    """Architecture -> models whose settings are equal but for the layer that parts frozen from trained.

    Heads differ in their cut, networks in `trainable`, fine-tunes in `unfreeze`. Places: number of frozen layers.
    """
    settings, places = defaultdict(dict), defaultdict(dict)
    for model in models:
        entry = study.models[model]
        if model in study.heads:
            features = study.features[entry.features]
            settings_of = _settings(study, model, {"features", "cut"})
            settings_of |= {"features": features.model_dump(exclude={"cut", "classes", "storage"})}
        else:
            settings_of = _settings(study, model, {"unfreeze", "trainable", "features"})
        architecture = architecture_of(study, records[model].backbone)
        settings[architecture][model] = settings_of
        places[architecture][model] = frozen_layers(architecture, entry, records[model].cut)
    found = {architecture: _series(settings[architecture], places[architecture]) for architecture in settings}
    return {architecture: series for architecture, series in found.items() if series}


def architecture_of(study: Study, backbone: str) -> str:
    """The architecture of a backbone, which may be a network of the study."""
    while backbone in study.networks:
        backbone = study.networks[backbone].backbone
    return study.backbones[backbone].architecture


def frozen_layers(architecture: str, entry: Any, cut: str | None) -> int:
    """How many layers of the backbone, from the image upward, training leaves as they are; cut: of a head."""
    names = list(layers_of(architecture))
    lowest = getattr(entry, "unfreeze", getattr(entry, "trainable", "head"))
    if lowest == "head":
        return names.index(cut) + 1 if cut else len(names)
    return names.index(lowest_trained(architecture, lowest, cut))


def crossings(curves: list[Series], metrics: dict[str, Any], test: list[Comparison]) -> list[Crossing]:
    """Where learning curves cross, between their points straight over the logarithm of the images.

    metrics: model -> its part of metrics.json. test: all pairs of models, compared on the test images.
    """
    better = {}
    for pair in test:
        if pair.distinguishable:
            better[frozenset((pair.a, pair.b))] = pair.a if pair.difference > 0 else pair.b
    return [crossing for one, other in combinations(curves, 2) for crossing in _cross(one, other, metrics, better)]


def _cross(one: Series, other: Series, metrics: dict[str, Any], better: dict[frozenset, str]) -> list[Crossing]:
    logs, accuracies = [], []
    for series in (one, other):
        logs.append(np.log([*series.models.values()]))
        accuracies.append([metrics[model]["test"]["accuracy"] for model in series.models])
    low, high = max(log[0] for log in logs), min(log[-1] for log in logs)
    places = np.unique([place for log in logs for place in log if low <= place <= high])
    ahead = np.subtract(*(np.interp(places, *each) for each in zip(logs, accuracies, strict=True)))
    places, ahead = places[ahead != 0], ahead[ahead != 0]
    found = []
    for step in np.flatnonzero(ahead[1:] * ahead[:-1] < 0):
        share = ahead[step] / (ahead[step] - ahead[step + 1])
        at = math.exp(places[step] + share * (places[step + 1] - places[step]))
        before, after = (one, other) if ahead[step] > 0 else (other, one)
        clear = {"before": False, "after": False}
        for model, images in before.models.items():
            for rival, equally_many in after.models.items():
                if images == equally_many and (ahead_model := better.get(frozenset((model, rival)))):
                    clear["before"] |= images < at and ahead_model == model
                    clear["after"] |= images > at and ahead_model == rival
        found.append(Crossing(before.name, after.name, at, all(clear.values())))
    return found


def _settings(study: Study, model: str, varied: set[str]) -> dict[str, Any]:
    """All settings of a model but those in `varied`, also those that it takes from section `training`."""
    entry = study.models[model]
    settings = {**entry.model_dump(), **entry.training(study.training).model_dump()}
    if model in study.fine_tunes and varied == AMOUNT:
        settings["head"] = _settings(study, entry.head, AMOUNT)
    return {key: value for key, value in settings.items() if key not in varied}


def _series(settings: dict[str, dict], places: dict[str, float]) -> list[Series]:
    """Models of equal settings in the order of their places; of several at one place the first of the study."""
    alike = defaultdict(dict)
    for model, of_model in settings.items():
        group = alike[json.dumps(of_model, sort_keys=True)]
        if places[model] not in group.values():
            group[model] = places[model]
    groups = [dict(sorted(group.items(), key=lambda item: item[1])) for group in alike.values()]
    return [Series([*group][-1], group) for group in groups if len(group) > 1]
