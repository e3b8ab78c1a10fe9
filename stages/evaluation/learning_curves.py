"""Learning curves: models that differ only in the number of training images."""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from stages.artifacts.models import ModelRecord

AMOUNT = {"train_fraction", "max_train_per_class"}


@dataclass(frozen=True)
class ModelCurve:
    """At least two models of a task. name: that of the last model. models: model -> its x value, ascending."""

    name: str
    models: dict[str, float]


def learning_curves(records: dict[str, ModelRecord]) -> list[ModelCurve]:
    """Models of one task whose settings differ only in the number of training images; x: mean images per class.

    Fine-tunes of one head form a curve. So do fine-tunes of several heads, if each head was trained on as many images
    as its fine-tune and those heads form a curve themselves.
    """
    images = {model: record.train_images / len(record.classes) for model, record in records.items()}
    settings = {model: model_settings(record, AMOUNT) for model, record in records.items()}
    with_heads = {}
    for model, record in records.items():
        head = records.get(record.provenance.head.name) if record.provenance.head else None
        if head and head.train_images == record.train_images:
            with_heads[model] = {**settings[model], "head": model_settings(head, AMOUNT)}
    return group_curves(settings, images) + group_curves(with_heads, images)


def model_settings(record: ModelRecord, ignored: Collection[str]) -> dict[str, Any]:
    """The settings that decide what a model is, with those of its training, but without `ignored` and the repeats.

    Lists of candidates stay lists, whichever of them was chosen.
    """
    own = {key: value for key, value in record.settings.items() if value is not None or key not in record.training}
    # The study may give one layer several names.
    settings = {**record.training, **own, "kind": record.kind, "cuts": record.provenance.cuts}
    return {key: value for key, value in settings.items() if key not in {*ignored, "repeats"}}


def group_curves(settings: dict[str, dict[str, Any]], x: dict[str, float]) -> list[ModelCurve]:
    """Models of equal settings in the order of their x values; of several with one x value the first of the study."""
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for model, content in settings.items():
        group = groups[json.dumps(content, sort_keys=True)]
        if x[model] not in group.values():
            group[model] = x[model]
    curves = [dict(sorted(group.items(), key=lambda item: item[1])) for group in groups.values() if len(group) > 1]
    return [ModelCurve([*curve][-1], curve) for curve in curves]
