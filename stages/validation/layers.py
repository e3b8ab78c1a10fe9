"""Layers and image sizes: whether a backbone has the layers that entries name, and takes their images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.backbones.cached_features import not_vectors
from stages.backbones.known_presets import known_presets, transformer_layers
from stages.backbones.layer_names import (
    Layers,
    bypassed_cut,
    find_layer,
    lowest_trained_layer,
    missing_layer,
    same_layer,
    selectable_layers,
    untrainable,
)
from stages.backbones.layer_table import LayerTraits, layers_of
from stages.backbones.pooling import pooling_problem
from stages.backbones.presets import CLASS_TOKENS, TRANSFORMERS, possible_sizes
from stages.backbones.registry import ARCHITECTURES
from stages.config.features import FeaturesConfig
from stages.config.heads import HeadConfig
from stages.config.probes import ProbeConfig
from stages.core.wording import did_you_mean, listing
from stages.validation.classes import missing_classes, unknown_classes
from stages.validation.sections import Entries


@dataclass(frozen=True)
class ResolvedBackbone:
    """A backbone.

    image_size: in pixels, of the images that a network of the study was trained on; else None. layers: None if only the
    preset itself tells them; then the stage that uses them checks them. has_class_token: of a transformer.
    has_attention: also true if only the preset tells it.
    """

    architecture: str
    image_size: int | None
    layers: Layers | None
    has_class_token: bool
    has_attention: bool


def resolve_backbone(entries: Entries, name: str) -> ResolvedBackbone | None:
    """The backbone of this name; None if an entry that it depends on has a problem of its own."""
    image_size = None
    while name in entries["networks"]:
        network = entries["networks"][name]
        dataset = entries["datasets"].get(network.dataset)
        if dataset is None:
            return None
        image_size, name = image_size or dataset.image_size, network.backbone
    if (backbone := entries["backbones"].get(name)) is None:
        return None
    architecture = backbone.architecture
    layers, has_class_token, has_attention = None, False, architecture not in ARCHITECTURES
    if architecture in ARCHITECTURES:
        layers = layers_of(architecture)
    elif known := known_presets().get(architecture):
        layers = transformer_layers(known.class_name, known.blocks) if known.blocks else None
        has_class_token, has_attention = known.class_name in CLASS_TOKENS, known.class_name in TRANSFORMERS
    return ResolvedBackbone(architecture, image_size, layers, has_class_token, has_attention)


def find_cut(layers: Layers | None, features: FeaturesConfig, head: HeadConfig | ProbeConfig) -> str | None:
    """The layer whose features a head or a probe uses; None if it does not exist or is not clear."""
    cuts = [find_layer(layers, cut, "highest") if layers else cut for cut in features.cuts]
    if head.cut is None:
        return cuts[0] if len(cuts) == 1 else None
    if isinstance(head.cut, list):
        return None  # a probe that joins several
    layer = find_layer(layers, head.cut, "highest") if layers else head.cut
    return layer if layer in cuts else None


def network_problems(entries: Entries, name: str) -> Iterator[str]:
    """Problems of a network with its task, its images and its layers."""
    network, where = entries["networks"][name], f"networks.{name}"
    yield from other_dataset(entries, where, network)
    yield from _wrong_image_size(entries, where, network)
    if (backbone := resolve_backbone(entries, network.backbone)) is None:
        return
    architecture, layers = backbone.architecture, backbone.layers
    cut = network.cut or "top"
    cut = find_layer(layers, cut, "highest") if layers else cut
    if cut is None:
        yield missing_layer(f"{where}.cut", network.cut, architecture, selectable_layers(layers))
        return
    if layers is None or layers[cut].shape != "vector":
        yield from _wrong_pooling(f"{where}.pooling", network.pooling, cut, backbone)
    if network.trainable == "all":
        return
    if layers and network.trainable != "head" and lowest_trained_layer(layers, network.trainable, cut) is None:
        yield untrainable(f"{where}.trainable", network.trainable, layers, cut, architecture, ["all", "head"])
    elif _is_random(entries, network.backbone):
        yield f"{where}.trainable: {network.trainable!r} would freeze random weights. Use all."


def features_problems(entries: Entries, name: str) -> Iterator[str]:
    """Problems of features with their classes, images, weights and layers."""
    features, where = entries["features"][name], f"features.{name}"
    yield from unknown_classes(entries, f"{where}.classes", features.dataset, features.classes)
    yield from _wrong_image_size(entries, where, features)
    if _is_random(entries, features.backbone):
        yield f"{where}.backbone: {features.backbone!r} has random weights. Give a network or a trained backbone."
    backbone = resolve_backbone(entries, features.backbone)
    if backbone is None:
        return
    architecture, layers, names = backbone.architecture, backbone.layers, {}
    if layers is None:
        yield from _wrong_pooling(f"{where}.pooling", features.pooling, features.cuts[0], backbone)
    for cut in features.cuts:
        layer = find_layer(layers, cut, "highest") if layers else cut
        if layer is None:
            yield missing_layer(f"{where}.cut", cut, architecture, selectable_layers(layers))
        elif layer in names:
            yield same_layer(f"{where}.cut", names[layer], cut, layer)
        elif layers and features.pooling != "none" and layers[layer].shape == "vector":
            poolable = [layer for layer, traits in layers.items() if traits.shape != "vector"]
            yield (
                f"{where}.pooling: the activations of {layer} cannot be pooled, because they are vectors. Use pooling: "
                f"none, or one of these cuts of {architecture}: {listing(poolable)}."
            )
        elif layers:
            yield from _wrong_pooling(f"{where}.pooling", features.pooling, layer, backbone)
        names[layer] = cut


def head_problems(entries: Entries, section: str, name: str) -> Iterator[str]:
    """Problems of a head or a probe with its task and its features. section: heads or probes."""
    head, where = entries[section][name], f"{section}.{name}"
    features, task = entries["features"].get(head.features), entries["tasks"].get(head.task)
    if features and task and features.dataset != task.dataset:
        yield (
            f"{where}.features: {head.features!r} has images of dataset {features.dataset!r}, but tasks.{head.task} "
            f"uses {task.dataset!r}. Give features of that dataset."
        )
    yield from missing_classes(entries, where, head.features, head.task)
    if features is None:
        return
    backbone = resolve_backbone(entries, features.backbone)
    cut = find_cut(backbone.layers, features, head) if backbone else None
    if head.cut is None and len(features.cuts) > 1:
        yield (
            f"{where}.cut: the key is missing, and features.{head.features} has several cuts. Give one of "
            f"{listing(features.cuts)}."
        )
    elif isinstance(head.cut, list):
        yield from _joined_cuts(f"{where}.cut", head, features, backbone)
    elif head.cut is not None and backbone and cut is None:
        yield _no_cut(f"{where}.cut", head.cut, head.features, features)
    views = len(features.views) + 1
    if head.views is not None and head.views > views:
        yield (
            f"{where}.views: {head.views} is not valid, because features.{head.features} has {views} (the image itself "
            "is the first). Give at most that many."
        )
    if section == "heads" and head.start_from == "backbone":
        yield from _start_from_backbone(where, head.features, features, backbone, cut)


def _joined_cuts(
    where: str, probe: ProbeConfig, features: FeaturesConfig, backbone: ResolvedBackbone | None
) -> Iterator[str]:
    """Cuts of a probe that do not exist, are the same layer, or cannot be joined, because they are not vectors."""
    layers = backbone.layers if backbone else None
    available = {find_layer(layers, cut, "highest") if layers else cut for cut in features.cuts}
    names = {}
    for cut in probe.cut:
        layer = find_layer(layers, cut, "highest") if layers else cut
        if layer is None or layer not in available:
            yield _no_cut(where, cut, probe.features, features)
        elif layer in names:
            yield same_layer(where, names[layer], cut, layer)
        names[layer] = cut
    flat = features.pooling != "none" or all(layers[layer].shape == "vector" for layer in names if layers and layer)
    if len(probe.cut) > 1 and not flat:
        yield not_vectors(where, probe.features)


def _no_cut(where: str, cut: str, name: str, features: FeaturesConfig) -> str:
    suggestion = did_you_mean(cut, features.cuts)
    return f"{where}: {cut!r} is not a cut of features.{name}{suggestion}. Cuts: {listing(features.cuts)}."


def _start_from_backbone(
    where: str, features_name: str, features: FeaturesConfig, backbone: ResolvedBackbone | None, cut: str | None
) -> Iterator[str]:
    """Features on which the backbone's own upper layers cannot run."""
    if features.pooling != "none":
        yield (
            f"{where}.start_from: backbone is not valid, because features.{features_name} has pooling: "
            f"{features.pooling}. Use features with pooling: none, or start_from: random."
        )
    elif backbone and cut and backbone.layers:
        problem = bypassed_cut(where, features_name, cut, backbone.layers, backbone.architecture)
        yield from [problem] if problem else []


