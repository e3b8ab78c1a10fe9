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


@dataclass(frozen=True)
class ScreenedBackbone:
    """A backbone with its probes.

    probes: kind -> the most accurate probe of this kind. accuracies: kind -> its validation accuracy, 0 to 1. score:
    the mean of these. low, high: its 95 % interval, for other images of the same kind. among_first: the probability
    that its score is among the `FIRST` highest. multiply_adds: of one image up to the features. images_per_second: in
    batches of 32. megabytes: of its weights in float32. on_front: no other backbone is both cheaper in multiply-adds
    and more accurate.
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
    return {"screen": [asdict(entry) for entry in backbones], "screen_sentences": screen_sentences(backbones)}


def screen_backbones(
    records: dict[str, ModelRecord], outcomes: dict[str, Outcomes], metrics: dict[str, Any], seed: int
) -> list[ScreenedBackbone]:
    """The backbones of a task by score, the highest first; none if fewer than two have probes.

    records: of the models. outcomes: of each model on the same validation images. metrics: model -> its part of
    metrics.json. seed: of the resampling (Efron 1979), which draws the images for all backbones together.
    """
    best = _best_probes(records, outcomes)
    if len(best) < 2:
        return []
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
        shown = f"{share:.0f}" if share >= 1 else f"{share:.1g}"
        sentences.append(
            f"If speed matters, add {cheapest.backbone}: it needs {shown} % of the multiply-adds of "
            f"{names[0]}, and no backbone that needs fewer is as accurate ({percent(cheapest.score)})."
        )
    return sentences


def _best_probes(records: dict[str, ModelRecord], outcomes: dict[str, Outcomes]) -> dict[str, dict[str, str]]:
    """Backbone -> kind -> its most accurate probe, for the kinds that all backbones have."""
    best: dict[str, dict[str, str]] = {}
    for model, part in outcomes.items():
        record = records[model]
        if record.kind != "probe":
            continue
        kind = NEIGHBORS if record.settings["kind"] == "nearest_neighbors" else LINEAR
        probes = best.setdefault(record.provenance.backbone, {})
        if kind not in probes or part.by_image.mean() > outcomes[probes[kind]].by_image.mean():
            probes[kind] = model
    # A score of one kind alone cannot be compared with the mean of both.
    kinds = [kind for kind in (NEIGHBORS, LINEAR) if all(kind in probes for probes in best.values())]
    return {backbone: {kind: probes[kind] for kind in kinds} for backbone, probes in best.items()} if kinds else {}


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
