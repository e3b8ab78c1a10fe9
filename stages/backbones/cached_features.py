"""Choosing the cut layer among cached features: the one a head is trained at, and the one a fine-tune starts from."""

from stages.artifacts.features import CachedFeatures, read_all_features
from stages.backbones.layer_names import find_layer, starting_cut
from stages.backbones.layer_table import LayerTraits, layers_of
from stages.core.errors import UserError


def read_features(name: str, cut: str | None = None) -> CachedFeatures:
    """The features of an entry at a cut layer. cut: a layer or block, None for features with one cut layer.

    `UserError` if they are missing, damaged, or have no such cut layer.
    """
    features = read_all_features(name)
    for candidate in features:
        if cut is None or candidate.record.cut == find_layer(_layers(candidate), cut, "highest"):
            return candidate
    cuts = ", ".join(candidate.record.cut for candidate in features)
    raise UserError(f"data/features/{name} has no cut layer {cut!r}, only {cuts}. Run `dvc repro`.")


def starting_features(features: list[CachedFeatures], lowest_trained: str) -> CachedFeatures | None:
    """The cached features that a training can start from instead of the images, or None; see `starting_cut`.

    features: of one entry, at one or more cut layers. lowest_trained: the lowest layer that is trained.
    """
    cuts = {candidate.record.cut: candidate for candidate in features}
    return cuts.get(starting_cut(_layers(features[0]), cuts, features[0].record.pooling, lowest_trained))


def _layers(features: CachedFeatures) -> dict[str, LayerTraits]:
    return layers_of(features.record.architecture, features.record.preset)