def other_dataset(entries: Entries, where: str, entry: Any) -> Iterator[str]:
    """A model whose dataset is not that of its task."""
    if task := entries["tasks"].get(entry.task):
        yield from disagreement(f"{where}.dataset", entry.dataset, f"tasks.{entry.task}", task.dataset)


def disagreement(where: str, value: str, source: str, expected: str) -> Iterator[str]:
    """A value that differs from that of another entry, the source."""
    if value != expected:
        yield f"{where}: {value!r} is not valid. Give {expected!r}, as in {source}."


def _wrong_image_size(entries: Entries, where: str, entry: Any) -> Iterator[str]:
    """Images of the entry's dataset that its backbone does not take."""
    backbone, dataset = resolve_backbone(entries, entry.backbone), entries["datasets"].get(entry.dataset)
    if backbone is None or dataset is None:
        return
    known = known_presets().get(backbone.architecture)
    architecture = ARCHITECTURES.get(backbone.architecture) or known
    if architecture is None:
        return  # the stage `features` or `train` checks a preset that is known by its place only
    size = f"{where}.dataset: the images of {entry.dataset!r} are {dataset.image_size} pixels wide, but"
    if dataset.image_size < architecture.smallest_image:
        yield (
            f"{size} {backbone.architecture} needs at least {architecture.smallest_image}. Increase "
            f"datasets.{entry.dataset}.image_size."
        )
    elif known and dataset.image_size % known.multiple and dataset.image_size != known.image_size:
        yield (
            f"{size} {backbone.architecture} has patches of {known.multiple} pixels. Give datasets.{entry.dataset}."
            f"image_size {possible_sizes(known.multiple, known.image_size)}."
        )
    elif not known and backbone.image_size and not architecture.any_size and dataset.image_size != backbone.image_size:
        yield (
            f"{size} {entry.backbone!r} was trained on {backbone.image_size}, and {backbone.architecture} works with "
            f"one size only. Use a dataset with image_size: {backbone.image_size}."
        )


def _wrong_pooling(where: str, pooling: str, cut: str, backbone: ResolvedBackbone) -> Iterator[str]:
    """A pooling that is not possible at a cut, or if only the preset tells its layers, at none of the backbone."""
    if backbone.layers:
        problem = pooling_problem(where, pooling, cut, backbone.layers[cut], backbone.has_class_token)
    elif backbone.architecture in known_presets():
        problem = pooling_problem(where, pooling, cut, LayerTraits(False, "image"), has_class_token=False)
    else:
        problem = None
    yield from [problem] if problem else []


def _is_random(entries: Entries, name: str) -> bool:
    backbone = entries["backbones"].get(name)
    return backbone is not None and backbone.weights == "random"
