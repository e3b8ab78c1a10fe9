"""Fine-tunes: whether the head, the features and the backbone belong together, and where training can start."""

from collections.abc import Iterator

from stages.backbones.layer_names import (
    Layers,
    find_layer,
    lowest_trained_layer,
    missing_layer,
    starting_cut,
    starting_cuts,
    unusable_features,
)
from stages.backbones.registry import WITHOUT_NORMALIZATION
from stages.config.features import FeaturesConfig
from stages.config.fine_tunes import FineTuneConfig
from stages.config.probes import ProbeConfig
from stages.core.wording import listing
from stages.validation.classes import missing_classes
from stages.validation.layers import ResolvedBackbone, disagreement, find_cut, other_dataset, resolve_backbone
from stages.validation.sections import Entries


def fine_tune_problems(entries: Entries, name: str) -> Iterator[str]:
    """Problems of a fine-tune with the entries that it names, and with its layers."""
    fine_tune, where = entries["fine_tunes"][name], f"fine_tunes.{name}"
    yield from other_dataset(entries, where, fine_tune)
    features = entries["features"].get(fine_tune.features)
    if features:
        source = f"features.{fine_tune.features}"
        yield from disagreement(f"{where}.dataset", fine_tune.dataset, source, features.dataset)
    section = "heads" if fine_tune.head in entries["heads"] else "probes"
    head = entries[section].get(fine_tune.head)
    if head is None:
        return
    yield from disagreement(f"{where}.task", fine_tune.task, f"{section}.{fine_tune.head}", head.task)
    if fine_tune.features != head.features and fine_tune.task == head.task:
        yield from missing_classes(entries, where, fine_tune.features, fine_tune.task)
    if isinstance(head, ProbeConfig) and head.kind == "nearest_neighbors":
        yield (
            f"{where}.head: {fine_tune.head!r} is a probe of nearest neighbors, which has no layers to train. Use a "
            "probe of kind ridge or logistic, or a head."
        )
    elif isinstance(head.cut, list):
        yield (
            f"{where}.head: {fine_tune.head!r} joins several cuts, but training continues from one. Use a probe, or a "
            "head, of one cut."
        )
    head_features = entries["features"].get(head.features)
    # A backbone that differs from both features is one problem; its layers are not checked then.
    for features_name, entry in ((head.features, head_features), (fine_tune.features, features)):
        if entry and entry.backbone != fine_tune.backbone:
            source = f"features.{features_name}"
            yield from disagreement(f"{where}.backbone", fine_tune.backbone, source, entry.backbone)
            return
    backbone = resolve_backbone(entries, fine_tune.backbone)
    if head_features is None or backbone is None:
        return
    architecture, layers = backbone.architecture, backbone.layers
    yield from _missing_parts(where, fine_tune, backbone)
    if (cut := find_cut(layers, head_features, head)) is None:
        return
    lowest = lowest_trained_layer(layers, fine_tune.unfreeze or "all", cut) if layers else None
    if layers and lowest is None:
        names = list(layers)
        names, note = ["all", *names[: names.index(cut) + 1]], f" up to the cut {cut!r} of {section}.{fine_tune.head}"
        yield missing_layer(f"{where}.unfreeze", fine_tune.unfreeze, architecture, names, note)
    elif features and fine_tune.features != head.features:
        if fine_tune.tuning:
            yield (
                f"{where}.features: training cannot start from {fine_tune.features!r} with tuning, which trains "
                f"weights at all depths. Give the features of the head, {head.features!r}, to start from the images."
            )
        elif fine_tune.augmentation:
            yield (
                f"{where}.features: training cannot start from {fine_tune.features!r} with augmentation. Give the "
                f"features of the head, {head.features!r}, to start from the images, or leave augmentation out."
            )
        else:
            yield from _unusable_features(f"{where}.features", fine_tune, features, layers, lowest)


def _missing_parts(where: str, fine_tune: FineTuneConfig, backbone: ResolvedBackbone) -> Iterator[str]:
    """A tuning of parts that the backbone does not have."""
    if fine_tune.tuning == "lora" and not backbone.has_attention:
        yield f"{where}.tuning: {backbone.architecture} has no attention for lora. Give another tuning, or unfreeze."
    if fine_tune.tuning == "normalization" and backbone.architecture in WITHOUT_NORMALIZATION:
        yield f"{where}.tuning: {backbone.architecture} has no normalization layers. Give bias, or unfreeze."


def _unusable_features(
    where: str, fine_tune: FineTuneConfig, features: FeaturesConfig, layers: Layers | None, lowest: str | None
) -> Iterator[str]:
    """Features that training cannot start from. lowest: the lowest layer that is trained; None if it is not known."""
    if layers is None:
        if features.pooling == "none" and any(cut != fine_tune.unfreeze != "all" for cut in features.cuts):
            return  # the stage knows the layers
        cuts, lowest, possible = features.cuts, str(fine_tune.unfreeze), []
    else:
        cuts = [layer for layer in (find_layer(layers, cut, "highest") for cut in features.cuts) if layer]
        if not cuts or starting_cut(layers, cuts, features.pooling, lowest):
            return
        possible = starting_cuts(layers, lowest)
    available = f"cut {listing(cuts)}, pooling {features.pooling}"
    yield unusable_features(where, lowest, fine_tune.features, available, possible)
