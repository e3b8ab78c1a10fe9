"""Choosing among the cut layers of cached features: for heads and probes, and for a fine-tune that starts from one."""

from dataclasses import replace

from stages.artifacts.features import CachedFeatures, JoinedArray, joined_record, read_all_features
from stages.backbones.layer_names import find_layer, starting_cut, starting_cuts, unusable_features
from stages.backbones.layer_table import LayerTraits, layers_of
from stages.core.errors import UserError
from stages.core.wording import listing


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


def read_joined_features(name: str, cuts: list[str | None], where: str) -> CachedFeatures:
    """The features of an entry at one cut layer, or at several side by side, lowest first.

    where: the setting that names them. `UserError` as in `read_features`; also for a layer that is named twice, and for
    several cut layers whose features are not vectors.
    """
    parts = [read_features(name, cut) for cut in cuts]
    if len(parts) == 1:
        return parts[0]
    order = list(_layers(parts[0]))
    parts.sort(key=lambda part: order.index(part.record.cut))
    layers = [part.record.cut for part in parts]
    if len(set(layers)) < len(layers):
        raise UserError(f"{where}: two of {listing(cuts)} are the same layer. Leave one of them out.")
    if any(len(part.record.shape) > 1 for part in parts):
        raise UserError(not_vectors(where, name))
    record = joined_record([part.record for part in parts])
    return replace(parts[-1], record=record, array=JoinedArray([part.array for part in parts]))


def starting_features(
    features: list[CachedFeatures], lowest_trained: str, where: str | None = None
) -> CachedFeatures | None:
    """The cached features that a training can start from instead of the images, or None; see `starting_cut`.

    features: of one entry, at one or more cut layers. lowest_trained: the lowest layer that is trained. where: the
    setting, if the features serve for nothing else; then `UserError` if training cannot start from them.
    """
    cuts, layers = {candidate.record.cut: candidate for candidate in features}, _layers(features[0])
    record = features[0].record
    start = cuts.get(starting_cut(layers, cuts, record.pooling, lowest_trained))
    if where and start is None:
        available = f"cut {listing(cuts)}, pooling {record.pooling}"
        raise UserError(
            unusable_features(where, lowest_trained, record.name, available, starting_cuts(layers, lowest_trained))
        )
    return start


def not_vectors(where: str, features: str) -> str:
    """The sentence for cuts that cannot be joined. features: their entry."""
    return (
        f"{where}: several cuts are joined as vectors, but features.{features} has pooling: none. Set its pooling, or "
        "give one cut."
    )


def _layers(features: CachedFeatures) -> dict[str, LayerTraits]:
    return layers_of(features.record.architecture, features.record.preset)
