"""Cut curves: models that differ only in how many layers of the backbone are frozen."""

from collections import defaultdict
from typing import Any

from stages.artifacts.models import ModelRecord, Provenance
from stages.backbones.layer_table import layers_of
from stages.evaluation.learning_curves import ModelCurve, group_curves, model_settings


def cut_curves(records: dict[str, ModelRecord]) -> dict[str, list[ModelCurve]]:
    """Architecture -> models of one task whose settings differ only in the highest frozen layer; x: frozen layers.

    Heads and probes differ in their cut layer, networks in `trainable`, fine-tunes in `unfreeze`.
    """
    settings, frozen = defaultdict(dict), {}
    for model, record in records.items():
        settings[record.provenance.architecture][model] = _settings(record)
        frozen[model] = frozen_layers(record)
    curves = {architecture: group_curves(content, frozen) for architecture, content in settings.items()}
    return {architecture: group for architecture, group in curves.items() if group}


def frozen_layers(record: ModelRecord) -> int:
    """The number of backbone layers, from the image upward, that training does not change."""
    provenance = record.provenance
    layers = layer_list(provenance)
    if provenance.lowest_trained_layer is None:
        return layers.index(provenance.cut) + 1
    return layers.index(provenance.lowest_trained_layer)


def layer_list(provenance: Provenance) -> list[str]:
    """The layers of the backbone of a model, lowest first."""
    return list(layers_of(provenance.architecture, provenance.preset))


def _settings(record: ModelRecord) -> dict[str, Any]:
    if record.kind not in ("head", "probe"):
        return model_settings(record, {"unfreeze", "trainable", "features"})
    features = record.provenance.features
    return {
        **model_settings(record, {"features", "cut", "cuts"}),
        "features": [features.dataset, features.backbone, features.pooling, features.precision, features.views],
        "joined": features.joined,
    }
