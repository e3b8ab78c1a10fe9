"""Choosing the cut layer among cached features: the one a head is trained at, and the one a fine-tune starts from."""

from stages.artifacts.features import CachedFeatures, read_all_features
from stages.backbones.layer_names import can_start_from, find_layer
from stages.backbones.layer_table import layers_of
from stages.core.errors import UserError


def read_features(name: str, cut: str | None = None) -> CachedFeatures:
    """The features of an entry at a cut layer. cut: a layer or block, None for features with one cut layer.

    `UserError` if they are missing, damaged, or have no such cut layer.
    """
    features = read_all_features(name)
    for candidate in features:
        if cut is None or candidate.record.cut == find_layer(candidate.record.architecture, cut, "highest"):
            return candidate
    cuts = ", ".join(candidate.record.cut for candidate in features)
    raise UserError(f"data/features/{name} has no cut layer {cut!r}, only {cuts}. Run `dvc repro`.")


def starting_features(features: list[CachedFeatures], lowest_trained: str) -> CachedFeatures | None:
    """The cached features that a training may start from instead of the images; None if there are none.

    features: of one backbone. lowest_trained: the lowest layer that is trained; the frozen layers below the highest
    fitting cut layer are not run again.
    """
    layers = layers_of(features[0].record.architecture)
    fitting = [
        candidate
        for candidate in features
        if can_start_from(candidate.record.cut, candidate.record.pooling, layers, lowest_trained)
    ]
    return max(fitting, key=lambda candidate: list(layers).index(candidate.record.cut), default=None)
