"""Which backbone first: the backbones of a task, ranked by the probes on their features.

Probes cost seconds where fine-tuning costs hours. In comparisons of many measures of transferability, the accuracy of
nearest neighbors is among the best at finding the backbones that are worth fine-tuning; a linear probe is the other
usual measure. The score here is the mean of both.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stages.artifacts.models import ModelRecord
from stages.core.wording import counted, listing
from stages.evaluation.comparisons import RESAMPLES, resampled_accuracies
from stages.evaluation.folds import Outcomes
from stages.evaluation.formatting import percent, rounded

FIRST = 3  # backbones to fine-tune
NEIGHBORS, LINEAR = "nearest neighbors", "linear"
KINDS = {NEIGHBORS: "nearest_neighbors", LINEAR: "ridge or logistic"}  # as a study names them


@dataclass(frozen=True)
class ScreenedBackbone:
    """A backbone with its probes.

    probes: kind -> the most accurate probe of this kind, of those that count. accuracies: kind -> its validation
    accuracy, 0 to 1. score: the mean of these. low, high: its 95 % interval, for other images of the same kind.
    among_first: the probability that its score is among the `FIRST` highest. multiply_adds: of one image up to the
    features. images_per_second: in batches of 32. megabytes: of its weights in float32. on_front: no other backbone is
    both cheaper in multiply-adds and more accurate.
    """

    backbone: str
    architecture: str
    probes: dict[str, str]
    accuracies: dict[str, float]
    score: float
    low: float
    high: float
    among_first: float
    multiply_adds: int
    images_per_second: float
    megabytes: float
    on_front: bool


def screen(
    records: dict[str, ModelRecord], outcomes: dict[str, Outcomes], metrics: dict[str, Any], seed: int
) -> dict[str, Any]:
    """The part of comparisons.json; see `screen_backbones`."""
    backbones = screen_backbones(records, outcomes, metrics, seed)
    sentences = [*screen_sentences(backbones), *uncounted_probes(_probes(records, outcomes))]
    return {"screen": [asdict(entry) for entry in backbones], "screen_sentences": sentences}


def screen_backbones(
    records: dict[str, ModelRecord], outcomes: dict[str, Outcomes], metrics: dict[str, Any], seed: int
) -> list[ScreenedBackbone]:
    """The backbones of a task by score, the highest first; none if fewer than two have probes, or share no kind.

    records: of the models. outcomes: of each model on the same validation images. metrics: model -> its part of
    metrics.json. seed: of the resampling (Efron 1979), which draws the images for all backbones together.
    """
    probes = _probes(records, outcomes)
    numbers = _counted_probes(probes)
    if len(probes) < 2 or not numbers:
        return []
    best = {
        backbone: {
            kind: max(own[kind][:number], key=lambda probe: outcomes[probe].by_image.mean())
            for kind, number in numbers.items()
        }
        for backbone, own in probes.items()
    }
    # The score of an image is the mean over the probes of a backbone, so backbones are resampled as models are.
    scores = {
        backbone: np.mean([outcomes[probe].by_image.mean(axis=0) for probe in probes.values()], axis=0)[None]
        for backbone, probes in best.items()
    }
    groups = next(iter(outcomes.values())).groups
    drawn = np.stack([*resampled_accuracies(scores, groups, seed, RESAMPLES).values()], axis=1)
    # Of equal scores, each has its share of the places that they take together.
    higher = (drawn[:, None, :] > drawn[:, :, None]).sum(axis=2)
    equal = (drawn[:, None, :] == drawn[:, :, None]).sum(axis=2)
    among_first = np.clip((FIRST - higher) / equal, 0, 1).mean(axis=0)
    intervals = np.quantile(drawn, [0.025, 0.975], axis=0)
    backbones = []
    for number, (backbone, probes) in enumerate(best.items()):
        costs = [metrics[probe]["cost"] for probe in probes.values()]
        backbones.append(
            ScreenedBackbone(
                backbone=backbone,
                architecture=records[next(iter(probes.values()))].provenance.architecture,
                probes=probes,
                accuracies={kind: rounded(outcomes[probe].by_image.mean()) for kind, probe in probes.items()},
                score=rounded(scores[backbone].mean()),
                low=rounded(intervals[0, number]),
                high=rounded(intervals[1, number]),
                among_first=rounded(among_first[number]),
                multiply_adds=max(records[probe].provenance.features.multiply_adds for probe in probes.values()),
                images_per_second=max(cost["batch_images_per_second"] for cost in costs),
                megabytes=rounded(
                    max(records[probe].provenance.features.parameters for probe in probes.values()) * 4 / 1e6
                ),
                on_front=False,
            )
        )
    return sorted(_with_front(backbones), key=lambda entry: -entry.score)


def screen_sentences(backbones: list[ScreenedBackbone]) -> list[str]:
    """Which backbones to fine-tune first, how sure that is, and cheaper ones on the front."""
    if not backbones:
        return []
    first, others = backbones[:FIRST], backbones[FIRST:]
    names = [entry.backbone for entry in first]
    if not others:
        return [f"All {len(backbones)} backbones are few enough to fine-tune: {listing(names)}, by their probes."]
    sentences = [
        f"Of {counted(len(backbones), 'backbone')}, fine-tune {listing(names)} first: their probes are the most "
        f"accurate on the validation images ({percent(first[-1].score)} to {percent(first[0].score)})."
    ]
    close = [entry for entry in others if entry.among_first >= 0.25]
    if close:
        chances = [f"{entry.backbone} (with a probability of {100 * entry.among_first:.0f} %)" for entry in close]
        sentences.append(f"Other images of this kind may put {listing(chances)} among the first {FIRST}.")
    cheap = [entry for entry in others if entry.on_front]
    if cheap:
        cheapest = min(cheap, key=lambda entry: entry.multiply_adds)
        share = 100 * cheapest.multiply_adds / first[0].multiply_adds
        relative_cost = f"{share:.0f}" if share >= 1 else f"{share:.1g}"
        sentences.append(
            f"If speed matters, add {cheapest.backbone}: it needs {relative_cost} % of the multiply-adds of "
            f"{names[0]}, and no backbone that needs fewer is as accurate ({percent(cheapest.score)})."
        )
    return sentences


def uncounted_probes(probes: dict[str, dict[str, list[str]]]) -> list[str]:
    """Which probes do not count, and why, or why there is no ranking at all; see `_probes`."""
    if len(probes) < 2:
        return []
    numbers = _counted_probes(probes)
    lacking = {kind: [backbone for backbone, own in probes.items() if kind not in own] for kind in KINDS}
    if not numbers:
        reasons = [f"{listing(backbones)} without {KINDS[kind]}" for kind, backbones in lacking.items()]
        return [
            f"The backbones are not ranked, because their probes are of different kinds ({'; '.join(reasons)}). Add "
            "probes, so that all backbones have one of the same kind."
        ]
    sentences = [
        f"Probes of kind {KINDS[kind]} do not count, because some backbones have none ({listing(backbones)})."
        for kind, backbones in lacking.items()
        if kind not in numbers and len(backbones) < len(probes)
    ]
    for kind, number in numbers.items():
        if larger := [backbone for backbone, own in probes.items() if len(own[kind]) > number]:
            sentences.append(
                f"Of the probes of kind {KINDS[kind]} of {listing(larger)}, only the first {number} in the study "
                "count, as many as every backbone has: the best of more would also be the luckiest."
            )
    return sentences


def _probes(records: dict[str, ModelRecord], outcomes: dict[str, Outcomes]) -> dict[str, dict[str, list[str]]]:
    """Backbone -> kind -> its probes, in the order of the study."""
    probes: dict[str, dict[str, list[str]]] = {}
    for model in outcomes:
        record = records[model]
        if record.kind == "probe":
            kind = NEIGHBORS if record.settings["kind"] == "nearest_neighbors" else LINEAR
            probes.setdefault(record.provenance.backbone, {}).setdefault(kind, []).append(model)
    return probes


def _counted_probes(probes: dict[str, dict[str, list[str]]]) -> dict[str, int]:
    """Kind -> how many probes of a backbone count, for the kinds that all backbones have.

    The most accurate of many probes is also the luckiest, so as many count as the backbone with the fewest has. A
    score of one kind alone cannot be compared with the mean of both.
    """
    numbers = {kind: min((len(own.get(kind, [])) for own in probes.values()), default=0) for kind in KINDS}
    return {kind: number for kind, number in numbers.items() if number}


def _with_front(backbones: list[ScreenedBackbone]) -> list[ScreenedBackbone]:
    points = [(entry.multiply_adds, -entry.score) for entry in backbones]
    return [
        ScreenedBackbone(
            **{
                **vars(entry),
                "on_front": not any(a <= cost and b <= loss and (a, b) != (cost, loss) for a, b in points),
            }
        )
        for entry, (cost, loss) in zip(backbones, points, strict=True)
    ]
